"""What every language model must do, whatever runs it. Subclass LanguageModelContract and give it a `subject`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import pytest

from tunesmith.domain.errors import InvalidInput, NotFound, Unsupported
from tunesmith.ports.language_model import Adapter, GenerationParameters, LanguageModel, StreamChunk

PATIENCE_S = 20.0
"""Longer than any answer takes; a test that waits so long has found a request that never ends."""


@dataclass(frozen=True)
class Subject:
    """A language model to hold to the contract. Its answers must be long, and differ by adapter and by seed."""

    model: LanguageModel
    first: str
    second: str
    """Names of two adapters that are loaded."""
    num_slots: int
    """Requests that can run at once."""
    max_new_tokens_limit: int
    lacks: frozenset[str] = frozenset()
    """Parameters that the backend does not have, and refuses."""


GREEDY = GenerationParameters(max_new_tokens=12)
SAMPLED = GenerationParameters(max_new_tokens=12, do_sample=True, temperature=1.0, seed=7)


def changed(parameters: GenerationParameters, **values: Any) -> GenerationParameters:
    return GenerationParameters(**{name: getattr(parameters, name) for name in parameters.__slots__} | values)


async def chunks_of(
    model: LanguageModel, prompt: str, parameters: GenerationParameters, *, adapter: str | None
) -> list[StreamChunk]:
    return [chunk async for chunk in model.stream(prompt, parameters, adapter=adapter)]


async def ask_on_and_on(model: LanguageModel, *, adapter: str) -> None:
    """Until a request is refused; unloading may take a moment to begin."""
    while True:
        await asyncio.sleep(0)
        await model.generate("12->", changed(GREEDY, max_new_tokens=1), adapter=adapter)


def closing(chunks: object) -> aclosing[AsyncGenerator[StreamChunk, None]]:
    return aclosing(cast("AsyncGenerator[StreamChunk, None]", chunks))


class LanguageModelContract:
    """The rules of `tunesmith.ports.language_model` for answering."""

    async def test_an_unknown_adapter_is_refused_and_never_answered_by_the_base(self, subject: Subject) -> None:
        with pytest.raises(NotFound, match="no-such-adapter"):
            await subject.model.generate("12->", GREEDY, adapter="no-such-adapter")
        with pytest.raises(NotFound, match="no-such-adapter"):
            await chunks_of(subject.model, "12->", GREEDY, adapter="no-such-adapter")

    async def test_base_and_adapters_answer_differently(self, subject: Subject) -> None:
        texts = [
            (await subject.model.generate("12->", GREEDY, adapter=adapter)).text
            for adapter in (None, subject.first, subject.second)
        ]

        assert len(set(texts)) == 3

    async def test_two_adapters_at_once_give_each_its_own_answers(self, subject: Subject) -> None:
        prompts = [f"{number}->" for number in range(6)]
        alone = {
            (adapter, prompt): await subject.model.generate(prompt, GREEDY, adapter=adapter)
            for prompt in prompts
            for adapter in (subject.first, subject.second)
        }

        asked = list(alone)
        together = await asyncio.gather(*(subject.model.generate(p, GREEDY, adapter=a) for a, p in asked))

        assert dict(zip(asked, together, strict=True)) == alone

    async def test_the_same_seed_gives_the_same_text(self, subject: Subject) -> None:
        once = await subject.model.generate("12->", SAMPLED, adapter=subject.first)
        again = await subject.model.generate("12->", SAMPLED, adapter=subject.first)

        assert once == again
        assert once.seed == SAMPLED.seed

    async def test_other_seeds_give_other_texts(self, subject: Subject) -> None:
        texts = [
            (await subject.model.generate("12->", changed(SAMPLED, seed=seed), adapter=subject.first)).text
            for seed in range(5)
        ]

        assert len(set(texts)) > 1

    async def test_a_seed_that_was_not_set_is_reported_and_repeats_the_text(self, subject: Subject) -> None:
        once = await subject.model.generate("12->", changed(SAMPLED, seed=None), adapter=subject.first)
        again = await subject.model.generate("12->", changed(SAMPLED, seed=once.seed), adapter=subject.first)

        assert once.seed is not None
        assert again.text == once.text

    async def test_a_warper_turns_sampling_on_without_do_sample(self, subject: Subject) -> None:
        warped = changed(GREEDY, temperature=1.5)

        texts = {
            (await subject.model.generate("12->", changed(warped, seed=seed), adapter=subject.first)).text
            for seed in range(5)
        }

        assert len(texts) > 1

    async def test_length_ends_an_answer(self, subject: Subject) -> None:
        generation = await subject.model.generate("12->", changed(GREEDY, max_new_tokens=5), adapter=subject.first)

        assert generation.finish_reason == "length"
        assert generation.num_generated_tokens == 5
        assert generation.num_prompt_tokens > 0

    async def test_a_stop_sequence_across_tokens_ends_an_answer_and_stays_in_it(self, subject: Subject) -> None:
        tokens = [chunk.token.text for chunk in await chunks_of(subject.model, "12->", GREEDY, adapter=subject.first)]
        stop = "".join(tokens[3:6])
        text = "".join(tokens)

        generation = await subject.model.generate("12->", changed(GREEDY, stop=(stop,)), adapter=subject.first)

        assert generation.finish_reason == "stop_sequence"
        assert generation.text == text[: text.index(stop) + len(stop)]

    @pytest.mark.parametrize("parameters", [GREEDY, SAMPLED, changed(SAMPLED, top_k=5, top_p=0.9, typical_p=0.9)])
    async def test_a_stream_is_the_same_answer(self, subject: Subject, parameters: GenerationParameters) -> None:
        parameters = changed(parameters, **dict.fromkeys(subject.lacks))
        whole = await subject.model.generate("12->", parameters, adapter=subject.second)

        chunks = await chunks_of(subject.model, "12->", parameters, adapter=subject.second)

        assert chunks[-1].generation == whole
        assert all(chunk.generation is None for chunk in chunks[:-1])
        assert "".join(chunk.token.text for chunk in chunks if not chunk.token.special) == whole.text
        assert len(chunks) == whole.num_generated_tokens
        assert all(chunk.token.logprob <= 0 for chunk in chunks)

    async def test_the_full_text_begins_with_the_prompt(self, subject: Subject) -> None:
        bare = await subject.model.generate("12->", GREEDY, adapter=subject.first)
        full = await subject.model.generate("12->", changed(GREEDY, return_full_text=True), adapter=subject.first)

        assert full.text == "12->" + bare.text

    async def test_truncate_keeps_the_end_of_the_prompt(self, subject: Subject) -> None:
        generation = await subject.model.generate("a long prompt", changed(GREEDY, truncate=3), adapter=subject.first)

        assert generation.num_prompt_tokens == 3

    async def test_results_do_not_depend_on_batch_mates(self, subject: Subject) -> None:
        asked: list[tuple[str, GenerationParameters, str | None]] = [
            ("12->", changed(SAMPLED, max_new_tokens=30), subject.first),
            ("a much longer prompt " * 3, changed(SAMPLED, max_new_tokens=9), None),
            ("1", changed(GREEDY, repetition_penalty=1.3), subject.second),
            ("12->", changed(SAMPLED, seed=8, max_new_tokens=40), subject.first),
            ("12->", changed(SAMPLED, temperature=2.0, top_k=3), subject.second),
            ("a prompt of its own length", changed(GREEDY, max_new_tokens=20), subject.second),
        ]
        alone = [await subject.model.generate(prompt, p, adapter=adapter) for prompt, p, adapter in asked]

        together = await asyncio.gather(*(subject.model.generate(prompt, p, adapter=a) for prompt, p, a in asked))

        assert together == alone

    async def test_closing_a_stream_frees_its_slot(self, subject: Subject) -> None:
        endless = changed(GREEDY, max_new_tokens=subject.max_new_tokens_limit)
        for _ in range(3 * subject.num_slots):
            async with closing(subject.model.stream("12->", endless, adapter=subject.first)) as chunks:
                await anext(chunks)

        await asyncio.wait_for(subject.model.generate("12->", GREEDY, adapter=subject.first), PATIENCE_S)

    async def test_cancelling_a_request_frees_its_slot(self, subject: Subject) -> None:
        endless = changed(GREEDY, max_new_tokens=subject.max_new_tokens_limit)
        running = [
            asyncio.create_task(subject.model.generate("12->", endless, adapter=subject.first))
            for _ in range(subject.num_slots)
        ]
        await asyncio.sleep(0.01)

        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

        await asyncio.wait_for(subject.model.generate("12->", GREEDY, adapter=subject.first), PATIENCE_S)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("max_new_tokens", 0),
            ("max_new_tokens", 1_000_000),
            ("temperature", 0.0),
            ("temperature", -1.0),
            ("temperature", float("nan")),
            ("temperature", float("inf")),
            ("top_p", 0.0),
            ("top_p", 1.0),
            ("typical_p", 0.0),
            ("typical_p", 1.0),
            ("top_k", 0),
            ("repetition_penalty", 0.0),
            ("frequency_penalty", -2.1),
            ("frequency_penalty", 2.1),
            ("truncate", 0),
            ("seed", -1),
            ("seed", 2**64),
            ("stop", ("",)),
            ("stop", ("a", "b", "c", "d", "e")),
        ],
    )
    async def test_parameters_beyond_their_limits_are_refused_by_name(
        self, subject: Subject, name: str, value: Any
    ) -> None:
        with pytest.raises(InvalidInput, match=name):
            await subject.model.generate("12->", changed(GREEDY, **{name: value}), adapter=subject.first)
        with pytest.raises(InvalidInput, match=name):
            await chunks_of(subject.model, "12->", changed(GREEDY, **{name: value}), adapter=subject.first)

    async def test_what_the_backend_lacks_is_refused_by_name(self, subject: Subject) -> None:
        for name in subject.lacks:
            with pytest.raises(Unsupported, match=name):
                await subject.model.generate("12->", changed(GREEDY, **{name: 0.5}), adapter=subject.first)

    @pytest.mark.parametrize("prompt", ["", "half a pair \ud83c"])
    async def test_a_prompt_that_cannot_be_read_is_refused(self, subject: Subject, prompt: str) -> None:
        with pytest.raises(InvalidInput, match="prompt"):
            await subject.model.generate(prompt, GREEDY, adapter=subject.first)

    @pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
    async def test_every_seed_within_the_limits_works(self, subject: Subject, seed: int) -> None:
        generation = await subject.model.generate("12->", changed(SAMPLED, seed=seed), adapter=subject.first)

        assert generation.seed == seed


@dataclass(frozen=True)
class Spare:
    """An adapter that the subject can load and has not loaded."""

    adapter: Adapter


class LoadingContract:
    """The rules for loading and unloading, for language models that can do so while they run."""

    async def test_an_adapter_answers_once_it_is_loaded(self, subject: Subject, spare: Spare) -> None:
        with pytest.raises(NotFound):
            await subject.model.generate("12->", GREEDY, adapter=spare.adapter.name)

        await subject.model.load(spare.adapter)
        await subject.model.load(spare.adapter)

        assert (await subject.model.generate("12->", GREEDY, adapter=spare.adapter.name)).text

    async def test_loading_and_unloading_do_not_change_others(self, subject: Subject, spare: Spare) -> None:
        before = await subject.model.generate("12->", SAMPLED, adapter=subject.first)

        long = changed(SAMPLED, max_new_tokens=60)
        running = [asyncio.create_task(subject.model.generate("12->", long, adapter=subject.first)) for _ in range(2)]
        await subject.model.load(spare.adapter)
        loaded = await subject.model.generate("12->", SAMPLED, adapter=subject.first)
        await subject.model.unload(spare.adapter.name)
        unloaded = await subject.model.generate("12->", SAMPLED, adapter=subject.first)
        one, other = await asyncio.gather(*running)

        assert loaded == before
        assert unloaded == before
        assert one == other
        assert one.text.startswith(before.text)

    async def test_unloading_waits_for_running_requests_and_refuses_new_ones(
        self, subject: Subject, spare: Spare
    ) -> None:
        await subject.model.load(spare.adapter)
        long = changed(GREEDY, max_new_tokens=subject.max_new_tokens_limit)
        async with closing(subject.model.stream("12->", long, adapter=spare.adapter.name)) as chunks:
            await anext(chunks)
            unloading = asyncio.create_task(subject.model.unload(spare.adapter.name))
            with pytest.raises(NotFound):
                await ask_on_and_on(subject.model, adapter=spare.adapter.name)
            refused_while_running = not unloading.done()
            rest = [chunk async for chunk in chunks]
        await asyncio.wait_for(unloading, PATIENCE_S)

        assert refused_while_running
        assert rest[-1].generation is not None
        assert rest[-1].generation.num_generated_tokens == long.max_new_tokens
        with pytest.raises(NotFound):
            await subject.model.generate("12->", GREEDY, adapter=spare.adapter.name)

    async def test_unloading_what_is_not_loaded_does_nothing(self, subject: Subject) -> None:
        await subject.model.unload("no-such-adapter")
