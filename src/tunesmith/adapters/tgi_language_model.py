"""A text-generation-inference server, whose HTTP interface (3.x) is frozen: its base, and the adapters of its start.

Why not huggingface_hub's AsyncInferenceClient (2.4): it cannot keep the port's contract. It gives no response headers,
and TGI tells the number of prompt tokens there alone; it reads replies without a cap on their size; after an HTTP 400
that names unused parameters it repeats the request without them, and goes on doing so for the life of the process; it
follows redirects and sends the token saved on the machine to whatever address it is given; a stream's response is held
until the whole client is closed; and importing it takes a second.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from tunesmith.adapters.http_endpoint import HttpEndpoint, adapter_not_loaded
from tunesmith.adapters.remote_models import check_base, drawn_seed
from tunesmith.domain.errors import InvalidInput, NotFound, Unavailable, Unsupported
from tunesmith.ports import parameters as limits
from tunesmith.ports.language_model import Adapter, Generation, GenerationParameters, StreamChunk, Token

KNOWN_MAJOR = "3"
"""The version of the interface that this speaks."""

PROBES = ("12->", "Say which music fits a quiet street in the rain:")
NUM_PROBE_TOKENS = 8
MIN_DIFFERENCE = 0.01
"""Nats. Below it two log-probabilities are rounding: half-precision kernels differ by some thousandths with what else
is in the batch."""
NOISE_FACTOR = 4.0


@dataclass(frozen=True, slots=True)
class TgiInfo:
    """What a server says of itself."""

    model_id: str
    model_sha: str
    version: str
    max_input_tokens: int
    max_total_tokens: int
    max_stop_sequences: int

    @property
    def model(self) -> str:
        """The model's id, with its revision where the server knows it."""
        return self.model_id + (f"@{self.model_sha}" if self.model_sha else "")


class TgiLanguageModel:
    """Implements `LanguageModel` for one server. An adapter that was not loaded here is refused: the server itself
    would answer from its base (`ADAPTER_TO_INDEX.get(id, 0)`) and say nothing.

    The server takes its adapters at its start (`LORA_ADAPTERS=NAME=FOLDER,...`) and lists them nowhere, so `load`
    proves by the answers that NAME is among them. A server whose whole model is the version (`--model-id .../NAME`, a
    merged model) is recognised by its `/info`. The limits that `/info` tells are checked before every call.
    """

    def __init__(self, endpoint: HttpEndpoint, *, base: str = "") -> None:
        """`base` names the model that the server serves, where its `/info` shows a path only."""
        self._endpoint = endpoint
        self._base = base
        self._info: TgiInfo | None = None
        self._adapters: dict[str, str | None] = {}
        """What is asked for by a name: an `adapter_id`, or None for the server's own model."""
        self._lacking: set[str] = set()
        """Adapters that it was not started with, so that it will not have them as long as it runs."""

    async def describe(self) -> str:
        """The model's id, with its revision where the server knows it."""
        return (await self._known_info()).model

    async def check(self) -> None:
        """Raise unless the server is ready; when another model or version answers there now, forget the adapters."""
        await self._endpoint.ping("/health")
        # Requests go on by what is known meanwhile: they do not wait for this.
        now = await self._asked_info()
        if self._info is not None and self._info != now:
            self.forget()
        self._info = now

    def has(self, name: str) -> bool:
        """Whether requests for adapter `name` would be sent."""
        return name in self._adapters

    def forget(self) -> None:
        """Take the server for one that was started anew."""
        self._adapters.clear()
        self._lacking.clear()

    async def load(self, adapter: Adapter) -> None:
        """Make sure that the server answers with `adapter`, by three to six short greedy requests, once in its life.

        BaseModelUnavailable when it serves another base; NotFound when it was not started with the adapter.
        """
        info = await self._known_info()
        if _last_part(info.model_id) == adapter.name:
            self._adapters[adapter.name] = None
            return
        check_base(adapter, served=(info.model_id,), declared=self._base, server=self._endpoint)
        if not adapter.key:
            self._adapters[adapter.name] = None
            return
        if info.version.split(".")[0] != KNOWN_MAJOR:
            raise Unsupported(
                f"{self._endpoint.base_url} is text-generation-inference {info.version} and cannot be asked for "
                f"{adapter.name}: the adapters of {KNOWN_MAJOR}.x are known, start that version",
                reason="BACKEND_VERSION",
                metadata={"version": info.version[:40]},
            )
        if adapter.name in self._lacking or not await self._answers_with(adapter.name):
            self._lacking.add(adapter.name)
            raise NotFound(
                f"{self._endpoint.base_url} answers for adapter {adapter.name} just as its base does: it was not "
                "started with it, and it loads adapters at its start only; start a replica with "
                f"LORA_ADAPTERS={adapter.name}=FOLDER and add it to {self._endpoint.setting.address}",
                reason="ADAPTER_NOT_STARTED",
                metadata={"adapter": adapter.name, "backend": self._endpoint.base_url},
            )
        self._adapters[adapter.name] = adapter.name

    async def unload(self, name: str) -> None:
        """Refuse requests for `name` from now on; the server keeps it."""
        self._adapters.pop(name, None)

    async def generate(self, prompt: str, parameters: GenerationParameters, *, adapter: str | None) -> Generation:
        """See the port."""
        parameters = drawn_seed(parameters)
        body = await self._request(prompt, parameters, adapter)
        reply = await self._asked("/generate", body, parameters)
        try:
            row = reply.body[0] if isinstance(reply.body, list) else reply.body
            num_prompt_tokens = reply.headers.get("x-prompt-tokens", 0)
            return _generation(row["generated_text"], row["details"], num_prompt_tokens, parameters)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            self._odd(error)

    async def stream(
        self, prompt: str, parameters: GenerationParameters, *, adapter: str | None
    ) -> AsyncIterator[StreamChunk]:
        """See the port."""
        parameters = drawn_seed(parameters)
        request = await self._request(prompt, parameters, adapter)
        async with aclosing(cast("Any", self._endpoint.events("/generate_stream", request))) as events:
            async for event in events:
                if not isinstance(event, dict) or "error" in event:
                    self._refused(event, parameters)
                try:
                    told = event["token"]
                    token = Token(int(told["id"]), str(told["text"]), float(told["logprob"]), bool(told["special"]))
                    text = event.get("generated_text")
                    whole = None
                    if text is not None:
                        details = event["details"]
                        whole = _generation(text, details, details.get("input_length") or 0, parameters)
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    self._odd(error)
                yield StreamChunk(token, whole)
                if whole is not None:
                    return
        self._odd(ValueError("the stream ended before the answer did"))

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    async def _known_info(self) -> TgiInfo:
        if self._info is None:
            self._info = await self._asked_info()
        return self._info

    async def _asked_info(self) -> TgiInfo:
        body = (await self._endpoint.get("/info")).body
        try:
            longest = body.get("max_input_tokens") or body.get("max_input_length") or 2**31
            return TgiInfo(
                model_id=str(body["model_id"]),
                model_sha=str(body.get("model_sha") or ""),
                version=str(body.get("version") or "unknown"),
                max_input_tokens=int(longest),
                max_total_tokens=int(body.get("max_total_tokens") or 2**31),
                max_stop_sequences=int(body.get("max_stop_sequences") or limits.MAX_STOP_SEQUENCES),
            )
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            self._odd(error)

    async def _request(self, prompt: str, parameters: GenerationParameters, adapter: str | None) -> dict[str, Any]:
        p = parameters
        if adapter is not None and adapter not in self._adapters:
            raise adapter_not_loaded(adapter, self._endpoint, self._adapters)
        limits.check_prompt(prompt)
        info = await self._known_info()
        limits.check(
            p,
            max_new_tokens_limit=info.max_total_tokens - 1,
            max_stop_sequences=info.max_stop_sequences,
            max_truncate=info.max_input_tokens,
        )
        optional = {
            "temperature": p.temperature,
            "top_k": p.top_k,
            "top_p": p.top_p,
            "typical_p": p.typical_p,
            "repetition_penalty": p.repetition_penalty,
            "frequency_penalty": p.frequency_penalty,
            "seed": p.seed if limits.samples(p) else None,
            "truncate": p.truncate,
            "grammar": None if p.json_schema is None else {"type": "json", "value": json.loads(p.json_schema)},
            "adapter_id": self._adapters[adapter] if adapter is not None else None,
        }
        asked = {
            "max_new_tokens": p.max_new_tokens,
            "do_sample": p.do_sample,
            "stop": list(p.stop),
            "return_full_text": p.return_full_text,
            "details": True,
        }
        set_ones = {name: value for name, value in optional.items() if value is not None}
        return {"inputs": prompt, "parameters": asked | set_ones}

    async def _asked(self, path: str, body: dict[str, Any], parameters: GenerationParameters) -> Any:
        try:
            return await self._endpoint.post(path, body)
        except Unavailable as error:
            # Its Python side fails with 424 on a grammar that its router let pass.
            if error.reason == "LLM_FAILED" and parameters.json_schema is not None:
                raise self._grammar_refused(error.message) from error
            raise

    def _grammar_refused(self, said: str) -> InvalidInput:
        return InvalidInput(
            f"{self._endpoint.base_url} cannot follow the JSON schema: {said}; make the schema simpler",
            reason="SCHEMA_REFUSED",
            metadata={"parameter": "json_schema"},
        )

    async def _answers_with(self, name: str) -> bool:
        """Whether the server's answers for `name` differ from its base's by more than the base's from themselves."""
        for prompt in PROBES:
            base, again, asked = [await self._probe(prompt, adapter) for adapter in (None, None, name)]
            if _difference(asked, base) > max(MIN_DIFFERENCE, NOISE_FACTOR * _difference(again, base)):
                return True
        return False

    async def _probe(self, prompt: str, adapter_id: str | None) -> Sequence[tuple[int, float]]:
        parameters = {"max_new_tokens": NUM_PROBE_TOKENS, "do_sample": False, "details": True, "adapter_id": adapter_id}
        reply = await self._endpoint.post("/generate", {"inputs": prompt, "parameters": parameters})
        try:
            return [(int(token["id"]), float(token["logprob"])) for token in reply.body["details"]["tokens"]]
        except (KeyError, TypeError, ValueError) as error:
            self._odd(error)

    def _refused(self, event: object, parameters: GenerationParameters) -> NoReturn:
        """In a stream every error arrives inside a 200."""
        said = str(event.get("error", "") if isinstance(event, dict) else event)[:300]
        kind = event.get("error_type") if isinstance(event, dict) else None
        server = self._endpoint.base_url
        if kind in ("validation", "template_error", "missing_template_variable", "tool_error"):
            raise InvalidInput(
                f"{server} refuses the request: {said}", reason="LLM_REFUSED", metadata={"error_type": str(kind)}
            )
        if kind == "overloaded":
            raise Unavailable(f"{server} is busy: {said}; try again later", reason="LLM_BUSY")
        if kind == "generation" and parameters.json_schema is not None:
            raise self._grammar_refused(said)
        raise Unavailable(f"{server} broke off: {said}; try again", reason="LLM_BROKE_OFF")

    def _odd(self, error: Exception) -> NoReturn:
        raise Unavailable(
            f"{self._endpoint.base_url} answered in a shape that is not text-generation-inference's "
            f"({type(error).__name__}: {str(error)[:80]}); check the address",
            reason="LLM_ODD_REPLY",
        ) from error


def _difference(answer: Sequence[tuple[int, float]], other: Sequence[tuple[int, float]]) -> float:
    """The largest difference of log-probabilities up to the first token in which two answers differ."""
    largest = 0.0
    for (token, logprob), (other_token, other_logprob) in zip(answer, other, strict=False):
        largest = max(largest, abs(logprob - other_logprob))
        if token != other_token:
            break
    return largest


def _generation(text: object, details: Any, num_prompt_tokens: object, parameters: GenerationParameters) -> Generation:
    reason = details["finish_reason"]
    if not isinstance(text, str) or reason not in ("length", "eos_token", "stop_sequence"):
        raise ValueError(f"finish_reason {reason!r}")
    return Generation(
        text=text,
        finish_reason=reason,
        num_generated_tokens=int(details["generated_tokens"]),
        seed=parameters.seed if limits.samples(parameters) else None,
        num_prompt_tokens=int(str(num_prompt_tokens)),
    )


def _last_part(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
