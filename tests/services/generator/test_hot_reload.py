"""Promotions while the real model answers: the whole way from alias to answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from registry_material import RECIPE, promote, put_version

from contract.tiny_models import Tiny
from doubles.fake_clock import FakeClock
from tunesmith_generator import handlers
from tunesmith_generator.decoding import Answer, GenerateRequest, TokenDelta
from tunesmith_generator.handlers import Serving
from tunesmith_generator.known import KnownAnswers
from tunesmith_generator.reload import ModelTable
from tunesmith_generator.runners.embedded import EmbeddedRunner

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

MakeRunner = Callable[..., Awaitable[EmbeddedRunner]]

PROMOTED = ["v1", "v2", "w1", "v1", "w1", "v2"]
"""Adapters in the order of their promotion; w1 lies on another base."""

NUM_REQUESTS = 200
NUM_WORKERS = 20
"""Requests in flight at any time, so that every switch meets some."""


def greedy(number: int) -> GenerateRequest:
    overrides = {"do_sample": False, "temperature": None, "max_new_tokens": 8, "stop": []}
    return GenerateRequest(RECIPE, seed=number % 10, overrides=overrides, max_retries=0)


async def test_switching_the_champion_under_load_fails_no_request(tiny: Tiny, make_runner: MakeRunner) -> None:
    versions = [f"mv-{number}" for number in range(len(PROMOTED))]
    for version, name in zip(versions, PROMOTED, strict=True):
        put_version(tiny.store, version, adapter=tiny.adapters[name])
    promote(tiny.store, versions[0])
    runner = await make_runner("v1", "v2", "w1", queue_limit=NUM_REQUESTS)
    table = ModelTable(tiny.store, runner, FakeClock(), recipes=(RECIPE,), max_loaded_adapters=2)
    serving = Serving(table, runner, KnownAnswers(tiny.store), max_new_tokens_limit=512, concurrency=16)
    parameters = handlers._plan(greedy(0), serving).parameters
    expected = {
        (tiny.adapters[name].hash, f"{seed}->"): (await runner.generate(f"{seed}->", parameters, adapter=name)).text
        for name in tiny.adapters
        for seed in range(10)
    }
    for name in tiny.adapters:
        await runner.unload(name)
    await table.refresh(RECIPE)
    answers: list[Answer] = []
    current = 0

    async def ask(number: int) -> None:
        oldest_allowed = current
        answer = await handlers.generate(greedy(number), serving=serving)
        assert versions.index(answer.model_version) >= oldest_allowed
        answers.append(answer)

    async def keep_asking(worker: int) -> None:
        while len(answers) < NUM_REQUESTS or current < len(versions) - 1:
            await ask(worker + len(answers))

    async def promotions() -> None:
        """Each once every worker has met the one before."""
        nonlocal current
        for number, version in enumerate(versions[1:], start=1):
            seen = len(answers)
            while len(answers) < seen + 2 * NUM_WORKERS:
                await asyncio.sleep(0.001)
            promote(tiny.store, version)
            await table.poll_once()
            current = number

    await asyncio.gather(promotions(), *(keep_asking(worker) for worker in range(NUM_WORKERS)))
    after = [await handlers.generate(greedy(number), serving=serving) for number in range(5)]

    assert len(answers) >= NUM_REQUESTS
    assert {answer.model_version for answer in answers} >= set(versions[:-1])
    assert {answer.model_version for answer in after} == {versions[-1]}
    assert all(answer.text == expected[answer.adapter_hash, answer.prompt] for answer in answers + after)
    await table.close()
    assert table.loaded() == {versions[-1]: 0}


async def test_a_promotion_answers_soon(tiny: Tiny, make_runner: MakeRunner) -> None:
    """From the alias' move to the first token of the new version, through the reconciling look."""
    for version, name in (("mv-a", "v1"), ("mv-b", "v2")):
        put_version(tiny.store, version, adapter=tiny.adapters[name])
    promote(tiny.store, "mv-a")
    runner = await make_runner()
    table = ModelTable(tiny.store, runner, FakeClock(), recipes=(RECIPE,), max_loaded_adapters=2)
    serving = Serving(table, runner, KnownAnswers(tiny.store), max_new_tokens_limit=512, concurrency=16)
    await handlers.generate(greedy(0), serving=serving)

    promote(tiny.store, "mv-b")
    moved_s = time.monotonic()
    await table.poll_once()
    stream = handlers.generate_stream(greedy(0), serving=serving)
    first = await anext(aiter(stream))
    latency_s = time.monotonic() - moved_s
    rest = [item async for item in stream]

    assert isinstance(first, TokenDelta)
    assert isinstance(rest[-1], Answer)
    assert rest[-1].model_version == "mv-b"
    # Measured 0.1 s; what is added is for machines that are busy with other things.
    assert latency_s < 5
    await table.close()
