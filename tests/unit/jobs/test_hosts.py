"""Two replicas of a service over one job store: a job has one host at a time, and outlives it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count

import pytest

from contract.deadline import eventually
from doubles.fake_clock import FakeClock
from doubles.recording_launcher import RecordingLauncher
from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.sqlite_bus import SqliteBus
from tunesmith.adapters.subprocess_launcher import SubprocessLauncher
from tunesmith.domain import keys
from tunesmith.domain.errors import Unavailable
from tunesmith.jobs.hosts import FORGOTTEN_AFTER, Hosts
from tunesmith.jobs.reconciler import JobKind, Reconciler
from tunesmith.jobs.state import JobStore
from tunesmith.ports.launcher import LaunchStatus

LIMIT_S = 20.0


class Replica:
    """One process of the trainer: a clock, a launcher and a reconciler of its own, over the store of all."""

    def __init__(self, root, store, name: str, launcher=None, argv=("work",)) -> None:
        self.clock = FakeClock()
        self.launcher = launcher or RecordingLauncher(name)
        self.bus = SqliteBus(root / "bus.sqlite", clock=self.clock)
        self.bus.ensure_topics(["tunesmith.trainer", "tunesmith.scraper"])
        self.jobs = JobStore(store, self.clock)
        self.hosts = Hosts(store, self.clock, host=self.launcher.scope, services=["trainer"], lost_after_s=LIMIT_S)
        self.reconciler = Reconciler(
            jobs=self.jobs,
            bus=self.bus,
            launcher=self.launcher,
            clock=self.clock,
            kinds={
                "tune": JobKind(argv, slot="model", max_parallel=1),
                "collect": JobKind(argv, slot="collect", max_parallel=1, everywhere=True),
            },
            worker_env={},
            hosts=self.hosts,
        )

    def tick(self) -> None:
        self.reconciler.tick()

    def see(self, other: Replica | None = None, *, seconds: float) -> None:
        """Let time pass for this replica; `other` beats all along."""
        for _ in range(int(seconds)):
            if other is not None:
                other.hosts.beat()
            self.clock.advance(1)
            self.tick()


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def replica(tmp_path, store) -> Iterator[Callable[..., Replica]]:
    made: list[Replica] = []

    def make(name: str, **parts) -> Replica:
        made.append(Replica(tmp_path, store, name, **parts))
        return made[-1]

    yield make
    for one in made:
        one.bus.close()


@pytest.fixture
def pair(replica) -> tuple[Replica, Replica]:
    return replica("a"), replica("b")


def submit(replica: Replica, job_id="j1", kind="tune"):
    service = "scraper" if kind == "collect" else "trainer"
    return replica.jobs.submit(job_id=job_id, kind=kind, service=service, request={})[0]


def finish(replica: Replica, job_id="j1") -> None:
    event = ("tunesmith.RunSucceeded.v1", job_id, {"run_id": "r"})
    replica.jobs.change(job_id, lambda j: replica.jobs.step(j, phase="succeeded", result={}, events=[event]))


def test_a_running_job_is_left_to_the_host_that_launched_it(pair):
    a, b = pair
    submit(a)
    a.tick()

    b.see(a, seconds=10 * LIMIT_S)

    job = b.jobs.get("j1")
    assert (job.phase, job.host, job.epoch) == ("running", "a", 1)
    assert b.launcher.launched == []


def test_the_job_of_a_silent_host_is_taken_over_and_its_worker_fenced_off(pair):
    a, b = pair
    submit(a)
    a.tick()
    a.hosts.beat()

    b.see(seconds=LIMIT_S - 1)
    assert b.launcher.launched == []
    b.see(seconds=4)

    job = b.jobs.get("j1")
    assert (job.phase, job.host, job.attempt, job.failures) == ("running", "b", 2, 0)
    assert job.epoch > 2, "already the step that took the job away from its host fences its worker off"
    assert b.launcher.launched == ["tune-j1-2"]


def test_a_job_that_was_only_about_to_be_launched_is_taken_over_too(pair):
    a, b = pair
    submit(a)
    a.jobs.change("j1", lambda j: a.jobs.step(j, phase="launching", attempt=1, epoch=1, host="a"))

    b.see(seconds=LIMIT_S + 4)

    assert b.launcher.launched == ["tune-j1-2"]


def test_wall_clocks_that_are_minutes_apart_change_nothing(pair):
    a, b = pair
    b.clock.set_wall(a.clock.now() + timedelta(minutes=7))
    submit(a)
    a.tick()

    b.see(a, seconds=3 * LIMIT_S)
    assert b.jobs.get("j1").host == "a"
    b.see(seconds=LIMIT_S + 4)
    assert b.jobs.get("j1").host == "b"


def test_a_back_off_lasts_as_long_on_a_clock_that_is_minutes_behind(pair):
    a, b = pair
    submit(a)
    a.tick()
    a.launcher.end("tune-j1-1", LaunchStatus("exited", 1, "boom"))
    b.clock.set_wall(a.clock.now() - timedelta(minutes=7))
    a.tick()
    assert b.jobs.get("j1").not_before

    b.see(seconds=1)
    assert b.launcher.launched == []
    b.see(seconds=3)
    assert b.launcher.launched == ["tune-j1-2"]


def test_a_store_that_was_away_makes_no_host_look_dead(pair, monkeypatch):
    a, b = pair
    submit(a)
    a.tick()
    a.hosts.beat()
    b.see(seconds=2)

    def away(*_, **__):
        raise Unavailable("no store")

    with monkeypatch.context() as patch:
        patch.setattr(b.hosts._store, "get", away)
        b.clock.advance(100 * LIMIT_S)
        with pytest.raises(Unavailable):
            b.tick()
    b.tick()

    assert b.jobs.get("j1").host == "a"
    b.see(a, seconds=LIMIT_S)
    assert b.jobs.get("j1").host == "a"


def test_a_replica_that_was_suspended_does_not_take_the_others_for_dead(pair):
    a, b = pair
    submit(a)
    a.tick()
    a.hosts.beat()
    b.see(seconds=2)

    b.clock.advance(3600)
    b.tick()

    assert b.jobs.get("j1").host == "a"


def test_a_host_that_comes_back_stops_the_worker_whose_job_was_taken_over(pair):
    a, b = pair
    submit(a)
    a.tick()
    b.see(seconds=LIMIT_S + 4)

    a.tick()
    assert a.launcher.stopped == [], "it is none of its business any more"
    a.reconciler.keep_house()

    assert a.launcher.stopped == ["tune-j1-1"]
    assert b.jobs.get("j1").host == "b"


def test_a_host_that_comes_back_forgets_launches_of_jobs_that_succeeded_elsewhere(pair):
    a, b = pair
    submit(a)
    a.tick()
    a.launcher.end("tune-j1-1", LaunchStatus("lost"))
    b.see(seconds=LIMIT_S + 4)
    finish(b)

    a.reconciler.keep_house()

    assert a.launcher.names() == []


def test_the_outcome_of_a_lost_host_is_published_and_settled(pair):
    a, b = pair
    submit(a)
    a.tick()
    finish(a)

    b.see(seconds=LIMIT_S - 2)
    assert len(b.jobs.get("j1").outbox) == 1, "its own host would publish it twice"
    b.see(seconds=6)

    assert b.jobs.get("j1").outbox == ()
    assert list(b.jobs.active_ids()) == []


def test_a_cancellation_reaches_the_host_that_runs_the_job(pair):
    a, b = pair
    submit(a)
    a.tick()
    b.jobs.change("j1", lambda j: b.jobs.step(j, cancel_requested=True))

    b.see(a, seconds=2)
    assert b.jobs.get("j1").phase == "running"
    a.tick()

    assert a.launcher.stopped == ["tune-j1-1"]
    assert b.jobs.get("j1").phase == "cancelled"


def test_a_job_that_is_to_be_cancelled_ends_with_its_lost_host(pair):
    a, b = pair
    submit(a)
    a.tick()
    a.jobs.change("j1", lambda j: a.jobs.step(j, cancel_requested=True))

    b.see(seconds=LIMIT_S + 4)

    assert b.jobs.get("j1").phase == "cancelled"
    assert b.launcher.launched == []


def test_a_host_that_ends_in_order_hands_its_jobs_over_at_once(pair, store):
    a, b = pair
    submit(a)
    a.tick()
    a.hosts.beat()

    a.reconciler.stop_workers(grace_s=1)
    a.reconciler.settle_ended()
    b.tick()

    job = b.jobs.get("j1")
    assert (job.phase, job.host, job.attempt, job.failures) == ("running", "b", 2, 0)
    assert not store.exists(keys.host("a"))


def test_each_host_has_its_own_limit_of_jobs_at_once(pair):
    a, b = pair
    for number in range(3):
        submit(a, f"j{number}")
        for one in pair:
            one.clock.advance(1)

    a.tick()
    b.tick()
    a.tick()
    b.tick()

    assert (a.launcher.launched, b.launcher.launched) == (["tune-j0-1"], ["tune-j1-1"])


def test_a_limit_that_holds_everywhere_is_kept_by_all_hosts_together(pair):
    a, b = pair
    submit(a, "first", kind="collect")
    submit(a, "second", kind="collect")

    a.tick()
    b.tick()

    assert (a.launcher.launched, b.launcher.launched) == (["collect-first-1"], [])


def test_of_two_hosts_that_take_the_last_place_at_once_one_steps_back(pair, monkeypatch):
    a, b = pair
    submit(a, "first", kind="collect")
    submit(a, "second", kind="collect")
    move = b.reconciler._move
    overtaken = count()

    def move_a_moment_late(job, expected, **changes):
        if changes.get("phase") == "launching" and next(overtaken) == 0:
            a.tick()  # launches the first while b, which saw neither under way, is about to take the second
        return move(job, expected, **changes)

    active = b.reconciler._active
    monkeypatch.setattr(b.reconciler, "_move", move_a_moment_late)
    with monkeypatch.context() as patch:
        looks = count()
        patch.setattr(
            b.reconciler,
            "_active",
            lambda: [job for job in active() if job.id == "second"] if next(looks) == 0 else active(),
        )
        b.tick()

    assert (a.launcher.launched, b.launcher.launched) == (["collect-first-1"], [])
    assert b.jobs.get("second").phase == "queued"


def test_launches_that_every_replica_sees_are_everyones(replica):
    cluster = RecordingLauncher()
    a, b = replica("", launcher=cluster), replica("", launcher=cluster)
    submit(a)
    a.tick()
    cluster.end("tune-j1-1", LaunchStatus("lost"))

    b.tick()
    b.tick()

    assert cluster.launched == ["tune-j1-1", "tune-j1-2"]


def test_a_heartbeat_of_long_ago_is_removed(pair, store):
    a, b = pair
    a.hosts.beat()
    for _ in range(int(FORGOTTEN_AFTER * LIMIT_S / 4) + 2):
        b.reconciler.keep_house()
        b.clock.advance(4)

    assert not store.exists(keys.host("a"))


def test_a_data_folder_that_was_copied_is_noticed(replica, caplog):
    a, copy = replica("a"), replica("a")
    for _ in range(3):
        a.hosts.beat()
        copy.hosts.beat()

    assert [r.levelname for r in caplog.records if "in use twice, or was copied" in r.message] == ["ERROR", "ERROR"]


def test_an_unreadable_heartbeat_is_written_anew(replica, store):
    a = replica("a")
    store.put(keys.host("a"), b"{")

    a.hosts.beat()
    a.hosts.beat()

    assert b"trainer" in store.get(keys.host("a")).data


ENDLESS = (sys.executable, "-c", "import signal; signal.pause()")


def test_real_processes_are_seen_by_their_own_host_only_and_fenced_off_when_it_is_lost(replica, tmp_path):
    a = replica("a", launcher=SubprocessLauncher(tmp_path / "a"), argv=ENDLESS)
    b = replica("b", launcher=SubprocessLauncher(tmp_path / "b"), argv=ENDLESS)
    try:
        submit(a)
        a.tick()
        b.see(a, seconds=2 * LIMIT_S)
        assert b.launcher.names() == []
        assert a.launcher.status("tune-j1-1").state == "running"

        b.see(seconds=LIMIT_S + 4)
        assert b.launcher.status("tune-j1-2").state == "running"

        a.reconciler.keep_house()
        eventually(lambda: a.launcher.status("tune-j1-1").state == "exited")
        assert b.jobs.get("j1").host == b.launcher.scope
    finally:
        for one in (a, b):
            for name in one.launcher.names():
                one.launcher.stop(name, grace_s=0)


def test_the_name_of_a_host_outlives_a_restart(tmp_path):
    names = {SubprocessLauncher(tmp_path / folder).scope for folder in ("a", "a", "b")}

    assert len(names) == 2
