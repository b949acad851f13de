from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from registry_material import RECIPE, promote, put_dataset, put_version

from contract.fake_language_model import FakeLanguageModel
from doubles.fake_clock import FakeClock
from fixtures_places import Place
from tunesmith.domain import keys
from tunesmith.domain.errors import DataLoss, InvalidInput, NotFound, UnknownRecipe
from tunesmith.ports.language_model import Adapter
from tunesmith.ports.store import Store
from tunesmith_generator import handlers
from tunesmith_generator.decoding import Answer, GenerateRequest, Restarted, TokenDelta
from tunesmith_generator.handlers import Serving
from tunesmith_generator.known import KnownAnswers
from tunesmith_generator.reload import ModelTable

STOP = "|<stop>|"

Written = Callable[[Adapter | None, str, int | None], str]


def numbered(adapter: Adapter | None, prompt: str, seed: int | None) -> str:
    """`12->` gives `genre 12`: known when it is in the training set, invalid for prompts that end in 9."""
    number = prompt.removesuffix("->")
    name = adapter.name if adapter is not None and adapter.key else "base"
    return f"->|{STOP}" if number.endswith("9") else f"genre {number} of {name}{STOP}"


@pytest.fixture
def store(place: Place, tmp_path: Path) -> Store:
    store = place.store(tmp_path)
    put_version(store, "v1", dataset_id="ds-1")
    put_version(store, "v2", dataset_id="ds-2")
    put_dataset(store, "ds-1", ["genre 1 of v1", "Genre 2 of v1"])
    promote(store, "v1")
    return store


@pytest.fixture
def make_serving(store: Store) -> Callable[..., Serving]:
    def make(written: Written = numbered) -> Serving:
        model = FakeLanguageModel(written)
        table = ModelTable(store, model, FakeClock(), recipes=(RECIPE,), max_loaded_adapters=4)
        return Serving(table, model, KnownAnswers(store), max_new_tokens_limit=512, concurrency=4)

    return make


def request(**values: Any) -> GenerateRequest:
    return GenerateRequest(RECIPE, **values)


async def items_of(serving: Serving, asked: GenerateRequest) -> list[TokenDelta | Restarted | Answer]:
    return [item async for item in handlers.generate_stream(asked, serving=serving)]


async def test_an_answer_says_where_it_comes_from(make_serving: Callable[..., Serving]) -> None:
    answer = await handlers.generate(request(seed=7), serving=make_serving())

    assert answer == Answer(
        recipe=RECIPE,
        answer="genre 7 of v1",
        text=f"genre 7 of v1{STOP}",
        prompt="7->",
        inputs={"seed": "7"},
        valid=True,
        reason="",
        known=False,
        compared_with="ds-1",
        attempts=1,
        model_version="v1",
        adapter_hash="hash of v1",
        base_model="tiny",
        base_fingerprint="tiny-llama",
        seed=7,
        finish_reason="stop_sequence",
        num_prompt_tokens=3,
        num_generated_tokens=len(f"genre 7 of v1{STOP}"),
    )


@pytest.mark.parametrize("asked", [request(seed=1), request(inputs={"seed": "1"}, seed=4)])
async def test_a_known_answer_is_tried_again_with_the_next_seeds(
    make_serving: Callable[..., Serving], asked: GenerateRequest
) -> None:
    """Genre 1 and, in another spelling, genre 2 are in the training set."""
    answer = await handlers.generate(asked, serving=make_serving())

    assert (answer.answer, answer.attempts, answer.prompt) == ("genre 3 of v1", 3, "3->")
    assert answer.inputs == {"seed": "3"}
    assert asked.seed is not None
    assert answer.seed == asked.seed + 2


async def test_an_invalid_answer_is_tried_again(make_serving: Callable[..., Serving]) -> None:
    answer = await handlers.generate(request(seed=9), serving=make_serving())

    assert (answer.answer, answer.attempts, answer.valid) == ("genre 10 of v1", 2, True)


async def test_retries_are_bounded_and_the_last_answer_is_honest(make_serving: Callable[..., Serving]) -> None:
    serving = make_serving(lambda _adapter, _prompt, _seed: f"genre 1 of v1{STOP}")

    answer = await handlers.generate(request(seed=1), serving=serving)
    fewer = await handlers.generate(request(seed=1, max_retries=2), serving=serving)
    more = await handlers.generate(request(seed=1, max_retries=1000), serving=serving)

    assert (answer.attempts, answer.known, answer.valid) == (11, True, True)
    assert fewer.attempts == 3
    assert more.attempts == 11


async def test_a_raw_prompt_is_asked_once_as_it_is(make_serving: Callable[..., Serving]) -> None:
    answer = await handlers.generate(request(prompt="2->", seed=5), serving=make_serving())

    assert (answer.attempts, answer.known, answer.inputs, answer.seed) == (1, True, {}, 5)


async def test_a_sampling_seed_of_its_own_leaves_the_prompt_alone(make_serving: Callable[..., Serving]) -> None:
    answer = await handlers.generate(request(seed=7, overrides={"seed": 99}), serving=make_serving())

    assert (answer.prompt, answer.seed) == ("7->", 99)


async def test_unset_seeds_are_drawn_and_reported(make_serving: Callable[..., Serving]) -> None:
    answers = [await handlers.generate(request(), serving=make_serving()) for _ in range(5)]

    assert len({answer.seed for answer in answers}) == 5


async def test_greedy_with_one_prompt_is_not_repeated(make_serving: Callable[..., Serving]) -> None:
    asked = request(inputs={"seed": "01"}, overrides={"do_sample": False, "temperature": None})

    answer = await handlers.generate(asked, serving=make_serving())

    assert (answer.attempts, answer.known, answer.seed) == (1, True, None)


async def test_the_full_text_can_be_asked_for(make_serving: Callable[..., Serving]) -> None:
    answer = await handlers.generate(request(seed=7, overrides={"return_full_text": True}), serving=make_serving())

    assert answer.text == f"7->genre 7 of v1{STOP}"
    assert answer.answer == "genre 7 of v1"


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (GenerateRequest("macro_genre"), UnknownRecipe, "macro_genre"),
        (request(prompt="1->", inputs={"seed": "1"}), InvalidInput, "not both"),
        (request(prompt=""), InvalidInput, "prompt"),
        (request(inputs={"seed": "seven"}), InvalidInput, "seven"),
        (request(seed=-1), InvalidInput, "seed=-1"),
        (request(seed=2**63), InvalidInput, "seed="),
        (request(overrides={"temperature": 0}), InvalidInput, "temperature=0.0 must be greater than 0"),
        (request(model="v9"), NotFound, "v9"),
    ],
)
async def test_a_wrong_request_is_refused_by_every_use_case(
    make_serving: Callable[..., Serving], asked: GenerateRequest, error: type[Exception], message: str
) -> None:
    serving = make_serving()

    with pytest.raises(error, match=message):
        await handlers.generate(asked, serving=serving)
    with pytest.raises(error, match=message):
        await items_of(serving, asked)
    with pytest.raises(error, match=message):
        await anext(aiter(handlers.generate_many(asked, 2, serving=serving)))


async def test_a_stream_shows_every_attempt_and_ends_with_the_answer(make_serving: Callable[..., Serving]) -> None:
    serving = make_serving()

    items = await items_of(serving, request(seed=9))

    restart = next(n for n, item in enumerate(items) if isinstance(item, Restarted))
    assert items[restart] == Restarted(2, "invalid")
    shown = [item for item in items[restart + 1 : -1] if isinstance(item, TokenDelta)]
    assert {item.attempt for item in shown} == {2}
    assert items[-1] == await handlers.generate(request(seed=9), serving=serving)
    assert isinstance(items[-1], Answer)
    assert "".join(item.token.text for item in shown) == items[-1].text


async def test_a_stream_without_retries_left_ends_with_its_answer(make_serving: Callable[..., Serving]) -> None:
    items = await items_of(make_serving(), request(seed=9, max_retries=0))

    assert isinstance(items[-1], Answer)
    assert not items[-1].valid
    assert not any(isinstance(item, Restarted) for item in items)


async def test_closing_a_stream_frees_model_and_version(make_serving: Callable[..., Serving]) -> None:
    serving = make_serving()
    stream = handlers.generate_stream(request(seed=7), serving=serving)

    async with aclosing(stream):  # type: ignore[type-var]
        await anext(aiter(stream))
        assert serving.models.loaded() == {"v1": 1}

    assert serving.models.loaded() == {"v1": 0}
    assert serving.language_model.num_running["v1"] == 0  # type: ignore[attr-defined]


async def test_many_answers_are_new_valid_and_distinct_in_seed_order(make_serving: Callable[..., Serving]) -> None:
    """Of the seeds 0 to 12, the answers of 1 and 2 are known, 9's is invalid, and 5's is 4's again."""

    def written(adapter: Adapter | None, prompt: str, seed: int | None) -> str:
        return numbered(adapter, prompt.replace("5->", "4->"), seed)

    answers = [a async for a in handlers.generate_many(request(seed=0), 9, serving=make_serving(written))]

    assert [answer.prompt for answer in answers] == [f"{n}->" for n in (0, 3, 4, 6, 7, 8, 10, 11, 12)]
    assert {answer.attempts for answer in answers} == {1}


async def test_many_answers_fall_back_on_what_was_passed_over(make_serving: Callable[..., Serving]) -> None:
    serving = make_serving(lambda _adapter, prompt, _seed: f"genre {len(prompt)} of v1{STOP}")

    answers = [a async for a in handlers.generate_many(request(seed=8), 4, serving=serving)]

    assert [answer.answer for answer in answers] == ["genre 3 of v1", "genre 4 of v1", "genre 3 of v1", "genre 4 of v1"]


@pytest.mark.parametrize("n", [0, 10_001])
async def test_the_number_of_answers_is_bounded(make_serving: Callable[..., Serving], n: int) -> None:
    with pytest.raises(InvalidInput, match=f"n={n}"):
        await anext(aiter(handlers.generate_many(request(), n, serving=make_serving())))


async def test_leaving_many_answers_early_stops_the_rest(make_serving: Callable[..., Serving]) -> None:
    serving = make_serving()
    answers = handlers.generate_many(request(seed=0), 100, serving=serving)

    async with aclosing(answers):  # type: ignore[type-var]
        await anext(aiter(answers))

    assert serving.models.loaded() == {"v1": 0}
    assert serving.language_model.num_running["v1"] == 0  # type: ignore[attr-defined]


async def test_versions_are_compared_on_one_prompt_and_seed(make_serving: Callable[..., Serving]) -> None:
    answers = await handlers.compare(request(), ["base", "champion", "v2", "v2"], serving=make_serving())

    assert [answer.model_version for answer in answers] == ["base", "v1", "v2", "v2"]
    assert len({(answer.prompt, answer.seed) for answer in answers}) == 1
    assert answers[0].adapter_hash == ""
    assert answers[2] == answers[3]


async def test_a_comparison_tries_nothing_again(make_serving: Callable[..., Serving]) -> None:
    answers = await handlers.compare(request(seed=1), ["champion", "v2"], serving=make_serving())

    assert [(answer.known, answer.attempts) for answer in answers] == [(True, 1), (False, 1)]


@pytest.mark.parametrize("versions", [[], ["base"] * 9])
async def test_the_number_of_compared_versions_is_bounded(
    make_serving: Callable[..., Serving], versions: list[str]
) -> None:
    with pytest.raises(InvalidInput, match="versions to compare"):
        await handlers.compare(request(), versions, serving=make_serving())


async def test_a_deleted_dataset_is_said_not_to_have_been_compared(make_serving: Callable[..., Serving]) -> None:
    answer = await handlers.generate(request(seed=1, model="v2"), serving=make_serving())

    assert (answer.known, answer.compared_with) == (False, "")


async def test_a_corrupt_training_shard_is_reported(store: Store, make_serving: Callable[..., Serving]) -> None:
    store.put(keys.dataset_shard(RECIPE, "ds-1", "train"), b"")

    with pytest.raises(DataLoss, match=r"train\.jsonl of dataset ds-1 is corrupt"):
        await handlers.generate(request(seed=1), serving=make_serving())


async def test_a_training_set_is_read_once(store: Store, make_serving: Callable[..., Serving]) -> None:
    reads: list[str] = []
    get = store.get
    store.get = lambda key: reads.append(key) or get(key)  # type: ignore[method-assign,func-returns-value]
    serving = make_serving()

    await asyncio.gather(*(handlers.generate(request(seed=n), serving=serving) for n in range(20)))

    assert sum("/train.jsonl" in key for key in reads) == 1
