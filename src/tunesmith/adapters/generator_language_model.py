"""The base model of Tunesmith's own generator service, asked over gRPC with raw prompts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, NoReturn, cast

import grpc

from tunesmith.domain.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PermissionRefused,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
    Unsupported,
)
from tunesmith.ports import parameters as limits
from tunesmith.ports.language_model import Adapter, Generation, GenerationParameters, StreamChunk, Token
from tunesmith_proto.generator.v1 import generator_pb2, generator_pb2_grpc

TIMEOUT_S = 300.0
"""The first answer may have to wait until the model is loaded."""

ERRORS: Mapping[grpc.StatusCode, type[TunesmithError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.PERMISSION_DENIED: PermissionRefused,
    grpc.StatusCode.UNAUTHENTICATED: PermissionRefused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}
"""What the generator's answers mean here; all others are Unavailable."""


class GeneratorLanguageModel:
    """Implements `LanguageModel` without adapters: asks for the base of `recipe`.

    The service bounds prompts and answers (`TUNESMITH_GENERATOR_MAX_PROMPT_TOKENS`, `..._MAX_NEW_TOKENS_LIMIT`).
    """

    def __init__(
        self, address: str, *, recipe: str, auth_token: str = "", root_certificates: bytes | None = None
    ) -> None:
        self._address = address
        self._recipe = recipe
        self._metadata: Sequence[tuple[str, str]] = (("authorization", f"Bearer {auth_token}"),) if auth_token else ()
        self._channel = (
            grpc.aio.insecure_channel(address)
            if root_certificates is None
            else grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(root_certificates))
        )
        self._stub: Any = generator_pb2_grpc.GeneratorServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def describe(self) -> str:
        """The base model's name, with the start of its fingerprint."""
        request = self._request("1", GenerationParameters(max_new_tokens=1))
        answer = (await self._call(self._stub.Generate, request)).answer
        return f"{answer.base_model} {answer.base_fingerprint[:12]}"

    async def load(self, adapter: Adapter) -> None:
        """Raises Unsupported: the generator follows the registry."""
        raise Unsupported(f"the generator at {self._address} loads what the registry names, not {adapter.name}")

    async def unload(self, name: str) -> None:
        """Nothing is ever loaded from here."""

    async def generate(self, prompt: str, parameters: GenerationParameters, *, adapter: str | None) -> Generation:
        """See the port."""
        self._check(prompt, adapter)
        answer = (await self._call(self._stub.Generate, self._request(prompt, parameters))).answer
        return _generation(answer, prompt, parameters)

    async def stream(
        self, prompt: str, parameters: GenerationParameters, *, adapter: str | None
    ) -> AsyncIterator[StreamChunk]:
        """See the port."""
        self._check(prompt, adapter)
        request = generator_pb2.GenerateStreamRequest(request=self._request(prompt, parameters))
        call = self._stub.GenerateStream(request, timeout=TIMEOUT_S, metadata=self._metadata)
        held: Token | None = None
        try:
            async for event in call:
                if event.HasField("token"):
                    if held is not None:
                        yield StreamChunk(held)
                    told = event.token
                    held = Token(told.id, told.text, told.logprob, told.special)
                elif event.HasField("answer") and held is not None:
                    yield StreamChunk(held, _generation(event.answer, prompt, parameters))
        except grpc.aio.AioRpcError as error:
            self._failed(error)
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close(None)

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=TIMEOUT_S, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            self._failed(error)

    def _check(self, prompt: str, adapter: str | None) -> None:
        if adapter is not None:
            raise NotFound(f"adapter {adapter!r} is not loaded: only the base is asked here")
        limits.check_prompt(prompt)

    def _request(self, prompt: str, parameters: GenerationParameters) -> generator_pb2.GenerateRequest:
        # What is not sent takes the recipe's default; a temperature of 1 is none.
        values: dict[str, Any] = {"temperature": 1.0} | {
            field.name: value
            for field in fields(parameters)
            if field.name not in ("stop", "return_full_text") and (value := getattr(parameters, field.name)) is not None
        }
        return generator_pb2.GenerateRequest(
            recipe=self._recipe,
            prompt=prompt,
            model="base",
            allow_known=True,
            parameters=generator_pb2.GenerationParameters(stop=parameters.stop, **values),
        )

    def _failed(self, error: grpc.aio.AioRpcError) -> NoReturn:
        kind = ERRORS.get(error.code(), Unavailable)
        raise kind(f"the generator at {self._address}: {error.details()}", reason="LLM_GENERATOR") from error


def _generation(answer: generator_pb2.Answer, prompt: str, parameters: GenerationParameters) -> Generation:
    return Generation(
        text=prompt + answer.raw_text if parameters.return_full_text else answer.raw_text,
        finish_reason=cast("Any", answer.finish_reason),
        num_generated_tokens=answer.generated_tokens,
        seed=answer.seed if answer.HasField("seed") else None,
        num_prompt_tokens=answer.prompt_tokens,
    )
