"""The registry: immutable versions, and an alias that moves only to what passed, once per move."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fixtures_places import Place
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain import keys
from tunesmith.domain.errors import (
    AlreadyExists,
    Conflict,
    DataLoss,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    TunesmithError,
    Unavailable,
)
from tunesmith.domain.models import GateResult, Measure, ModelVersion, Report
from tunesmith.ports.store import Store, StoredObject
from tunesmith_trainer import registry

RECIPE = "micro_genre"


class TickingClock(SystemClock):
    """One second later with every look."""

    def __init__(self) -> None:
        self._now = datetime(2026, 11, 21, 10, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now


class FaultyStore:
    """Runs `before` and `after` once around the next write of an alias; what they raise reaches the caller."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.before: Callable[[], None] | None = None
        self.after: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def replace(self, key: str, data: bytes, *, version: str) -> str:
        self._once("before")
        etag = self._inner.replace(key, data, version=version)
        self._once("after")
        return etag

    def _once(self, name: str) -> None:
        action, _ = getattr(self, name), setattr(self, name, None)
        if action is not None:
            action()


def failing(error: TunesmithError) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def unasked(version: ModelVersion, report: Report) -> None:
    """Serving parity has tests of its own."""


@pytest.fixture
def store(place: Place, tmp_path: Path) -> FaultyStore:
    return FaultyStore(place.store(tmp_path))


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


def version_of(name: str, *, passed: bool = True) -> ModelVersion:
    return ModelVersion(
        id=name,
        recipe=RECIPE,
        run_id=f"run-{name}",
        dataset_id="ds-1",
        base_model="builtin:tiny",
        base_fingerprint="tiny@1",
        adapter_key=f"runs/{RECIPE}/run-{name}/adapter/",
        adapter_hash="ab" * 32,
        report_id=f"rep-{name}",
        passed=passed,
        created_at="2026-11-21T10:00:00.000000Z",
    )


def report_of(version: ModelVersion) -> Report:
    gate = GateResult("novelty", "novel_share", version.passed, 0.3, ">=", 0.5, "Novel is 30.0 %: it recites.")
    return Report(
        id=version.report_id,
        recipe=RECIPE,
        run_id=version.run_id,
        dataset_id=version.dataset_id,
        model_version=version.id,
        champion_version="",
        metrics={"candidate": {"novel_share": Measure(0.3, 0.2, 0.4, 500)}},
        anchors={},
        samples={"candidate": ("a",)},
        distributions={},
        gates=(gate,),
        passed=version.passed,
        created_at="2026-11-21T10:00:00.000000Z",
    )


def add(store: Store, *names: str, passed: bool = True) -> None:
    for name in names:
        version = version_of(name, passed=passed)
        registry.register(store, version, report_of(version))


def promote(store: Store, clock: TickingClock, *names: str, expected: str | None = None) -> None:
    for name in names:
        registry.promote(store, clock, RECIPE, name, cause=f"job-{name}", expected=expected, served_as_judged=unasked)


def current(store: Store) -> str:
    found = registry.champion(store, RECIPE)
    assert found is not None
    return found.version


def test_a_version_is_created_once_and_again_without_effect(store: FaultyStore) -> None:
    first = version_of("v1")

    assert registry.create_version(store, first) == (first, True)
    later = replace(first, created_at="2027-01-01T00:00:00.000000Z")
    assert registry.create_version(store, later) == (first, False)
    assert registry.get_version(store, RECIPE, "v1") == first


def test_a_version_is_never_overwritten_by_another_of_its_id(store: FaultyStore) -> None:
    registry.create_version(store, version_of("v1"))

    with pytest.raises(AlreadyExists, match="immutable"):
        registry.create_version(store, replace(version_of("v1"), adapter_hash="cd" * 32))


def test_a_report_is_never_overwritten(store: FaultyStore) -> None:
    report = report_of(version_of("v1"))

    assert registry.create_report(store, report) == (report, True)
    again = replace(report, created_at="2027-01-01T00:00:00.000000Z")
    assert registry.create_report(store, again) == (report, False)


def test_a_version_registered_again_after_a_crash_keeps_the_first_reports_verdict(store: FaultyStore) -> None:
    version = version_of("v1", passed=False)
    first = report_of(version)
    registry.create_report(store, first)

    again = replace(first, passed=True, gates=(replace(first.gates[0], passed=True),))

    assert registry.register(store, replace(version, passed=True), again) == (version, first)
    assert registry.register(store, version, first) == (version, first)


def test_versions_and_reports_are_listed_newest_first_without_corrupt_ones(store: FaultyStore) -> None:
    for day, name in enumerate(["v2", "v1", "v3"], start=1):
        version = replace(version_of(name), created_at=f"2026-11-0{day}T00:00:00.000000Z")
        registry.register(store, version, replace(report_of(version), created_at=version.created_at))
        store.put(keys.report_page(RECIPE, version.report_id), b"<!doctype html>")
    store.put(keys.model_version(RECIPE, "v4"), b"{}")

    assert [v.id for v in registry.list_versions(store, RECIPE)] == ["v3", "v1", "v2"]
    assert [r.id for r in registry.list_reports(store, RECIPE)] == ["rep-v3", "rep-v1", "rep-v2"]
    assert registry.list_versions(store, "lyrics") == []


def test_what_does_not_exist_is_not_found(store: FaultyStore, clock: TickingClock) -> None:
    assert registry.champion(store, RECIPE) is None
    for ask in (registry.get_version, registry.get_report):
        with pytest.raises(NotFound, match="nobody"):
            ask(store, RECIPE, "nobody")
    with pytest.raises(NotFound):
        registry.promote(store, clock, RECIPE, "nobody", cause="job", expected=None, served_as_judged=unasked)


@pytest.mark.parametrize("name", ["../v1", "", "V1", "a/b"])
def test_a_name_that_cannot_be_a_key_is_refused(store: FaultyStore, clock: TickingClock, name: str) -> None:
    with pytest.raises(InvalidInput):
        registry.get_version(store, RECIPE, name)
    with pytest.raises(InvalidInput):
        registry.promote(store, clock, RECIPE, name, cause="job", expected=None, served_as_judged=unasked)


def test_promoting_moves_the_alias_and_remembers_why(store: FaultyStore, clock: TickingClock) -> None:
    add(store, "v1", "v2")

    first, changed_first = registry.promote(
        store, clock, RECIPE, "v1", cause="job-1", expected="", served_as_judged=unasked
    )
    second, changed_second = registry.promote(
        store, clock, RECIPE, "v2", cause="job-2", expected="v1", served_as_judged=unasked
    )

    assert (changed_first, changed_second) == (True, True)
    assert (first.rev, second.rev) == (1, 2)
    assert first.writer != second.writer
    assert [(c.version, c.action, c.cause) for c in second.history] == [
        ("v1", "promote", "job-1"),
        ("v2", "promote", "job-2"),
    ]
    assert registry.champion(store, RECIPE) == second


@pytest.mark.parametrize("expected", [None, "v1", "v0"])
def test_promoting_the_champion_again_changes_nothing(
    store: FaultyStore, clock: TickingClock, expected: str | None
) -> None:
    add(store, "v1")
    promote(store, clock, "v1")
    before = store.get(keys.champion(RECIPE))

    _, changed = registry.promote(
        store, clock, RECIPE, "v1", cause="again", expected=expected, served_as_judged=unasked
    )

    assert not changed
    assert store.get(keys.champion(RECIPE)) == before


def test_a_version_that_failed_a_gate_is_refused_with_the_gates_words(store: FaultyStore, clock: TickingClock) -> None:
    add(store, "v1")
    add(store, "bad", passed=False)
    promote(store, clock, "v1")

    with pytest.raises(FailedPrecondition, match=r"\[novelty\] Novel is 30.0 %: it recites") as caught:
        registry.promote(store, clock, RECIPE, "bad", cause="job", expected="v1", served_as_judged=unasked)

    assert caught.value.reason == "GATES_FAILED"
    assert caught.value.metadata["failed_gates"] == "novelty"
    assert current(store) == "v1"


def test_a_version_without_its_report_is_refused(store: FaultyStore, clock: TickingClock) -> None:
    registry.create_version(store, version_of("v1"))

    with pytest.raises(FailedPrecondition, match="missing"):
        promote(store, clock, "v1")


@pytest.mark.parametrize(
    "change", [{"model_version": "v2"}, {"run_id": "run-x"}, {"dataset_id": "x"}, {"passed": False}]
)
def test_a_report_about_something_else_is_refused(
    store: FaultyStore, clock: TickingClock, change: dict[str, object]
) -> None:
    version = version_of("v1")
    registry.create_version(store, version)
    registry.create_report(store, replace(report_of(version), **change))

    with pytest.raises(FailedPrecondition, match=next(iter(change))):
        promote(store, clock, "v1")


def test_a_report_that_says_passed_over_a_failed_gate_is_refused(store: FaultyStore, clock: TickingClock) -> None:
    version = version_of("v1")
    report = report_of(version)
    registry.create_version(store, version)
    registry.create_report(store, replace(report, gates=(replace(report.gates[0], passed=False),)))

    with pytest.raises(FailedPrecondition, match="novelty"):
        promote(store, clock, "v1")


def test_passed_must_be_true_and_not_merely_something(store: FaultyStore, clock: TickingClock) -> None:
    add(store, "v1")
    for key in (keys.report(RECIPE, "rep-v1"), keys.model_version(RECIPE, "v1")):
        row = json.loads(store.get(key).data)
        store.put(key, json.dumps(row | {"passed": "no"}).encode())

    with pytest.raises(FailedPrecondition):
        promote(store, clock, "v1")


def test_a_promotion_that_was_judged_against_another_champion_conflicts(
    store: FaultyStore, clock: TickingClock
) -> None:
    add(store, "v1", "v2", "v3")
    promote(store, clock, "v1", "v2")

    for expected in ("v1", ""):
        with pytest.raises(Conflict, match="is v2, not") as caught:
            registry.promote(store, clock, RECIPE, "v3", cause="job", expected=expected, served_as_judged=unasked)

    assert caught.value.metadata == {"current": "v2", "expected": ""}
    assert current(store) == "v2"


def test_of_racing_promotions_exactly_one_wins(store: FaultyStore, clock: TickingClock) -> None:
    names = [f"v{i}" for i in range(8)]
    add(store, "start", *names)
    promote(store, clock, "start")
    barrier = threading.Barrier(len(names))

    def race(name: str) -> str:
        barrier.wait()
        try:
            _, changed = registry.promote(
                store, SystemClock(), RECIPE, name, cause=f"job-{name}", expected="start", served_as_judged=unasked
            )
        except Conflict:
            return "lost"
        return name if changed else "no-op"

    with ThreadPoolExecutor(len(names)) as pool:
        outcomes = list(pool.map(race, names))

    winners = [o for o in outcomes if o != "lost"]
    assert len(winners) == 1
    found = registry.champion(store, RECIPE)
    assert found is not None
    assert [c.version for c in found.history] == ["start", *winners]


def test_racing_promotions_without_an_expectation_follow_each_other_and_none_is_lost(store: FaultyStore) -> None:
    names = [f"v{i}" for i in range(6)]
    add(store, *names)
    barrier = threading.Barrier(len(names))

    def race(name: str) -> bool:
        barrier.wait()
        return registry.promote(
            store, SystemClock(), RECIPE, name, cause=f"job-{name}", expected=None, served_as_judged=unasked
        )[1]

    with ThreadPoolExecutor(len(names)) as pool:
        assert all(pool.map(race, names))

    found = registry.champion(store, RECIPE)
    assert found is not None
    assert sorted(c.version for c in found.history) == names
    assert found.rev == len(names)


def test_racing_promotions_of_one_version_move_the_alias_once(store: FaultyStore) -> None:
    add(store, "v1")
    barrier = threading.Barrier(6)

    def race(number: int) -> bool:
        barrier.wait()
        return registry.promote(
            store, TickingClock(), RECIPE, "v1", cause="job", expected="", served_as_judged=unasked
        )[1]

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(race, range(6))) == [False] * 5 + [True]


@pytest.mark.parametrize("error", [Conflict("412 for its own write"), Unavailable("503, but it was applied")])
def test_a_write_that_was_applied_but_reported_otherwise_is_recognised(
    store: FaultyStore, clock: TickingClock, error: TunesmithError
) -> None:
    add(store, "v1", "v2")
    promote(store, clock, "v1")
    store.after = failing(error)

    found, changed = registry.promote(
        store, clock, RECIPE, "v2", cause="job-2", expected="v1", served_as_judged=unasked
    )

    assert changed
    assert (found.version, found.rev) == ("v2", 2)
    assert registry.champion(store, RECIPE) == found


def test_an_applied_write_is_recognised_even_under_a_later_move(store: FaultyStore, clock: TickingClock) -> None:
    add(store, "v1", "v2", "v3")
    promote(store, clock, "v1")

    def superseded() -> None:
        promote(store, clock, "v3")
        raise Conflict("412 for its own write")

    store.after = superseded

    found, changed = registry.promote(
        store, clock, RECIPE, "v2", cause="job-2", expected=None, served_as_judged=unasked
    )

    assert changed
    assert found.version == "v3"
    assert [c.version for c in found.history] == ["v1", "v2", "v3"]


def test_a_write_that_was_not_applied_is_told_and_can_be_repeated(store: FaultyStore, clock: TickingClock) -> None:
    add(store, "v1", "v2")
    promote(store, clock, "v1")
    store.before = failing(Unavailable("connection refused"))

    with pytest.raises(Unavailable):
        promote(store, clock, "v2", expected="v1")
    assert current(store) == "v1"

    promote(store, clock, "v2", expected="v1")
    assert current(store) == "v2"


def test_a_store_that_always_conflicts_ends_in_a_conflict(store: FaultyStore, clock: TickingClock) -> None:
    add(store, "v1", "v2")
    promote(store, clock, "v1")

    def lose() -> None:
        store.before = lose
        raise Conflict("another was faster")

    store.before = lose

    with pytest.raises(Conflict, match="20 times"):
        promote(store, clock, "v2")


def test_rollback_goes_back_to_the_champion_before(store: FaultyStore, clock: TickingClock) -> None:
    add(store, "v1", "v2")
    promote(store, clock, "v1", "v2")

    found = registry.rollback(store, clock, RECIPE, cause="request-9", expected="v2")

    assert (found.version, found.rev) == ("v1", 3)
    assert (found.history[-1].action, found.history[-1].cause) == ("rollback", "request-9")


def test_repeated_rollbacks_walk_back_and_end(store: FaultyStore, clock: TickingClock) -> None:
    add(store, "v1", "v2", "v3")
    promote(store, clock, "v1", "v2", "v3")

    assert [registry.rollback(store, clock, RECIPE, cause="r").version for _ in range(2)] == ["v2", "v1"]
    with pytest.raises(FailedPrecondition, match="no predecessor"):
        registry.rollback(store, clock, RECIPE, cause="r")


def test_a_promotion_after_a_rollback_can_be_rolled_back_to_where_it_came_from(
    store: FaultyStore, clock: TickingClock
) -> None:
    add(store, "v1", "v2", "v3")
    promote(store, clock, "v1", "v2")
    registry.rollback(store, clock, RECIPE, cause="r")
    promote(store, clock, "v3")

    assert registry.rollback(store, clock, RECIPE, cause="r").version == "v1"


def test_rollback_passes_over_versions_that_may_not_be_served_any_more(store: FaultyStore, clock: TickingClock) -> None:
    add(store, "v1", "v2", "v3")
    promote(store, clock, "v1", "v2", "v3")
    store.delete(keys.report(RECIPE, "rep-v2"))

    assert registry.rollback(store, clock, RECIPE, cause="r").version == "v1"


def test_rollback_tells_why_nothing_can_be_gone_back_to(store: FaultyStore, clock: TickingClock) -> None:
    with pytest.raises(FailedPrecondition, match="no champion"):
        registry.rollback(store, clock, RECIPE, cause="r")
    add(store, "v1", "v2")
    promote(store, clock, "v1", "v2")
    store.put(keys.model_version(RECIPE, "v1"), b"{}")

    with pytest.raises(FailedPrecondition, match=r"v1 \(the stored object .* is corrupt"):
        registry.rollback(store, clock, RECIPE, cause="r")


def test_two_racing_rollbacks_go_back_one_step(store: FaultyStore, clock: TickingClock) -> None:
    add(store, "v1", "v2", "v3")
    promote(store, clock, "v1", "v2", "v3")

    def another() -> None:
        registry.rollback(store, TickingClock(), RECIPE, cause="other")

    store.before = another

    with pytest.raises(Conflict):
        registry.rollback(store, clock, RECIPE, cause="mine")

    assert current(store) == "v2"


def test_rollback_from_another_champion_than_expected_conflicts(store: FaultyStore, clock: TickingClock) -> None:
    add(store, "v1", "v2")
    promote(store, clock, "v1", "v2")

    with pytest.raises(Conflict):
        registry.rollback(store, clock, RECIPE, cause="r", expected="v1")


def test_history_is_bounded_and_rollback_still_works(store: FaultyStore, clock: TickingClock) -> None:
    add(store, "v1", "v2")
    promote(store, clock, *["v1", "v2"] * 60)

    found = registry.champion(store, RECIPE)

    assert found is not None
    assert (found.rev, len(found.history), found.history[-1].version) == (120, 100, "v2")
    assert registry.rollback(store, clock, RECIPE, cause="r").version == "v1"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"null", b"\xff", b'{"recipe": "micro_genre"}'])
def test_corrupt_objects_are_data_loss_that_names_the_key(store: FaultyStore, clock: TickingClock, data: bytes) -> None:
    asked = {
        keys.champion(RECIPE): lambda: registry.champion(store, RECIPE),
        keys.model_version(RECIPE, "v1"): lambda: registry.get_version(store, RECIPE, "v1"),
        keys.report(RECIPE, "rep-v1"): lambda: registry.get_report(store, RECIPE, "rep-v1"),
    }
    for key, ask in asked.items():
        store.put(key, data)
        with pytest.raises(DataLoss, match=key.replace(".", r"\.")):
            ask()
    with pytest.raises(DataLoss):
        registry.promote(store, clock, RECIPE, "v1", cause="job", expected=None, served_as_judged=unasked)


def test_an_object_under_the_wrong_key_is_data_loss(store: FaultyStore) -> None:
    add(store, "v1")
    moved: StoredObject = store.get(keys.model_version(RECIPE, "v1"))
    store.put(keys.model_version(RECIPE, "v2"), moved.data)

    with pytest.raises(DataLoss, match="it holds version 'v1'"):
        registry.get_version(store, RECIPE, "v2")
