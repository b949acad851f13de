from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from registry_material import RECIPE, promote, put_version

from contract.fake_language_model import FakeLanguageModel
from doubles.fake_clock import FakeClock
from fixtures_places import Place
from tunesmith.domain import keys
from tunesmith.domain.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    ResourceExhausted,
    Unavailable,
    UnknownRecipe,
)
from tunesmith.ports.language_model import GenerationParameters
from tunesmith.ports.store import Store
from tunesmith_generator.reload import ModelTable


@pytest.fixture
def store(place: Place, tmp_path: Path) -> Store:
    return place.store(tmp_path)


@pytest.fixture
async def model() -> FakeLanguageModel:
    return FakeLanguageModel(lambda adapter, prompt, seed: f"{adapter.name if adapter else None} {prompt} {seed}")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


MakeTable = Callable[..., ModelTable]


@pytest.fixture
async def make_table(store: Store, model: FakeLanguageModel, clock: FakeClock) -> AsyncIterator[MakeTable]:
    made: list[ModelTable] = []

    def make(**settings: Any) -> ModelTable:
        made.append(ModelTable(store, model, clock, recipes=(RECIPE,), **({"max_loaded_adapters": 2} | settings)))
        return made[-1]

    yield make
    for table in made:
        await table.close()


async def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def test_the_champion_answers_by_default(store: Store, make_table: MakeTable) -> None:
    put_version(store, "v1", dataset_id="ds-1")
    promote(store, "v1")
    table = make_table()

    for name in ("", "champion", "v1"):
        async with table.lease(RECIPE, name) as served:
            assert (served.version, served.adapter.hash, served.dataset_id) == ("v1", "hash of v1", "ds-1")


async def test_without_a_champion_the_refusal_says_how_to_make_one(make_table: MakeTable) -> None:
    with pytest.raises(FailedPrecondition, match="no champion yet: make one with `tunesmith run micro_genre`"):
        async with make_table().lease(RECIPE):
            pass


async def test_unknown_names_are_refused(store: Store, make_table: MakeTable) -> None:
    table = make_table()

    with pytest.raises(UnknownRecipe):
        async with table.lease("macro_genre"):
            pass
    with pytest.raises(NotFound, match="no model version v9"):
        async with table.lease(RECIPE, "v9"):
            pass
    with pytest.raises(InvalidInput, match="not a valid name"):
        async with table.lease(RECIPE, "../../etc/passwd"):
            pass
    assert table.loaded() == {}


async def test_a_promotion_is_served_after_the_refresh_and_the_old_version_goes(
    store: Store, model: FakeLanguageModel, make_table: MakeTable
) -> None:
    put_version(store, "v1")
    put_version(store, "v2")
    promote(store, "v1")
    table = make_table()
    await table.refresh(RECIPE)

    async with table.lease(RECIPE) as old:
        promote(store, "v2")
        await table.refresh(RECIPE)
        async with table.lease(RECIPE) as new:
            assert (old.version, new.version) == ("v1", "v2")
        assert "v1" in model.loaded

    await eventually(lambda: "v1" not in model.loaded)
    assert table.loaded() == {"v2": 0}


async def test_promotions_under_load_fail_no_request(
    store: Store, model: FakeLanguageModel, make_table: MakeTable
) -> None:
    versions = [f"v{n}" for n in range(6)]
    for version in versions:
        put_version(store, version)
    promote(store, versions[0])
    model.load_delay_s = 0.005
    table = make_table()
    current = versions[0]

    async def request(number: int) -> None:
        await asyncio.sleep(number * 0.0005)
        oldest_allowed = versions.index(current)
        async with table.lease(RECIPE) as served:
            parameters = GenerationParameters(max_new_tokens=20)
            generation = await model.generate(f"{number}->", parameters, adapter=served.adapter.name)
        assert generation.text.startswith(f"{served.version} {number}->")
        assert versions.index(served.version) >= oldest_allowed

    async def promotions() -> None:
        nonlocal current
        for version in versions[1:]:
            await asyncio.sleep(0.01)
            promote(store, version)
            await asyncio.gather(*(table.refresh(RECIPE) for _ in range(5)))
            current = version

    await asyncio.gather(promotions(), *(request(number) for number in range(200)))

    async with table.lease(RECIPE) as served:
        assert served.version == versions[-1]
    await eventually(lambda: list(model.loaded) == [versions[-1]])
    assert model.num_loads == dict.fromkeys(versions, 1)


async def test_refreshes_at_once_share_their_work(
    store: Store, model: FakeLanguageModel, make_table: MakeTable
) -> None:
    put_version(store, "v1")
    promote(store, "v1")
    reads: list[str] = []
    get = store.get
    store.get = lambda key: reads.append(key) or get(key)  # type: ignore[method-assign,func-returns-value]
    table = make_table()

    await asyncio.gather(*(table.refresh(RECIPE) for _ in range(50)))

    assert reads.count(keys.champion(RECIPE)) <= 2
    assert model.num_loads == {"v1": 1}


async def test_a_refresh_sees_every_promotion_made_before_it_was_called(
    store: Store, model: FakeLanguageModel, make_table: MakeTable
) -> None:
    """Also when an earlier refresh, which read the alias before, is still loading."""
    put_version(store, "v1")
    put_version(store, "v2")
    promote(store, "v1")
    model.load_delay_s = 0.02
    table = make_table()
    earlier = asyncio.create_task(table.refresh(RECIPE))
    await asyncio.sleep(0.01)

    promote(store, "v2")
    served = await table.refresh(RECIPE)

    assert served.version == "v2"
    await earlier


async def test_a_champion_that_does_not_load_leaves_the_old_one_serving(
    store: Store, model: FakeLanguageModel, clock: FakeClock, make_table: MakeTable
) -> None:
    put_version(store, "v1")
    put_version(store, "v2")
    promote(store, "v1")
    table = make_table()
    await table.refresh(RECIPE)
    model.refuse_to_load["v2"] = DataLoss("adapter v2 is corrupt")
    promote(store, "v2")

    with pytest.raises(DataLoss):
        await table.refresh(RECIPE)
    async with table.lease(RECIPE) as served:
        assert served.version == "v1"
    assert await table.poll_once() == {}

    del model.refuse_to_load["v2"]
    assert await table.poll_once() == {}, "the first second after a failure is left out"
    clock.advance(1.0)
    assert await table.poll_once() == {RECIPE: "v2"}


async def test_polling_repairs_a_lost_event_and_repeats_nothing(
    store: Store, model: FakeLanguageModel, make_table: MakeTable
) -> None:
    table = make_table()
    assert await table.poll_once() == {}
    put_version(store, "v1")
    promote(store, "v1")

    assert await table.poll_once() == {RECIPE: "v1"}
    assert await table.poll_once() == {}
    assert model.num_loads == {"v1": 1}


async def test_polling_outlives_a_store_that_does_not_answer(
    store: Store, make_table: MakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table()
    with monkeypatch.context() as patched:

        def unavailable(key: str) -> None:
            raise Unavailable("the store does not answer")

        patched.setattr(store, "get", unavailable)
        assert await table.poll_once() == {}


async def test_a_corrupt_alias_is_reported_and_the_champion_goes_on(store: Store, make_table: MakeTable) -> None:
    put_version(store, "v1")
    promote(store, "v1")
    table = make_table()
    await table.refresh(RECIPE)
    store.put(keys.champion(RECIPE), b"{}")

    with pytest.raises(DataLoss, match=r"champion\.json is corrupt"):
        await table.refresh(RECIPE)
    assert await table.poll_once() == {}
    async with table.lease(RECIPE) as served:
        assert served.version == "v1"


async def test_a_deleted_alias_leaves_the_champion_serving(store: Store, make_table: MakeTable) -> None:
    put_version(store, "v1")
    promote(store, "v1")
    table = make_table()
    await table.refresh(RECIPE)
    store.delete(keys.champion(RECIPE))

    assert (await table.refresh(RECIPE)).version == "v1"


async def test_versions_asked_for_by_id_stay_loaded_until_others_need_the_place(
    store: Store, model: FakeLanguageModel, make_table: MakeTable
) -> None:
    for version in ("v1", "v2", "v3", "champ"):
        put_version(store, version)
    promote(store, "champ")
    table = make_table(max_loaded_adapters=2)
    await table.refresh(RECIPE)

    for version in ("v1", "v2", "v1", "v3", "v1"):
        async with table.lease(RECIPE, version) as served:
            assert served.version == version

    await eventually(lambda: sorted(model.loaded) == ["champ", "v1", "v3"])
    assert model.num_loads["v1"] == 1


async def test_a_version_in_use_never_makes_place(store: Store, make_table: MakeTable) -> None:
    for version in ("v1", "v2"):
        put_version(store, version)
    table = make_table(max_loaded_adapters=1)

    async with table.lease(RECIPE, "v1"):
        with pytest.raises(ResourceExhausted, match="MAX_LOADED_ADAPTERS"):
            async with table.lease(RECIPE, "v2"):
                pass
        assert table.loaded() == {"v1": 1}
    async with table.lease(RECIPE, "v2") as served:
        assert served.version == "v2"


async def test_no_room_in_the_model_makes_idle_versions_go(
    store: Store, model: FakeLanguageModel, make_table: MakeTable
) -> None:
    """The model's own limit (bases in memory) is met before the table's."""
    put_version(store, "v1")
    put_version(store, "v2")
    table = make_table(max_loaded_adapters=5)
    async with table.lease(RECIPE, "v1"):
        pass
    load = model.load

    async def only_one(adapter: Any) -> None:
        if model.loaded:
            raise ResourceExhausted("one base is in use")
        await load(adapter)

    model.load = only_one  # type: ignore[method-assign]
    async with table.lease(RECIPE, "v2") as served:
        assert served.version == "v2"


async def test_a_version_that_is_going_is_loaded_again_on_demand(
    store: Store, model: FakeLanguageModel, make_table: MakeTable
) -> None:
    put_version(store, "v1")
    put_version(store, "v2")
    table = make_table(max_loaded_adapters=1)
    async with table.lease(RECIPE, "v1"):
        pass

    for version in ("v2", "v1", "v2", "v1"):
        async with table.lease(RECIPE, version) as served:
            await model.generate("1->", GenerationParameters(), adapter=served.adapter.name)


async def test_a_failed_load_is_tried_again_by_the_next_request(
    store: Store, model: FakeLanguageModel, make_table: MakeTable
) -> None:
    put_version(store, "v1")
    table = make_table()
    model.refuse_to_load["v1"] = Unavailable("not now")
    for _ in range(2):
        with pytest.raises(Unavailable):
            async with table.lease(RECIPE, "v1"):
                pass
    model.refuse_to_load.clear()

    async with table.lease(RECIPE, "v1") as served:
        assert served.version == "v1"


async def test_a_cancelled_request_leaves_the_load_to_those_that_wait_with_it(
    store: Store, model: FakeLanguageModel, make_table: MakeTable
) -> None:
    put_version(store, "v1")
    model.load_delay_s = 0.02
    table = make_table()

    async def use() -> str:
        async with table.lease(RECIPE, "v1") as served:
            return served.version

    first, second = asyncio.create_task(use()), asyncio.create_task(use())
    await asyncio.sleep(0.01)
    first.cancel()

    assert await second == "v1"
    assert model.num_loads == {"v1": 1}
    assert table.loaded() == {"v1": 0}


async def test_a_rejected_version_is_served_only_where_the_settings_say_so(store: Store, make_table: MakeTable) -> None:
    put_version(store, "v1", passed=False)

    with pytest.raises(FailedPrecondition, match="did not pass its gates"):
        async with make_table().lease(RECIPE, "v1"):
            pass
    async with make_table(serve_rejected=True).lease(RECIPE, "v1") as served:
        assert served.version == "v1"


async def test_the_base_is_the_champions_base(store: Store, make_table: MakeTable) -> None:
    put_version(store, "v1", dataset_id="ds-1")
    promote(store, "v1")

    async with make_table().lease(RECIPE, "base") as served:
        assert served.version == "base"
        assert (served.adapter.key, served.adapter.hash) == ("", "")
        assert served.adapter.base_fingerprint == "tiny-llama"
        assert served.dataset_id == "ds-1"


async def test_the_base_answers_before_there_is_a_champion_when_it_can_be_told(make_table: MakeTable) -> None:
    with pytest.raises(FailedPrecondition):
        async with make_table().lease(RECIPE, "base"):
            pass
    async with make_table(fingerprint_of_base=lambda name: f"print of {name}").lease(RECIPE, "base") as served:
        assert served.adapter.base_fingerprint == "print of builtin:tiny"
