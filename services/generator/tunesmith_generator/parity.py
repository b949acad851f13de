"""Use case: a model version answers probes greedily, before it is champion, through the runner that would serve it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from tunesmith.domain.errors import InvalidInput
from tunesmith.ports.language_model import GenerationParameters, StreamChunk, Token
from tunesmith_generator.handlers import Serving

MAX_PROMPTS = 32
MAX_PROBE_TOKENS = 256


@dataclass(frozen=True, slots=True)
class ProbeAnswers:
    """The tokens of each answer, in the order of the prompts, and whose they are."""

    tokens: tuple[tuple[Token, ...], ...]
    adapter_hash: str


async def answer_probes(
    recipe: str,
    version: str,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    stop: Sequence[str],
    serving: Serving,
) -> ProbeAnswers:
    """Greedy answers of a model version. It stays loaded afterwards, as it is likely to become champion.

    Raises what a lease on the version and its answers raise.
    """
    if not version:
        raise InvalidInput("version is empty; name a model version", metadata={"field": "version"})
    for name, value, limit in (
        ("prompts", len(prompts), MAX_PROMPTS),
        ("max_new_tokens", max_new_tokens, min(MAX_PROBE_TOKENS, serving.max_new_tokens_limit)),
    ):
        if not 1 <= value <= limit:
            raise InvalidInput(
                f"{name}: {value} must be between 1 and {limit}", metadata={"field": name, "value": str(value)}
            )
    parameters = GenerationParameters(max_new_tokens=max_new_tokens, stop=tuple(stop))
    async with serving.models.lease(recipe, version) as served:
        asking = [asyncio.create_task(_tokens(p, parameters, served.adapter.name, serving)) for p in prompts]
        try:
            answered = await asyncio.gather(*asking)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return ProbeAnswers(tuple(answered), served.adapter.hash)


async def _tokens(prompt: str, parameters: GenerationParameters, adapter: str, serving: Serving) -> tuple[Token, ...]:
    chunks = cast("AsyncGenerator[StreamChunk]", serving.language_model.stream(prompt, parameters, adapter=adapter))
    async with aclosing(chunks):
        return tuple([chunk.token async for chunk in chunks])
