"""The worker's side: an outcome is written once, by the attempt that still holds the job."""

from __future__ import annotations

import errno

import pytest

from tunesmith.domain.errors import Interrupted, NoUsableRows, StoreUnavailable
from tunesmith.domain.jobs import Progress
from tunesmith.jobs import worker
from tunesmith.jobs.losses import MAX_FAILURES
from tunesmith.jobs.worker import EXIT_FENCED, EXIT_INTERRUPTED, EXIT_UNAVAILABLE, Outcome, run_worker
from tunesmith.ports.launcher import LaunchStatus


@pytest.fixture
def running(workshop):
    workshop.jobs.submit(job_id="j1", kind="tune", service="trainer", request={"n": 1})
    workshop.reconciler.tick()
    return workshop


def work_on(workshop, work, epoch=1):
    return run_worker("j1", epoch, work, jobs=workshop.jobs, clock=workshop.clock)


def test_an_outcome_and_its_events_are_one_step(running):
    outcome = Outcome({"n": 2}, [("tunesmith.RunSucceeded.v1", "j1", {"n": 2})])

    assert work_on(running, lambda _: outcome) == 0

    job = running.jobs.get("j1")
    assert (job.phase, job.result["n"], [e.data for e in job.outbox]) == ("succeeded", 2, [{"n": 2}])
    assert job.result["usage"]["cpu_s"] > 0


@pytest.mark.parametrize("error", [StoreUnavailable("the store is away"), NoUsableRows("none")])
def test_a_store_that_goes_away_is_not_the_jobs_failure(running, monkeypatch, error):
    def away(*_, **__):
        raise StoreUnavailable("the store is away")

    def work(_):
        monkeypatch.setattr(running.jobs, "change", away)
        raise error

    assert work_on(running, work) == EXIT_UNAVAILABLE
    monkeypatch.undo()
    for _ in range(2 * MAX_FAILURES):
        attempt = running.jobs.get("j1").attempt
        running.launcher.end(f"tune-j1-{attempt}", LaunchStatus("exited", EXIT_UNAVAILABLE))
        running.reconciler.tick()
        running.reconciler.tick()

    job = running.jobs.get("j1")
    assert (job.phase, job.failures, job.attempt) == ("running", 0, 1 + 2 * MAX_FAILURES)


def test_an_older_attempt_does_not_even_begin(running):
    def work(_):
        raise AssertionError("must not run")

    assert work_on(running, work, epoch=0) == EXIT_FENCED


def test_an_attempt_that_was_taken_over_meanwhile_writes_nothing(running):
    def work(_):
        running.jobs.change("j1", lambda j: running.jobs.step(j, epoch=2, attempt=2))
        return Outcome({"late": True})

    assert work_on(running, work) == EXIT_FENCED
    assert running.jobs.get("j1").result is None


def test_an_attempt_that_was_taken_over_is_told_to_stop(running, monkeypatch):
    monkeypatch.setattr(worker, "FENCE_INTERVAL_S", 0.01)

    def work(context):
        running.jobs.change("j1", lambda j: running.jobs.step(j, epoch=2, attempt=2))
        assert context._stop.wait(30)
        raise Interrupted("stopped between two steps")

    assert work_on(running, work) == EXIT_INTERRUPTED
    assert running.jobs.get("j1").epoch == 2


def test_a_domain_error_is_the_jobs_failure(running):
    def work(_):
        raise NoUsableRows("3 records came in, 3 were dropped", metadata={"empty": "3"})

    assert work_on(running, work) == 0

    job = running.jobs.get("j1")
    assert (job.phase, job.error.code, job.error.reason) == ("failed", "FAILED_PRECONDITION", "NO_USABLE_ROWS")
    assert job.error.metadata == {"empty": "3"}
    assert job.outbox[0].type == "tunesmith.JobFailed.v1"


def test_an_interrupted_attempt_leaves_the_job_to_the_next(running):
    def work(_):
        raise Interrupted("saved at step 20")

    assert work_on(running, work) == EXIT_INTERRUPTED
    assert running.jobs.get("j1").phase == "running"


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write: No space left on device (os error 28)")],
)
def test_a_full_disk_is_called_by_its_name(running, error):
    def work(_):
        raise error

    assert work_on(running, work) == 0

    job = running.jobs.get("j1")
    assert (job.error.code, job.error.reason) == ("RESOURCE_EXHAUSTED", "DISK_FULL")


def test_an_unexpected_error_ends_the_process_loudly(running):
    def work(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work_on(running, work)


def test_progress_is_throttled_but_a_stage_begins_and_ends_at_once(running):
    seen = []
    write = running.jobs.write_progress
    running.jobs.write_progress = lambda job_id, progress: (seen.append(progress.done), write(job_id, progress))

    def work(context):
        for step in range(1, 101):
            context.report(Progress("tune", done=step, total=100, unit="steps"))
        return Outcome({})

    work_on(running, work)

    assert seen == [1, 100]
    assert running.jobs.progress("j1").done == 100
