"""A language model behind any OpenAI-compatible interface: OpenAI, vLLM, SGLang, llama.cpp, TGI's own /v1, ...

A chat model gets the prompt as one user message; with `completions` the prompt is continued as it is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, Protocol, cast

from tunesmith.adapters.http_endpoint import HttpEndpoint, adapter_not_loaded
from tunesmith.adapters.remote_models import check_base, drawn_seed
from tunesmith.domain.errors import InvalidInput, NotFound, Unavailable, Unsupported
from tunesmith.ports import parameters as limits
from tunesmith.ports.language_model import (
    Adapter,
    FinishReason,
    Generation,
    GenerationParameters,
    StreamChunk,
    Token,
)

Api = Literal["chat", "completions"]

NO_LOGPROB = float("nan")
NO_ID = -1
"""Where the server tells neither token ids nor log-probabilities."""

MAX_SERVER_SEED = 2**63
"""vLLM takes int64; seeds from here on wrap around."""

LOAD_PATHS = (
    ("/load_lora_adapter", "/unload_lora_adapter"),
    ("/../load_lora_adapter", "/../unload_lora_adapter"),
)
"""vLLM has them below /v1, SGLang beside it."""


class AdapterFolder(Protocol):
    """A folder that the server sees too."""

    def place(self, adapter: Adapter) -> str:
        """Put the adapter's checked files there; gives the folder's path as the server sees it."""
        ...

    def remove(self, name: str) -> None:
        """Delete the files of an adapter that the server has let go."""
        ...


@dataclass(slots=True)
class _Stream:
    """What a streamed answer has told so far."""

    text: str = ""
    finish_reason: object = None
    stopped_by: object = None
    num_tokens: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    last: Token | None = None
    """The token that came with the finish reason, held until the usage after it is known."""


class OpenAILanguageModel:
    """Implements `LanguageModel` for one server. `model` empty takes the only one that the server lists.

    A stop sequence that ended an answer is put back where the server says which it was (vLLM, SGLang); others do not
    tell it from the model's own end. `tokens` asks for token ids and log-probabilities, in vLLM's way: other servers
    may refuse such a request. With an `adapters` folder, adapters are loaded while the server runs; without, those of
    its start can be used.
    """

    def __init__(
        self,
        endpoint: HttpEndpoint,
        *,
        model: str = "",
        api: Api = "chat",
        tokens: bool = False,
        adapters: AdapterFolder | None = None,
        base: str = "",
    ) -> None:
        """`base` names the model that the server serves, where it lists a path or an alias only."""
        self._endpoint = endpoint
        self._model = model
        self._api = api
        self._tokens = tokens and api == "completions"
        self._folder = adapters
        self._base = base
        self._adapters: dict[str, str] = {}
        """The server's model name of what is asked for by a name."""
        self._placed: set[str] = set()
        self._max_length: int | None = None

    async def describe(self) -> str:
        """The model's name."""
        return await self._model_name()

    async def check(self) -> None:
        """Raise unless the server is ready; adapters that it no longer lists are forgotten."""
        listed = {str(row.get("id")) for row in await self._listed()}
        self._adapters = {name: served for name, served in self._adapters.items() if served in listed}

    def has(self, name: str) -> bool:
        """Whether requests for adapter `name` would be sent."""
        return name in self._adapters

    def forget(self) -> None:
        """Take the server for one that was started anew."""
        self._adapters.clear()

    async def load(self, adapter: Adapter) -> None:
        """Make `adapter` ready, under its own name.

        BaseModelUnavailable when the server serves another base; Unsupported when it does not load at run time; what
        fetching the files raises.
        """
        rows = await self._listed()
        model = await self._model_name()
        if adapter.name in [str(row.get("id")) for row in rows]:
            self._adapters[adapter.name] = adapter.name
            return
        served = [model, *(str(row.get("root") or "") for row in rows if row.get("id") == model)]
        check_base(adapter, served=served, declared=self._base, server=self._endpoint)
        if not adapter.key:
            self._adapters[adapter.name] = model
            return
        if self._folder is None:
            raise self._cannot_load(adapter.name, "no folder for adapters is set: add ?adapters=/shared/folder")
        path = await asyncio.to_thread(self._folder.place, adapter)
        self._placed.add(adapter.name)
        if not await self._command(0, {"lora_name": adapter.name, "lora_path": path}):
            raise self._cannot_load(
                adapter.name,
                "it does not load adapters while it runs: start vLLM with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, SGLang with --enable-lora",
            )
        self._adapters[adapter.name] = adapter.name

    async def unload(self, name: str) -> None:
        """Refuse requests for `name` from now on, and have the server let it go if it was loaded from here."""
        served = self._adapters.pop(name, None)
        if name not in self._placed or self._folder is None:
            return
        if served is not None:
            await self._command(1, {"lora_name": name})
        self._placed.discard(name)
        await asyncio.to_thread(self._folder.remove, name)

    async def generate(self, prompt: str, parameters: GenerationParameters, *, adapter: str | None) -> Generation:
        """See the port; Unsupported for parameters that this interface does not have."""
        parameters = drawn_seed(parameters)
        body = await self._request(prompt, parameters, adapter)
        reply = await self._asked(body, adapter)
        try:
            choice = reply.body["choices"][0]
            text = (choice["message"]["content"] if self._api == "chat" else choice["text"]) or ""
            if not isinstance(text, str):
                raise TypeError(type(text).__name__)
            usage = reply.body.get("usage") or {}
            return self._generation(
                prompt, text, parameters, choice.get("finish_reason"), choice.get("stop_reason"), usage
            )
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            self._odd(error)

    async def stream(
        self, prompt: str, parameters: GenerationParameters, *, adapter: str | None
    ) -> AsyncIterator[StreamChunk]:
        """See the port. Where the server tells no token ids, a chunk is what it sends at once: one token or several."""
        parameters = drawn_seed(parameters)
        body = await self._request(prompt, parameters, adapter) | {"stream": True}
        if self._tokens:
            body["stream_options"] = {"include_usage": True}
        so_far = _Stream()
        events = self._endpoint.events(self._path, body)
        async with aclosing(cast("Any", events)):
            try:
                async for event in events:
                    for token in self._read(event, so_far):
                        yield StreamChunk(token)
            except NotFound as error:
                self._gone(adapter, error)
        if so_far.finish_reason is None:
            self._odd(ValueError("the stream ended before the answer did"))
        if self._tokens and not so_far.usage:
            so_far.usage = {"completion_tokens": so_far.num_tokens}
        whole = self._generation(prompt, so_far.text, parameters, so_far.finish_reason, so_far.stopped_by, so_far.usage)
        ending = whole.text.removeprefix(prompt if parameters.return_full_text else "")[len(so_far.text) :]
        last = so_far.last or Token(NO_ID, "", NO_LOGPROB, special=not ending)
        yield StreamChunk(Token(last.id, last.text + ending, last.logprob, last.special), whole)

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    def _read(self, event: Any, so_far: _Stream) -> Sequence[Token]:
        """The tokens of one event; the last of the answer is kept back in `so_far`."""
        if isinstance(event, dict) and "error" in event:
            self._broke_off(event["error"])
        try:
            so_far.usage = event.get("usage") or so_far.usage
            tokens: list[Token] = []
            for choice in event.get("choices", ()):
                part = (choice["delta"].get("content") if self._api == "chat" else choice["text"]) or ""
                so_far.text += part
                so_far.finish_reason = choice.get("finish_reason") or so_far.finish_reason
                so_far.stopped_by = choice.get("stop_reason") or so_far.stopped_by
                tokens += self._tokens_of(choice, part)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            self._odd(error)
        so_far.num_tokens += len(tokens)
        if so_far.finish_reason is not None and tokens:
            so_far.last = tokens.pop()
        return tokens

    def _tokens_of(self, choice: Any, part: str) -> list[Token]:
        """One token each where ids or log-probabilities tell how many there were; the last carries the text."""
        told = choice.get("logprobs") or {}
        logprobs = [float(value) for value in told.get("token_logprobs") or ()] if self._tokens else []
        ids = [int(value) for value in choice.get("token_ids") or ()] if self._tokens else []
        count = max(len(ids), len(logprobs))
        if not count:
            return [Token(NO_ID, part, NO_LOGPROB, special=False)] if part else []
        ids += [NO_ID] * (count - len(ids))
        logprobs += [NO_LOGPROB] * (count - len(logprobs))
        texts = [""] * (count - 1) + [part]
        # A token without text that ends the answer is the model's end token.
        return [
            Token(token_id, text, min(0.0, logprob), special=not text and choice.get("finish_reason") == "stop")
            for token_id, text, logprob in zip(ids, texts, logprobs, strict=True)
        ]

    @property
    def _path(self) -> str:
        return "/chat/completions" if self._api == "chat" else "/completions"

    async def _request(self, prompt: str, parameters: GenerationParameters, adapter: str | None) -> dict[str, Any]:
        p = parameters
        if adapter is not None and adapter not in self._adapters:
            raise adapter_not_loaded(adapter, self._endpoint, self._adapters)
        for name in ("typical_p",) if self._tokens else ("typical_p", "truncate"):
            if getattr(p, name) is not None:
                raise Unsupported(
                    f"generation parameter {name} does not exist in the OpenAI interface of {self._endpoint.base_url}; "
                    "leave it out",
                    metadata={"parameter": name},
                )
        limits.check_prompt(prompt)
        model = self._adapters[adapter] if adapter is not None else await self._model_name()
        if self._tokens:
            if self._max_length is None:
                await self._listed()
            limits.check(p, max_new_tokens_limit=(self._max_length or 2**31) - 1)
        asked = {"messages": [{"role": "user", "content": prompt}]} if self._api == "chat" else {"prompt": prompt}
        samples = p.do_sample or p.temperature is not None or p.top_p is not None or p.top_k is not None
        optional = {
            # Greedy is temperature 0 here; unset would mean 1.
            "temperature": (1.0 if p.temperature is None else p.temperature) if samples else 0,
            "top_p": p.top_p,
            "top_k": p.top_k,
            "repetition_penalty": p.repetition_penalty,
            "frequency_penalty": p.frequency_penalty,
            "seed": None if p.seed is None or not samples else p.seed % MAX_SERVER_SEED,
            "stop": list(p.stop) or None,
            "truncate_prompt_tokens": p.truncate,
            "logprobs": 1 if self._tokens else None,
            "return_token_ids": True if self._tokens else None,
            "response_format": None
            if p.json_schema is None
            else {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": json.loads(p.json_schema), "strict": True},
            },
        }
        body = {"model": model, "max_tokens": p.max_new_tokens, **asked}
        return body | {name: value for name, value in optional.items() if value is not None}

    async def _asked(self, body: dict[str, Any], adapter: str | None) -> Any:
        try:
            return await self._endpoint.post(self._path, body)
        except NotFound as error:
            self._gone(adapter, error)

    def _gone(self, adapter: str | None, error: NotFound) -> NoReturn:
        """Raise what a 404 means: the server was started anew and has forgotten the adapter, or the path is wrong."""
        if adapter is None:
            raise error
        self._adapters.pop(adapter, None)
        raise NotFound(error.message, reason="ADAPTER_NOT_LOADED", metadata={"name": adapter}) from error

    async def _listed(self) -> list[dict[str, Any]]:
        reply = await self._endpoint.get("/models")
        try:
            rows = [dict(row) for row in reply.body["data"]]
            lengths = [int(row["max_model_len"]) for row in rows if row.get("max_model_len")]
        except (KeyError, TypeError, ValueError) as error:
            self._odd(error)
        self._max_length = min(lengths, default=None)
        return rows

    async def _model_name(self) -> str:
        if self._model:
            return self._model
        rows = await self._listed()
        # vLLM lists adapters too, with the model that they are on as their parent.
        names = [str(row.get("id")) for row in rows if not row.get("parent")]
        if len(names) != 1:
            listed = ", ".join(names[:10]) or "none"
            raise InvalidInput(
                f"{self._endpoint.base_url} serves {len(names)} models ({listed}); name one: "
                f"{self._endpoint.setting.address}=openai+{self._endpoint.base_url}?model=NAME",
                reason="LLM_MODEL_UNNAMED",
            )
        self._model = names[0]
        return self._model

    async def _command(self, which: int, body: dict[str, str]) -> bool:
        """Have the server load (0) or unload (1); False when it has no such path."""
        for paths in LOAD_PATHS:
            try:
                await self._endpoint.command(paths[which], body)
            except NotFound as error:
                said = error.metadata.get("said", "").lower()
                if "adapter" in said or "lora" in said:
                    raise  # it has the path, and not the adapter
                continue
            except InvalidInput as error:
                if "already" in error.message or (which == 1 and "not loaded" in error.message):
                    return True
                raise
            return True
        return False

    def _cannot_load(self, name: str, why: str) -> Unsupported:
        return Unsupported(
            f"{self._endpoint.base_url} cannot load adapter {name}: {why}",
            reason="NO_RUNTIME_LOADING",
            metadata={"adapter": name, "backend": self._endpoint.base_url},
        )

    def _generation(
        self,
        prompt: str,
        text: str,
        parameters: GenerationParameters,
        finish_reason: object,
        stopped_by: object,
        usage: dict[str, Any],
    ) -> Generation:
        if finish_reason not in ("length", "stop", "eos_token", "stop_sequence"):
            raise TypeError(f"finish_reason {finish_reason!r}")
        reason: FinishReason = "length" if finish_reason == "length" else "eos_token"
        if isinstance(stopped_by, str) and stopped_by in parameters.stop:
            reason = "stop_sequence"
            text = text if text.endswith(stopped_by) else text + stopped_by
        return Generation(
            text=prompt + text if parameters.return_full_text else text,
            finish_reason=reason,
            num_generated_tokens=int(usage.get("completion_tokens") or 0),
            seed=parameters.seed if limits.samples(parameters) else None,
            num_prompt_tokens=int(usage.get("prompt_tokens") or 0),
        )

    def _broke_off(self, error: object) -> NoReturn:
        """In a stream every error arrives inside a 200."""
        told = error if isinstance(error, dict) else {"message": error}
        said, code = str(told.get("message", ""))[:300], told.get("code", told.get("http_status_code"))
        if code in (400, 422):
            raise InvalidInput(f"{self._endpoint.base_url} refuses the request: {said}", reason="LLM_REFUSED")
        raise Unavailable(f"{self._endpoint.base_url} broke off: {said}; try again", reason="LLM_BROKE_OFF")

    def _odd(self, error: Exception) -> NoReturn:
        raise Unavailable(
            f"{self._endpoint.base_url} answered in a shape that is not OpenAI's ({type(error).__name__}: "
            f"{str(error)[:80]}); check that the address ends with its version, such as /v1",
            reason="LLM_ODD_REPLY",
        ) from error
