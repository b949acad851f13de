"""The base model of a text-generation-inference server, whose HTTP interface (3.3) is frozen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, NoReturn, cast

from tunesmith.adapters.http_endpoint import HttpEndpoint
from tunesmith.adapters.openai_language_model import check_prompt
from tunesmith.domain.errors import InvalidInput, NotFound, Unavailable, Unsupported
from tunesmith.ports.language_model import Adapter, Generation, GenerationParameters, StreamChunk, Token


class TgiLanguageModel:
    """Implements `LanguageModel` without adapters: the server would answer an unknown one from the base."""

    def __init__(self, endpoint: HttpEndpoint) -> None:
        self._endpoint = endpoint

    async def describe(self) -> str:
        """The model's id, with its revision where the server knows it."""
        info = (await self._endpoint.get("/info")).body
        try:
            revision = info.get("model_sha")
            return str(info["model_id"]) + (f"@{revision}" if revision else "")
        except (KeyError, AttributeError) as error:
            self._odd(error)

    async def load(self, adapter: Adapter) -> None:
        """Raises Unsupported: this server loads adapters when it starts."""
        raise Unsupported(f"{self._endpoint.base_url} loads adapters only at its start; {adapter.name} is not loaded")

    async def unload(self, name: str) -> None:
        """Nothing is ever loaded."""

    async def generate(self, prompt: str, parameters: GenerationParameters, *, adapter: str | None) -> Generation:
        """See the port."""
        reply = await self._endpoint.post("/generate", self._request(prompt, parameters, adapter))
        try:
            body = reply.body
            return _generation(body["generated_text"], body["details"], reply.headers.get("x-prompt-tokens", 0))
        except (KeyError, TypeError, ValueError) as error:
            self._odd(error)

    async def stream(
        self, prompt: str, parameters: GenerationParameters, *, adapter: str | None
    ) -> AsyncIterator[StreamChunk]:
        """See the port."""
        request = self._request(prompt, parameters, adapter)
        async with aclosing(cast("Any", self._endpoint.events("/generate_stream", request))) as events:
            async for event in events:
                if not isinstance(event, dict) or "error" in event:
                    self._refused(event)
                try:
                    told = event["token"]
                    token = Token(int(told["id"]), str(told["text"]), float(told["logprob"]), bool(told["special"]))
                    text, details = event.get("generated_text"), event.get("details") or {}
                    whole = None
                    if text is not None:
                        whole = _generation(text, details, details.get("input_length") or 0)
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    self._odd(error)
                yield StreamChunk(token, whole)
                if whole is not None:
                    return
        self._odd(ValueError("the stream ended before the answer did"))

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    def _request(self, prompt: str, parameters: GenerationParameters, adapter: str | None) -> dict[str, Any]:
        if adapter is not None:
            raise NotFound(f"adapter {adapter!r} is not loaded: {self._endpoint.base_url} serves its base only")
        check_prompt(prompt)
        set_ones = {name: value for name, value in asdict(parameters).items() if value is not None}
        return {"inputs": prompt, "parameters": {**set_ones, "stop": list(parameters.stop), "details": True}}

    def _refused(self, event: object) -> NoReturn:
        """In a stream every error arrives inside a 200."""
        said = str(event.get("error", "") if isinstance(event, dict) else event)[:300]
        kind = event.get("error_type") if isinstance(event, dict) else None
        if kind == "validation":
            raise InvalidInput(f"{self._endpoint.base_url} refuses the request: {said}", reason="LLM_REFUSED")
        raise Unavailable(f"{self._endpoint.base_url} broke off: {said}; try again", reason="LLM_BROKE_OFF")

    def _odd(self, error: Exception) -> NoReturn:
        raise Unavailable(
            f"{self._endpoint.base_url} answered in a shape that is not text-generation-inference's "
            f"({type(error).__name__}: {str(error)[:80]}); check the address",
            reason="LLM_ODD_REPLY",
        ) from error


def _generation(text: object, details: Any, num_prompt_tokens: object) -> Generation:
    reason = details["finish_reason"]
    if not isinstance(text, str) or reason not in ("length", "eos_token", "stop_sequence"):
        raise ValueError(f"finish_reason {reason!r}")
    seed = details.get("seed")
    return Generation(
        text=text,
        finish_reason=reason,
        num_generated_tokens=int(details["generated_tokens"]),
        seed=None if seed is None else int(seed),
        num_prompt_tokens=int(str(num_prompt_tokens)),
    )
