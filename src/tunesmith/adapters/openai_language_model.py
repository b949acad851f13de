"""A language model behind any OpenAI-compatible interface: OpenAI, vLLM, SGLang, llama.cpp, TGI's own /v1, ...

It serves the base only. A chat model gets the prompt as one user message; with `completions` the prompt is continued as
it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Literal, NoReturn, cast

from tunesmith.adapters.http_endpoint import HttpEndpoint
from tunesmith.domain.errors import InvalidInput, NotFound, Unavailable, Unsupported
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
"""This interface tells neither token ids nor, as it is asked here, log-probabilities."""


class OpenAILanguageModel:
    """Implements `LanguageModel` without adapters. `model` empty takes the only one that the server lists.

    A stop sequence that ended an answer is put back where the server says which it was (vLLM, SGLang); others do not
    tell it from the model's own end.
    """

    def __init__(self, endpoint: HttpEndpoint, *, model: str = "", api: Api = "chat") -> None:
        self._endpoint = endpoint
        self._model = model
        self._api = api

    async def describe(self) -> str:
        """The model's name."""
        return await self._model_name()

    async def load(self, adapter: Adapter) -> None:
        """Raises Unsupported: adapters are the server's own business."""
        raise Unsupported(f"{self._endpoint.base_url} serves its own models; adapter {adapter.name} cannot be loaded")

    async def unload(self, name: str) -> None:
        """Nothing is ever loaded."""

    async def generate(self, prompt: str, parameters: GenerationParameters, *, adapter: str | None) -> Generation:
        """See the port; Unsupported for `typical_p` and `truncate`, which this interface does not have."""
        body = await self._request(prompt, parameters, adapter)
        reply = await self._endpoint.post(self._path, body)
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
        """See the port. A chunk is what the server sends at once: one token or several, without id and logprob."""
        body = await self._request(prompt, parameters, adapter) | {"stream": True}
        text, reason, stopped_by, usage = "", None, None, cast("dict[str, Any]", {})
        async with aclosing(cast("Any", self._endpoint.events(self._path, body))) as events:
            async for event in events:
                try:
                    usage = event.get("usage") or usage
                    for choice in event.get("choices", ()):
                        part = choice["delta"].get("content") if self._api == "chat" else choice["text"]
                        reason = choice.get("finish_reason") or reason
                        stopped_by = choice.get("stop_reason") or stopped_by
                        if part:
                            text += part
                            yield StreamChunk(Token(NO_ID, part, NO_LOGPROB, special=False))
                except (KeyError, TypeError, AttributeError) as error:
                    self._odd(error)
        whole = self._generation(prompt, text, parameters, reason, stopped_by, usage)
        ending = whole.text.removeprefix(prompt if parameters.return_full_text else "")[len(text) :]
        yield StreamChunk(Token(NO_ID, ending, NO_LOGPROB, special=not ending), whole)

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    @property
    def _path(self) -> str:
        return "/chat/completions" if self._api == "chat" else "/completions"

    async def _request(self, prompt: str, parameters: GenerationParameters, adapter: str | None) -> dict[str, Any]:
        p = parameters
        if adapter is not None:
            raise NotFound(f"adapter {adapter!r} is not loaded: {self._endpoint.base_url} serves its base only")
        for name in ("typical_p", "truncate"):
            if getattr(p, name) is not None:
                raise Unsupported(
                    f"generation parameter {name} does not exist in the OpenAI interface of {self._endpoint.base_url}; "
                    "leave it out",
                    metadata={"parameter": name},
                )
        check_prompt(prompt)
        asked = {"messages": [{"role": "user", "content": prompt}]} if self._api == "chat" else {"prompt": prompt}
        samples = p.do_sample or p.temperature is not None or p.top_p is not None or p.top_k is not None
        optional = {
            # Greedy is temperature 0 here; unset would mean 1.
            "temperature": (1.0 if p.temperature is None else p.temperature) if samples else 0,
            "top_p": p.top_p,
            "top_k": p.top_k,
            "repetition_penalty": p.repetition_penalty,
            "seed": p.seed,
            "stop": list(p.stop) or None,
        }
        body = {"model": await self._model_name(), "max_tokens": p.max_new_tokens, **asked}
        return body | {name: value for name, value in optional.items() if value is not None}

    async def _model_name(self) -> str:
        if self._model:
            return self._model
        reply = await self._endpoint.get("/models")
        try:
            names = [str(row["id"]) for row in reply.body["data"]]
        except (KeyError, TypeError) as error:
            self._odd(error)
        if len(names) != 1:
            listed = ", ".join(names[:10]) or "none"
            raise InvalidInput(
                f"{self._endpoint.base_url} serves {len(names)} models ({listed}); name one: "
                f"TUNESMITH_LLM=openai+{self._endpoint.base_url}?model=NAME",
                reason="LLM_MODEL_UNNAMED",
            )
        self._model = names[0]
        return self._model

    def _generation(
        self,
        prompt: str,
        text: str,
        parameters: GenerationParameters,
        finish_reason: object,
        stopped_by: object,
        usage: dict[str, Any],
    ) -> Generation:
        reason: FinishReason = "length" if finish_reason == "length" else "eos_token"
        if isinstance(stopped_by, str) and stopped_by in parameters.stop:
            reason = "stop_sequence"
            text = text if text.endswith(stopped_by) else text + stopped_by
        return Generation(
            text=prompt + text if parameters.return_full_text else text,
            finish_reason=reason,
            num_generated_tokens=int(usage.get("completion_tokens") or 0),
            seed=parameters.seed,
            num_prompt_tokens=int(usage.get("prompt_tokens") or 0),
        )

    def _odd(self, error: Exception) -> NoReturn:
        raise Unavailable(
            f"{self._endpoint.base_url} answered in a shape that is not OpenAI's ({type(error).__name__}: "
            f"{str(error)[:80]}); check that the address ends with its version, such as /v1",
            reason="LLM_ODD_REPLY",
        ) from error


def check_prompt(prompt: str) -> None:
    """Raise InvalidInput for a prompt that cannot be sent."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"prompt holds half a surrogate pair at character {error.start}; send valid Unicode",
            metadata={"parameter": "prompt"},
        ) from error
    if not prompt:
        raise InvalidInput("prompt is empty; send at least one character", metadata={"parameter": "prompt"})
