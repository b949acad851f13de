"""A small real model behind text-generation-inference's interface, and behind vLLM's: what it answers is generated.

The model is run by our own embedded engine; the interfaces are TGI 3.3's, held to a recording of a real one by
`tests/contract/test_tgi_replies.py`, and the part of vLLM's that a generator uses. Adapters: TGI knows those of its
start and answers for any other name from its base; vLLM loads them by call and answers 404 for any other.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from tunesmith.domain.errors import InvalidInput, TunesmithError
from tunesmith.ports import parameters as limits
from tunesmith.ports.language_model import Adapter, Generation, GenerationParameters, LanguageModel, StreamChunk, Token
from tunesmith.ports.store import Store

MAX_INPUT_TOKENS = 128
MAX_TOTAL_TOKENS = 256

_UNSIGNED = {"max_new_tokens": 2**32, "seed": 2**64, "top_n_tokens": 2**32}
_SIGNED = ("top_k",)
_SIZES = ("best_of", "truncate")
_FLOATS = ("temperature", "top_p", "typical_p", "repetition_penalty", "frequency_penalty")


@dataclass(eq=False)
class ModelServer:
    """One server. `broken` is what requests get instead of answers, one each: status, content type, body."""

    model: LanguageModel
    """The model, with a single base loaded."""
    store: Store
    """The model's store, into which adapters loaded by call are put."""
    base_fingerprint: str
    model_id: str
    version: str = "3.3.6-dev0"
    started_with: tuple[str, ...] = ()
    """Adapters of the model that TGI knows, by name."""
    loads: bool = True
    """Whether vLLM loads adapters by call."""
    max_total_tokens: int = MAX_TOTAL_TOKENS
    broken: list[tuple[int, str, bytes]] = field(default_factory=list)
    hanging: bool = False
    """Accept requests and never answer."""
    hanging_path: str = ""
    """Do so for requests of this path alone."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    num_running: Counter[str] = field(default_factory=Counter)
    """By path."""
    num_checks: int = 0
    """Times that its health was asked for."""
    url: str = ""
    _loaded: set[str] = field(default_factory=set)
    _runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        """Serve on `port` of the loopback, a free one when 0."""
        app = web.Application(client_max_size=2 << 20, middlewares=[self._around])
        app.add_routes(
            [
                web.get("/info", self._info),
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.post("/", self._root),
                web.post("/invocations", self._root),
                web.post("/generate", self._generate),
                web.post("/generate_stream", self._generate_stream),
                web.get("/v1/models", self._models),
                web.post("/v1/completions", self._completions),
            ]
        )
        if self.loads:
            app.add_routes(
                [
                    web.post("/v1/load_lora_adapter", self._load_adapter),
                    web.post("/v1/unload_lora_adapter", self._unload_adapter),
                ]
            )
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close the port and forget adapters loaded by call, as a process that ends does."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        for name in list(self._loaded):
            await self.model.unload(name)
        self._loaded.clear()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @web.middleware
    async def _around(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.num_running[request.path] += 1
        try:
            if self.hanging or request.path == self.hanging_path:
                await asyncio.Event().wait()
            if self.broken and request.method == "POST":
                status, kind, body = self.broken.pop(0)
                return web.Response(status=status, content_type=kind, body=body)
            return cast(web.StreamResponse, await handler(request))
        finally:
            self.num_running[request.path] -= 1

    # text-generation-inference

    async def _info(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "model_id": self.model_id,
                "model_sha": None,
                "model_pipeline_tag": None,
                "max_concurrent_requests": 128,
                "max_best_of": 2,
                "max_stop_sequences": 4,
                "max_input_tokens": self.max_total_tokens // 2,
                "max_total_tokens": self.max_total_tokens,
                "validation_workers": 2,
                "max_client_batch_size": 8,
                "router": "text-generation-router",
                "version": self.version,
                "sha": None,
                "docker_label": None,
            }
        )

    async def _health(self, _: web.Request) -> web.Response:
        self.num_checks += 1
        return web.Response()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text="# TYPE tgi_request_success counter\n")

    async def _root(self, request: web.Request) -> web.Response:
        answer = await self._generate(request, full_text=True)
        if answer.status != 200:
            return answer
        return web.json_response([json.loads(cast(bytes, answer.body))])

    async def _generate(self, request: web.Request, *, full_text: bool = False) -> web.Response:
        try:
            asked = await self._read(request, full_text=full_text)
            self._validate(asked, stream=False)
            chunks = [chunk async for chunk in self._chunks(asked)]
        except _Refused as refused:
            return refused.response()
        except TunesmithError as error:
            return _validation(_words_of(error)).response()
        whole = chunks[-1].generation
        assert whole is not None
        reply: dict[str, Any] = {"generated_text": whole.text}
        if asked.details:
            reply["details"] = {
                "finish_reason": whole.finish_reason,
                "generated_tokens": whole.num_generated_tokens,
                "seed": whole.seed,
                "prefill": [],
                "tokens": [_token(chunk.token) for chunk in chunks],
            }
        return web.json_response(reply, headers={"x-prompt-tokens": str(whole.num_prompt_tokens)})

    async def _generate_stream(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = await self._read(request)
        except _Refused as refused:
            return refused.response()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            self._validate(asked, stream=True)
            async with aclosing(cast(Any, self._chunks(asked))) as chunks:
                index = 0
                async for chunk in chunks:
                    index += 1
                    await _send(response, self._event(index, chunk, asked))
        except _Refused as refused:
            await _send(response, refused.row)
        except TunesmithError as error:
            await _send(response, _validation(_words_of(error)).row)
        return response

    def _event(self, index: int, chunk: StreamChunk, asked: _Asked) -> dict[str, Any]:
        whole = chunk.generation
        details = None
        if whole is not None and asked.details:
            details = {
                "finish_reason": whole.finish_reason,
                "generated_tokens": whole.num_generated_tokens,
                "seed": whole.seed,
                "input_length": whole.num_prompt_tokens,
            }
        return {
            "index": index,
            "token": _token(chunk.token),
            "generated_text": whole.text if whole else None,
            "details": details,
        }

    def _chunks(self, asked: _Asked) -> AsyncIterator[StreamChunk]:
        adapter = asked.adapter if asked.adapter in self.started_with else None
        return self.model.stream(asked.prompt, asked.parameters, adapter=adapter)

    async def _read(self, request: web.Request, *, full_text: bool = False) -> _Asked:
        """The body as serde would take it: its errors are plain text."""
        raw = await request.read()
        try:
            body = json.loads(raw)
        except ValueError:
            raise _Refused(400, "Failed to parse the request body as JSON: EOF while parsing a value") from None
        self.bodies.append(body)
        if "inputs" not in body:
            raise _undeserialised("missing field `inputs`")
        if not isinstance(body["inputs"], str):
            raise _undeserialised("inputs: invalid type: sequence, expected a string")
        told = body.get("parameters", {"do_sample": True})
        if not isinstance(told, dict):
            raise _undeserialised("invalid type: null, expected struct GenerateParameters")
        for name, end in _UNSIGNED.items():
            _check_unsigned(told, name, end)
        if not isinstance(told.get("stop", []), list):
            raise _undeserialised(f'parameters.stop: invalid type: string "{told["stop"]}", expected a sequence')
        set_ones = {
            name: told[name] for name in (*_UNSIGNED, *_SIGNED, *_SIZES, *_FLOATS) if told.get(name) is not None
        }
        return _Asked(
            body["inputs"],
            set_ones,
            stop=tuple(told.get("stop") or ()),
            do_sample=bool(told.get("do_sample")),
            details=bool(told.get("details")),
            full_text=bool(told.get("return_full_text", full_text)),
            adapter=told.get("adapter_id") or "",
            grammar=told.get("grammar"),
            room=self.max_total_tokens // 2,
        )

    def _validate(self, asked: _Asked, *, stream: bool) -> None:
        """In the router's order, with its words."""
        p, longest = asked.given, self.max_total_tokens // 2
        best_of = p.get("best_of", 1)
        samples = asked.do_sample or limits.samples(asked.parameters)
        rules = [
            (best_of > 1 and stream, "`best_of` != 1 is not supported when streaming tokens"),
            (best_of > 1 and not samples, "you must use sampling when `best_of` is > 1"),
            (best_of > 1 and "seed" in p, "`seed` must not be set when `best_of` > 1"),
            (p.get("temperature", 1) <= 0, "`temperature` must be strictly positive"),
            (p.get("repetition_penalty", 1) <= 0, "`repetition_penalty` must be strictly positive"),
            (not -2 <= p.get("frequency_penalty", 0) <= 2, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
            (not 0 < p.get("top_p", 0.5) < 1, "`top_p` must be > 0.0 and < 1.0"),
            (not 0 < p.get("typical_p", 0.5) < 1, "`typical_p` must be > 0.0 and < 1.0"),
            (p.get("top_k", 1) <= 0, "`top_k` must be strictly positive"),
            (p.get("max_new_tokens", 1) == 0, "`max_new_tokens` must be strictly positive"),
            (len(asked.stop) > 4, f"`stop` supports up to 4 stop sequences. Given: {len(asked.stop)}"),
            (p.get("top_n_tokens", 0) > 5, f"`top_n_tokens` must be >= 0 and <= 5. Given: {p.get('top_n_tokens')}"),
            (asked.prompt == "", "`inputs` cannot be empty"),
            (
                not 0 < p.get("truncate", 1) <= longest,
                f"`truncate` must be strictly positive and less than {longest}. Given: {p.get('truncate')}",
            ),
        ]
        for wrong, words in rules:
            if wrong:
                raise _validation(words)
        num_prompt_tokens = min(self._num_tokens(asked.prompt), p.get("truncate", 2**31))
        if "max_new_tokens" in p and num_prompt_tokens + p["max_new_tokens"] > self.max_total_tokens:
            raise _validation(
                f"`inputs` tokens + `max_new_tokens` must be <= {self.max_total_tokens}. Given: {num_prompt_tokens} "
                f"`inputs` tokens and {p['max_new_tokens']} `max_new_tokens`"
            )
        if num_prompt_tokens > longest:
            raise _validation(f"`inputs` must have less than {longest} tokens. Given: {num_prompt_tokens}")

    def _num_tokens(self, prompt: str) -> int:
        """The tiny models have one token a byte."""
        return len(prompt.encode())

    # vLLM

    async def _models(self, _: web.Request) -> web.Response:
        base = {"id": self.model_id, "root": self.model_id, "parent": None, "max_model_len": self.max_total_tokens}
        adapters = [{"id": name, "root": f"/adapters/{name}", "parent": self.model_id} for name in sorted(self._loaded)]
        return web.json_response({"object": "list", "data": [base, *adapters]})

    async def _load_adapter(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, folder = body["lora_name"], Path(body["lora_path"])
        if name in self._loaded:
            return _openai_error(400, f"The lora adapter '{name}' has already been loaded.")
        if not (folder / "adapter_config.json").is_file():
            return _openai_error(404, f"Loading lora {name} failed: No adapter found for {folder}")
        key = f"loaded/{name}/"
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            self.store.put(f"{key}{file}", (folder / file).read_bytes())
        weights_hash = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
        await self.model.load(Adapter(name, weights_hash, key, self.model_id, self.base_fingerprint))
        self._loaded.add(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload_adapter(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        if name not in self._loaded:
            return _openai_error(404, f"The lora adapter '{name}' cannot be found.")
        self._loaded.discard(name)
        await self.model.unload(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if body["model"] not in (self.model_id, *self._loaded):
            return _openai_error(404, f"The model `{body['model']}` does not exist.")
        adapter = body["model"] if body["model"] in self._loaded else None
        greedy = body.get("temperature", 1.0) == 0
        schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
        parameters = GenerationParameters(
            max_new_tokens=body["max_tokens"],
            temperature=None if greedy else body.get("temperature"),
            do_sample=not greedy,
            top_p=body.get("top_p"),
            top_k=body.get("top_k"),
            repetition_penalty=body.get("repetition_penalty"),
            frequency_penalty=body.get("frequency_penalty"),
            seed=body.get("seed"),
            stop=tuple(body.get("stop") or ()),
            truncate=body.get("truncate_prompt_tokens"),
            json_schema=None if schema is None else json.dumps(schema),
        )
        chunks = self.model.stream(body["prompt"], parameters, adapter=adapter)
        try:
            first = await anext(chunks)
        except TunesmithError as error:
            return _openai_error(400, _words_of(error))
        if not body.get("stream"):
            told = [first] if first.generation else [first, *[chunk async for chunk in chunks]]
            whole = told[-1].generation
            assert whole is not None
            return web.json_response({"choices": [_choice(told, body)], "usage": _usage(whole)})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        held: list[StreamChunk] = [first]
        async with aclosing(cast(Any, chunks)):
            while True:
                # Text that may turn out to be a stop sequence is held back; several tokens then come at once.
                if not parameters.stop or held[-1].generation is not None:
                    await _send(response, {"choices": [_choice(held, body)]})
                    if (whole := held[-1].generation) is not None:
                        break
                    held = []
                held.append(await anext(chunks))
        if (body.get("stream_options") or {}).get("include_usage"):
            await _send(response, {"choices": [], "usage": _usage(whole)})
        await response.write(b"data: [DONE]\n\n")
        return response


@dataclass(frozen=True)
class _Asked:
    prompt: str
    given: Mapping[str, Any]
    stop: tuple[str, ...]
    do_sample: bool
    details: bool
    full_text: bool
    adapter: str
    grammar: Mapping[str, Any] | None
    room: int

    @property
    def parameters(self) -> GenerationParameters:
        names = ("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "frequency_penalty", "seed")
        return GenerationParameters(
            max_new_tokens=self.given.get("max_new_tokens", self.room),
            do_sample=self.do_sample,
            stop=self.stop,
            return_full_text=self.full_text,
            truncate=self.given.get("truncate"),
            json_schema=_schema_of(self.grammar),
            **{name: self.given[name] for name in names if name in self.given},
        )


class _Refused(Exception):
    def __init__(self, status: int, words: str, *, kind: str = "") -> None:
        super().__init__(words)
        self.status, self.words, self.kind = status, words, kind

    @property
    def row(self) -> dict[str, str]:
        return {"error": self.words, "error_type": self.kind}

    def response(self) -> web.Response:
        if self.kind:
            return web.json_response(self.row, status=self.status)
        return web.Response(text=self.words, status=self.status)


def _undeserialised(words: str) -> _Refused:
    return _Refused(422, f"Failed to deserialize the JSON body into the target type: {words}")


def _validation(words: str) -> _Refused:
    return _Refused(422, f"Input validation error: {words}", kind="validation")


def _check_unsigned(told: Mapping[str, Any], name: str, end: int) -> None:
    value = told.get(name)
    if value is None:
        return
    kind = f"u{end.bit_length() - 1}"
    if isinstance(value, float) or value >= end:
        shown = repr(float(value)).replace("+", "")
        raise _undeserialised(f"parameters.{name}: invalid type: floating point `{shown}`, expected {kind}")
    if value < 0:
        raise _undeserialised(f"parameters.{name}: invalid value: integer `{value}`, expected {kind}")


def _schema_of(grammar: Mapping[str, Any] | None) -> str | None:
    if grammar is None or grammar["type"] == "regex":  # regular expressions are taken and not followed
        return None
    value = grammar["value"]
    if grammar["type"] == "json_schema":
        value = value["schema"]
    return value if isinstance(value, str) else json.dumps(value)


def _words_of(error: TunesmithError) -> str:
    if isinstance(error, InvalidInput) and error.metadata.get("parameter") == "json_schema":
        return f"grammar is not valid: {error.message}"
    return error.message


def _token(token: Token) -> dict[str, Any]:
    return {"id": token.id, "text": token.text, "logprob": token.logprob, "special": token.special}


async def _send(response: web.StreamResponse, row: Mapping[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(row).encode() + b"\n\n")


def _choice(told: list[StreamChunk], body: Mapping[str, Any]) -> dict[str, Any]:
    whole = told[-1].generation
    text = "".join(chunk.token.text for chunk in told if not chunk.token.special)
    stopped_by = None
    if whole is not None and whole.finish_reason == "stop_sequence":
        stopped_by = next(stop for stop in body["stop"] if text.endswith(stop))
        text = text.removesuffix(stopped_by)
    choice: dict[str, Any] = {
        "index": 0,
        "text": text,
        "finish_reason": None if whole is None else "length" if whole.finish_reason == "length" else "stop",
        "stop_reason": stopped_by,
    }
    if body.get("logprobs") is not None:
        choice["logprobs"] = {"token_logprobs": [chunk.token.logprob for chunk in told]}
    if body.get("return_token_ids"):
        choice["token_ids"] = [chunk.token.id for chunk in told]
    return choice


def _usage(whole: Generation) -> dict[str, int]:
    return {"prompt_tokens": whole.num_prompt_tokens, "completion_tokens": whole.num_generated_tokens}


def _openai_error(status: int, words: str) -> web.Response:
    return web.json_response({"error": {"message": words, "type": "BadRequestError", "code": status}}, status=status)


@asynccontextmanager
async def serving(server: ModelServer) -> AsyncIterator[ModelServer]:
    """The server while the block runs."""
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
