"""protobuf <-> handlers of the generator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from tunesmith_generator import handlers
from tunesmith_generator.decoding import Answer, GenerateRequest, Restarted, TokenDelta
from tunesmith_generator.handlers import Serving
from tunesmith_generator.reload import BASE, CHAMPION
from tunesmith_proto.generator.v1 import generator_pb2, generator_pb2_grpc


def generate_request(request: generator_pb2.GenerateRequest | generator_pb2.CompareRequest) -> GenerateRequest:
    """The use case's request; a field that was not sent takes the recipe's default."""
    sent = request.parameters
    overrides: dict[str, Any] = {field.name: value for field, value in sent.ListFields()}
    if "stop" in overrides:
        overrides["stop"] = tuple(overrides["stop"])
    made_from_seed = not request.inputs and not request.prompt
    model, max_retries = "", None
    if isinstance(request, generator_pb2.GenerateRequest):
        model, max_retries = request.model, 0 if request.allow_known else None
    return GenerateRequest(
        recipe=request.recipe,
        inputs=dict(request.inputs) or None,
        prompt=request.prompt or None,
        seed=overrides.pop("seed") if made_from_seed and "seed" in overrides else None,
        model=model,
        overrides=overrides,
        max_retries=max_retries,
    )


def answer_message(answer: Answer) -> generator_pb2.Answer:
    """An answer as clients see it."""
    return generator_pb2.Answer(
        text=answer.answer,
        raw_text=answer.text,
        valid=answer.valid,
        invalid_reason=answer.reason,
        known=answer.known,
        attempts=answer.attempts,
        prompt=answer.prompt,
        inputs=dict(answer.inputs),
        seed=answer.seed,
        finish_reason=answer.finish_reason,
        prompt_tokens=answer.num_prompt_tokens,
        generated_tokens=answer.num_generated_tokens,
        model_version=answer.model_version,
        adapter_hash=answer.adapter_hash,
        base_model=answer.base_model,
        base_fingerprint=answer.base_fingerprint,
    )


def _event_message(item: TokenDelta | Restarted | Answer) -> generator_pb2.GenerateStreamResponse:
    if isinstance(item, Answer):
        return generator_pb2.GenerateStreamResponse(answer=answer_message(item))
    if isinstance(item, Restarted):
        restarted = generator_pb2.Restarted(attempt=item.attempt, reason=item.reason)
        return generator_pb2.GenerateStreamResponse(restarted=restarted)
    token = item.token
    return generator_pb2.GenerateStreamResponse(
        token=generator_pb2.StreamedToken(id=token.id, text=token.text, logprob=token.logprob, special=token.special)
    )


class GeneratorServicer(generator_pb2_grpc.GeneratorServiceServicer):
    """Answers prompts."""

    def __init__(self, serving: Serving, recipes: tuple[str, ...]) -> None:
        self._serving = serving
        self._recipes = recipes

    async def Generate(self, request: generator_pb2.GenerateRequest, context: Any) -> generator_pb2.GenerateResponse:
        answer = await handlers.generate(generate_request(request), serving=self._serving)
        return generator_pb2.GenerateResponse(answer=answer_message(answer))

    async def GenerateStream(
        self, request: generator_pb2.GenerateStreamRequest, context: Any
    ) -> AsyncIterator[generator_pb2.GenerateStreamResponse]:
        items = handlers.generate_stream(generate_request(request.request), serving=self._serving)
        async with aclosing(cast(Any, items)):
            async for item in items:
                yield _event_message(item)

    async def Compare(self, request: generator_pb2.CompareRequest, context: Any) -> generator_pb2.CompareResponse:
        models = list(request.models) or [BASE, CHAMPION]
        answers = await handlers.compare(generate_request(request), models, serving=self._serving)
        return generator_pb2.CompareResponse(answers=[answer_message(answer) for answer in answers])

    async def ListServed(
        self, request: generator_pb2.ListServedRequest, context: Any
    ) -> generator_pb2.ListServedResponse:
        champions = {recipe: self._serving.models.champion(recipe) for recipe in self._recipes}
        return generator_pb2.ListServedResponse(
            models=[
                generator_pb2.ServedModel(
                    recipe=recipe, model_version=served.version, adapter_hash=served.adapter.hash, champion=True
                )
                for recipe, served in champions.items()
                if served is not None
            ],
            num_running=self._serving.models.loaded(),
        )
