"""What a judge job does after it has judged: the version becomes champion, is refused, or is judged again."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from published_world import RECIPE, VERSION, World

from doubles.fake_clock import FakeClock
from tunesmith.domain import keys
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.jobs import Job, Stage
from tunesmith.domain.parity import Probe, Probes, ProbeToken, ServedAnswers, ServedToken
from tunesmith.jobs.ranks import Rank
from tunesmith.jobs.worker import HandOver, Outcome, WorkContext
from tunesmith.platform import Platform
from tunesmith.settings import Settings
from tunesmith_trainer import registry
from tunesmith_trainer.bootstrap import works
from tunesmith_trainer.handlers import promote_judged
from tunesmith_trainer.parity import ParityGate
from tunesmith_trainer.replicas import Asker, Wishes

PROBES = Probes(
    (Probe("12->", (ProbeToken(5, "a", -0.5, 6, -3.0), ProbeToken(7, "b", -0.1, 8, -4.0))),), 8, (), 1e-6, 1e-3
)


@pytest.fixture(scope="module")
def judged_once(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two versions that passed, measured while there was no champion."""
    world = World(tmp_path_factory.mktemp("promotion"))
    for version in (world.version, world.put_version("mv-later", passed=True)):
        report = replace(registry.get_report(world.store, RECIPE, version.report_id), probes=PROBES)
        world.store.put(keys.report(RECIPE, report.id), canonical_json(report.to_json()))
    return world


@pytest.fixture
def world(judged_once: World) -> World:
    judged_once.store.delete(keys.champion(RECIPE))
    return judged_once


@dataclass
class Serving:
    """Answers as judged, `off` nats aside."""

    off: float = 0.0

    def answer_probes(self, recipe: str, version: str, probes: Probes, *, timeout_s: float) -> ServedAnswers:
        rows = tuple(tuple(ServedToken(t.id, t.text, t.logprob - self.off) for t in p.tokens) for p in probes.probes)
        return ServedAnswers(rows, "", "serving", "float32")


def promote(world: World, version: str = VERSION, *, off: float = 0.0, asker: Asker | None = None) -> Any:
    clock = FakeClock()
    parity = ParityGate(world.store, clock, Serving(off), patience_s=1.0, servers=asker)
    world.progress.clear()
    return promote_judged(
        RECIPE, version, store=world.store, clock=clock, cause="job j", parity=parity, report=world.progress.append
    )


def work(world: World) -> Outcome | HandOver:
    """The stage as a worker does it, with nobody to ask for answers."""
    platform = Platform.open(Settings(data=world.folder / "data", serving="none"))
    job = Job(
        id="j", kind="judge", service="trainer", phase="running", rev=1, attempt=2, epoch=2, writer="w",
        request={"recipe": RECIPE, "run_id": "run-1", "promote": True}, created_at="", updated_at="",
        stages=(Stage("promote", 1, {"model_version": VERSION}, {"cpu_s": 1.0, "peak_mib": 1.0}),),
    )  # fmt: skip
    try:
        context = WorkContext(job, platform.jobs, platform.clock, threading.Event(), Rank())
        return works(platform)[job.work](context)
    finally:
        platform.close()


def test_a_version_that_is_served_as_judged_becomes_champion(world: World) -> None:
    judged = promote(world)

    assert judged.champion.version == VERSION
    assert judged.champion.history[-1].cause == "job j"
    assert world.progress[-1].message == f"{VERSION} is champion"


def test_one_that_is_served_otherwise_is_refused_with_the_difference(world: World) -> None:
    judged = promote(world, off=1.0)

    assert judged.champion is None
    assert "token 1" in judged.refusal.detail
    assert judged.refusal.detail in world.progress[-1].message
    assert registry.champion(world.store, RECIPE) is None


def test_nobody_becomes_champion_who_was_measured_against_another(world: World, tmp_path: Path) -> None:
    promote(world, "mv-later")
    wishes = Wishes(world.store)
    wishes.ask(RECIPE, VERSION)

    assert promote(world, asker=Asker(wishes, FakeClock(), 1.0)) is None

    current = registry.champion(world.store, RECIPE)
    assert current is not None
    assert current.version == "mv-later"
    assert wishes.find(RECIPE, VERSION) is None, "no server is kept for it"


def test_an_attempt_after_the_alias_moved_finds_it_in_place(world: World) -> None:
    promote(world)

    judged = promote(world, off=1.0)

    assert (judged.champion.version, judged.champion.rev) == (VERSION, 1)


def test_an_attempt_after_the_alias_moved_leaves_alone_what_was_done_to_it_since(world: World) -> None:
    promote(world)
    registry.promote(
        world.store, FakeClock(), RECIPE, "mv-later", cause="hand", expected=None, served_as_judged=lambda *_: None
    )

    judged = promote(world)

    assert (judged.champion.version, judged.champion.rev) == ("mv-later", 2)


def test_the_worker_tells_who_became_champion(world: World) -> None:
    outcome = work(world)

    assert isinstance(outcome, Outcome)
    assert (outcome.result["promoted"], outcome.result["version"]["id"]) == (True, VERSION)
    assert [kind for kind, _, _ in outcome.events] == ["tunesmith.ModelPromoted.v1"]


def test_the_worker_hands_back_to_the_judge_when_the_champion_is_another_by_now(world: World) -> None:
    promote(world, "mv-later")

    assert work(world) == HandOver("judge", {})
