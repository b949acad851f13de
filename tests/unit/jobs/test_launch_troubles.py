"""A platform that refuses, delays or kills a worker: each becomes the job's state, with the reason and the fix."""

from __future__ import annotations

import pytest

from tunesmith.domain.errors import FailedPrecondition, PermissionRefused, ResourceExhausted, Unavailable
from tunesmith.domain.jobs import Job
from tunesmith.jobs.hosts import Hosts
from tunesmith.jobs.losses import MAX_FAILURES
from tunesmith.jobs.reconciler import JobKind, Reconciler
from tunesmith.jobs.refusals import PATIENCE_S
from tunesmith.jobs.worker import EXIT_MISCONFIGURED, EXIT_OUT_OF_MEMORY
from tunesmith.ports.launcher import OUT_OF_MEMORY, LaunchStatus

MEMORY_KILL = LaunchStatus("exited", -9, "step 7\n", OUT_OF_MEMORY, "wanted more than its limit: raise memory")
NO_IMAGE = LaunchStatus("running", None, "", "IMAGE_NOT_PULLED", "the image cannot be pulled: correct the setting")


def running(workshop, kind: str = "tune") -> str:
    """A job's launch that has begun."""
    workshop.jobs.submit(job_id="j1", kind=kind, service="trainer", request={})
    workshop.reconciler.tick()
    return f"{kind}-j1-1"


def job(workshop) -> Job:
    return workshop.jobs.get("j1")


def another(workshop) -> Reconciler:
    """A replica's reconciler on the same jobs and the same cluster."""
    return Reconciler(
        jobs=workshop.jobs,
        bus=workshop.bus,
        launcher=workshop.launcher,
        clock=workshop.clock,
        kinds={"tune": JobKind(("work",), slot="model", max_parallel=1)},
        worker_env={},
        hosts=Hosts(workshop.store, workshop.clock, host="", services=["trainer"]),
    )


def ticks_until_ended(workshop, *, at_most_s: float) -> float:
    """Tick every second until the job has ended; for how long."""
    passed_s = 0.0
    while not job(workshop).is_terminal:
        assert passed_s <= at_most_s, f"not ended after {passed_s} s"
        workshop.clock.advance(1)
        passed_s += 1
        workshop.reconciler.tick()
    return passed_s


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionRefused("may not create Jobs: give it the Role", reason="FORBIDDEN"), "PERMISSION_DENIED"),
        (FailedPrecondition("no namespace: create it", reason="NAMESPACE_MISSING"), "FAILED_PRECONDITION"),
        (ResourceExhausted("quota is used up: raise it", reason="QUOTA_EXHAUSTED"), "RESOURCE_EXHAUSTED"),
        (Unavailable("the API server does not answer"), "UNAVAILABLE"),
    ],
)
def test_a_launch_that_is_refused_for_too_long_fails_the_job_with_the_reason(workshop, monkeypatch, error, code):
    tries = []

    def refuse(name: str, *_: object, **__: object) -> None:
        tries.append(name)
        raise error

    monkeypatch.setattr(workshop.launcher, "launch", refuse)
    running(workshop)
    assert workshop.jobs.progress("j1").message == f"{error.reason}: {error.message}"

    patience_s = PATIENCE_S[type(error)]
    passed_s = ticks_until_ended(workshop, at_most_s=patience_s + 20)

    assert passed_s >= patience_s
    assert len(tries) < 10 + patience_s / 10, "the platform is not asked all the time"
    ended = job(workshop)
    assert (ended.phase, ended.error.code, ended.error.reason) == ("failed", code, error.reason)
    assert error.message in ended.error.message


def test_a_launch_that_is_refused_for_a_while_goes_on(workshop, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(workshop.launcher, "launch", lambda *_, **__: (_ for _ in ()).throw(Unavailable("away")))
        running(workshop)
        workshop.clock.advance(30)
        workshop.reconciler.tick()
    workshop.clock.advance(30)
    workshop.reconciler.tick()

    assert job(workshop).phase == "running"
    assert workshop.launcher.launched == ["tune-j1-1"]


def test_a_job_that_cannot_be_launched_can_be_cancelled(workshop, monkeypatch):
    monkeypatch.setattr(workshop.launcher, "launch", lambda *_, **__: (_ for _ in ()).throw(Unavailable("away")))
    running(workshop)
    workshop.jobs.change("j1", lambda j: workshop.jobs.step(j, cancel_requested=True))

    workshop.reconciler.tick()

    assert job(workshop).phase == "cancelled"


def test_why_a_launch_has_not_begun_is_shown_as_progress(workshop):
    name = running(workshop)
    workshop.launcher.end(name, NO_IMAGE)

    workshop.reconciler.tick()

    progress = workshop.jobs.progress("j1")
    assert (job(workshop).phase, progress.stage) == ("running", "waiting")
    assert progress.message == "IMAGE_NOT_PULLED: the image cannot be pulled: correct the setting"


def test_a_stuck_launch_is_stopped_and_its_job_fails_with_the_reason(workshop):
    name = running(workshop)
    workshop.launcher.end(name, LaunchStatus("stuck", None, "", NO_IMAGE.reason, NO_IMAGE.message))

    workshop.reconciler.tick()

    ended = job(workshop)
    assert workshop.launcher.stopped == [name]
    assert workshop.launcher.retired == [name]
    assert (ended.phase, ended.error.code, ended.error.reason) == ("failed", "FAILED_PRECONDITION", "IMAGE_NOT_PULLED")
    assert ended.error.message == NO_IMAGE.message


def test_to_another_replica_a_stuck_launch_that_is_being_stopped_is_never_a_lost_one(workshop, monkeypatch):
    name = running(workshop)
    workshop.launcher.end(name, LaunchStatus("stuck", None, "", NO_IMAGE.reason, NO_IMAGE.message))
    stop = workshop.launcher.stop

    def stop_while_another_looks(name: str, *, grace_s: float) -> None:
        stop(name, grace_s=grace_s)
        workshop.launcher.end(name, LaunchStatus("lost"))
        another(workshop).tick()

    monkeypatch.setattr(workshop.launcher, "stop", stop_while_another_looks)
    workshop.reconciler.tick()

    assert (job(workshop).phase, job(workshop).error.reason) == ("failed", "IMAGE_NOT_PULLED")
    assert workshop.launcher.launched == [name]


@pytest.mark.parametrize("found", ["stuck", "running"])
def test_a_launch_that_has_not_begun_is_stopped_where_whoever_ended_its_job_died_first(workshop, monkeypatch, found):
    name = running(workshop)
    workshop.launcher.end(name, LaunchStatus("stuck", None, "", NO_IMAGE.reason, NO_IMAGE.message))
    with monkeypatch.context() as patch:
        patch.setattr(workshop.launcher, "stop", lambda *_, **__: (_ for _ in ()).throw(Unavailable("killed here")))
        workshop.reconciler.tick()
    assert (job(workshop).phase, workshop.launcher.stopped) == ("failed", [])
    workshop.launcher.end(name, LaunchStatus(found, None, "", NO_IMAGE.reason, NO_IMAGE.message))

    another(workshop).tick()

    assert workshop.launcher.stopped == [name]
    assert list(workshop.jobs.active_ids()) == []


@pytest.mark.parametrize("kill", [MEMORY_KILL, LaunchStatus("exited", EXIT_OUT_OF_MEMORY)])
def test_a_training_that_was_killed_for_its_memory_is_tried_with_less_and_not_blamed(workshop, kill):
    for attempt in range(1, MAX_FAILURES + 2):
        workshop.launcher.end(running(workshop).replace("-1", f"-{attempt}"), kill)
        workshop.reconciler.tick()
        workshop.reconciler.tick()

    after = job(workshop)
    assert (after.phase, after.failures, after.memory_kills) == ("running", 0, MAX_FAILURES + 1)


def test_other_work_that_is_killed_for_its_memory_fails_at_last_and_says_what_to_raise(workshop):
    running(workshop, "curate")
    for attempt in range(1, MAX_FAILURES + 1):
        workshop.launcher.end(f"curate-j1-{attempt}", MEMORY_KILL)
        for _ in range(3):
            workshop.reconciler.tick()
            workshop.clock.advance(60)

    ended = job(workshop)
    assert (ended.phase, ended.error.code, ended.error.reason) == ("failed", "RESOURCE_EXHAUSTED", OUT_OF_MEMORY)
    assert "raise memory" in ended.error.message


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (LaunchStatus("exited", -15, "", "DEADLINE_EXCEEDED", "too long", fatal=True), *["DEADLINE_EXCEEDED"] * 2),
        (LaunchStatus("exited", EXIT_MISCONFIGURED, "no such url\n"), "FAILED_PRECONDITION", "WORKER_MISCONFIGURED"),
    ],
)
def test_what_would_end_the_same_again_is_not_tried_again(workshop, status, code, reason):
    workshop.launcher.end(running(workshop), status)

    workshop.reconciler.tick()

    assert (job(workshop).error.code, job(workshop).error.reason) == (code, reason)
    assert len(workshop.launcher.launched) == 1


def test_how_the_last_attempt_ended_stands_in_the_jobs_state(workshop):
    workshop.launcher.end(running(workshop), MEMORY_KILL)

    workshop.reconciler.tick()

    assert Job.from_json(job(workshop).to_json(), key="k").last_loss == {
        "attempt": 1,
        "reason": OUT_OF_MEMORY,
        "message": MEMORY_KILL.message,
        "exit_code": -9,
        "log_tail": "step 7\n",
    }
