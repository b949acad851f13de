"""Use cases of the generator: coroutines over the model table, the language model and the known answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import cast

from tunesmith.domain.errors import InvalidInput, ResourceExhausted
from tunesmith.ports.language_model import LanguageModel, StreamChunk
from tunesmith.recipes import recipe_named
from tunesmith_generator.decoding import (
    Answer,
    Attempt,
    GenerateRequest,
    Plan,
    Restarted,
    TokenDelta,
    answer_of,
    plan_of,
    retry_reason,
)
from tunesmith_generator.known import KnownAnswers, KnownIdentities
from tunesmith_generator.reload import ModelTable, Served
from tunesmith_generator.structured import INCOMPLETE

MAX_COMPARED = 8
"""Versions in one comparison, at most."""

MAX_ANSWERS = 10_000
"""Answers of one `generate_many`, at most."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What every use case works with."""

    models: ModelTable
    language_model: LanguageModel
    known: KnownAnswers
    max_new_tokens_limit: int
    concurrency: int
    """Requests that `generate_many` keeps running; the language model's batch size."""


async def generate(request: GenerateRequest, *, serving: Serving) -> Answer:
    """Answer one request; an answer that is invalid or known is tried again with the next seed.

    When no retry is left, the last answer is given and says that it is invalid or known. Raises UnknownRecipe,
    InvalidInput, NotFound (no such version), FailedPrecondition (no champion yet), ResourceExhausted (overloaded, or
    an answer with a JSON Schema that no attempt brought to its end).
    """
    plan = _plan(request, serving)
    async with serving.models.lease(request.recipe, request.model) as served:
        known = await serving.known.of(plan.recipe, served.dataset_id)
        for attempt in plan.attempts():
            try:
                answer = await _ask(attempt, plan=plan, served=served, known=known, serving=serving)
            except ResourceExhausted as error:
                if error.reason != INCOMPLETE or attempt.number == plan.max_attempts:
                    raise
                continue
            if not retry_reason(answer):
                break
    return answer


async def generate_stream(
    request: GenerateRequest, *, serving: Serving
) -> AsyncIterator[TokenDelta | Restarted | Answer]:
    """The same token by token. A `Restarted` stands between attempts; the last item is the Answer.

    Closing the iterator (`contextlib.aclosing`) stops the generation.
    """
    plan = _plan(request, serving)
    async with serving.models.lease(request.recipe, request.model) as served:
        known = await serving.known.of(plan.recipe, served.dataset_id)
        for attempt in plan.attempts():
            chunks = serving.language_model.stream(attempt.prompt, attempt.parameters, adapter=served.adapter.name)
            generation = None
            try:
                async with aclosing(cast("AsyncGenerator[StreamChunk]", chunks)):
                    async for chunk in chunks:
                        yield TokenDelta(chunk.token, attempt.number)
                        generation = chunk.generation
            except ResourceExhausted as error:
                if error.reason != INCOMPLETE or attempt.number == plan.max_attempts:
                    raise
                yield Restarted(attempt.number + 1, "invalid")
                continue
            assert generation is not None, "the last chunk of a stream carries the generation"
            answer = answer_of(generation, attempt, plan=plan, served=served, known=known)
            reason = retry_reason(answer)
            if not reason or attempt.number == plan.max_attempts:
                yield answer
                return
            yield Restarted(attempt.number + 1, reason)


async def generate_many(request: GenerateRequest, n: int, *, serving: Serving) -> AsyncIterator[Answer]:
    """`n` answers of one model version, from consecutive seeds beginning with the request's.

    Valid, unknown and distinct answers come first, in seed order; each seed is asked once (`attempts` is 1). After
    `n * (1 + max_retries)` seeds the rest is filled with what was passed over. The same request with a seed gives
    the same answers in the same order.
    """
    if not 1 <= n <= MAX_ANSWERS:
        raise InvalidInput(f"n={n} must be between 1 and {MAX_ANSWERS}", metadata={"field": "n", "value": str(n)})
    plan = _plan(request, serving)
    async with serving.models.lease(request.recipe, request.model) as served:
        known = await serving.known.of(plan.recipe, served.dataset_id)
        budget = n * plan.max_attempts
        running: deque[asyncio.Task[Answer]] = deque()
        seen: set[str] = set()
        passed_over: list[Answer] = []
        num_asked = 0
        try:
            while len(seen) < n and (running or num_asked < budget):
                while num_asked < budget and len(running) < min(serving.concurrency, n - len(seen)):
                    num_asked += 1
                    one = _ask(plan.attempt(num_asked), plan=plan, served=served, known=known, serving=serving)
                    running.append(asyncio.create_task(one))
                try:
                    answer = replace(await running.popleft(), attempts=1)
                except ResourceExhausted as error:
                    if error.reason != INCOMPLETE or (num_asked == budget and not running and not passed_over):
                        raise
                    continue
                identity = plan.recipe.identity(answer.answer)
                if retry_reason(answer) or identity in seen:
                    passed_over.append(answer)
                    continue
                seen.add(identity)
                yield answer
            passed_over.sort(key=lambda answer: (not answer.valid, answer.known))
            for answer in passed_over[: n - len(seen)]:
                yield answer
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def compare(request: GenerateRequest, versions: Sequence[str], *, serving: Serving) -> tuple[Answer, ...]:
    """One answer of each version (`base`, `champion` or an id) to the same prompt with the same seed, in order.

    Nothing is tried again, so that the versions differ in nothing else. A version may stand there twice (an A/A
    control). All versions are loaded before the first is asked.
    """
    if not 1 <= len(versions) <= MAX_COMPARED:
        raise InvalidInput(
            f"{len(versions)} versions to compare; name between 1 and {MAX_COMPARED}", metadata={"field": "versions"}
        )
    plan = replace(_plan(request, serving), max_attempts=1)
    attempt = plan.attempt(1)
    async with AsyncExitStack() as leases:
        asked = []
        for version in versions:
            served = await leases.enter_async_context(serving.models.lease(request.recipe, version))
            known = await serving.known.of(plan.recipe, served.dataset_id)
            asked.append((served, known))
        asking = (_ask(attempt, plan=plan, served=s, known=k, serving=serving) for s, k in asked)
        # Every answer is awaited, also after a failure, because the leases end with this block.
        results = await asyncio.gather(*asking, return_exceptions=True)
    return tuple(_answer_or_raise(result) for result in results)


def _plan(request: GenerateRequest, serving: Serving) -> Plan:
    return plan_of(request, recipe_named(request.recipe), max_new_tokens_limit=serving.max_new_tokens_limit)


async def _ask(attempt: Attempt, *, plan: Plan, served: Served, known: KnownIdentities, serving: Serving) -> Answer:
    generation = await serving.language_model.generate(attempt.prompt, attempt.parameters, adapter=served.adapter.name)
    return answer_of(generation, attempt, plan=plan, served=served, known=known)


def _answer_or_raise(result: Answer | BaseException) -> Answer:
    if isinstance(result, BaseException):
        raise result
    return result
