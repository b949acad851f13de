"""A job whose work comes to a stage with other surroundings: queued as that stage, launched under its name."""

from __future__ import annotations

import pytest

from tunesmith.domain.jobs import Job
from tunesmith.jobs.losses import MAX_FAILURES
from tunesmith.jobs.worker import EXIT_FENCED, HandOver, Outcome, run_worker
from tunesmith.ports.launcher import LaunchStatus

ENDED = LaunchStatus("exited", 0)
JUDGED = ("tunesmith.ModelJudged.v1", "j1", {"passed": True})


@pytest.fixture
def judged(workshop):
    """A judge job whose first attempt has handed over and is on its way out."""
    workshop.jobs.submit(job_id="j1", kind="judge", service="trainer", request={"run": "r"})
    workshop.reconciler.tick()
    assert work_on(workshop, lambda _: HandOver("promote", {"version": "mv-1"}, [JUDGED])) == 0
    return workshop


def work_on(workshop, work, epoch=1):
    return run_worker("j1", epoch, work, jobs=workshop.jobs, clock=workshop.clock)


def test_the_rest_of_the_work_is_launched_under_the_stages_name_and_knows_what_came_before(judged):
    judged.reconciler.tick()

    job = judged.jobs.get("j1")
    assert (job.kind, job.work, job.phase, job.attempt) == ("judge", "promote", "running", 2)
    assert judged.launcher.launched == ["judge-j1-1", "promote-j1-2"]
    carried = []

    def promote(context):
        carried.append(context.job.stages[-1].carried)
        return Outcome({"promoted": True})

    assert work_on(judged, promote, epoch=2) == 0
    assert carried == [{"version": "mv-1"}]
    ended = judged.jobs.get("j1")
    assert (ended.phase, ended.result["promoted"]) == ("succeeded", True)
    assert ended.result["usage"]["cpu_s"] >= job.stages[0].usage["cpu_s"] > 0


def test_the_stage_leaves_the_place_of_the_work_before_to_others(judged):
    judged.jobs.submit(job_id="j2", kind="tune", service="trainer", request={})

    judged.reconciler.tick()

    assert judged.launcher.launched == ["judge-j1-1", "promote-j1-2", "tune-j2-1"]


def test_what_is_true_when_the_stage_begins_is_told_at_once(judged):
    judged.reconciler.tick()

    assert [event.type for event in judged.published()] == [JUDGED[0]]


def test_a_worker_that_has_handed_over_is_not_called_lost(judged):
    running = judged.jobs.get("j1")
    judged.launcher.end("judge-j1-1", ENDED)

    judged.reconciler.tick()

    job = judged.jobs.get("j1")
    assert (running.phase, job.failures, job.last_loss) == ("queued", 0, None)


def test_a_stage_that_is_killed_is_begun_again_without_the_work_before(judged):
    judged.reconciler.tick()
    judged.launcher.end("promote-j1-2", LaunchStatus("exited", -9))

    judged.reconciler.tick()
    judged.reconciler.tick()

    assert judged.launcher.launched == ["judge-j1-1", "promote-j1-2", "promote-j1-3"]
    assert judged.jobs.get("j1").stages[-1].carried == {"version": "mv-1"}


def test_failures_of_the_work_before_do_not_count_for_the_stage(workshop):
    workshop.jobs.submit(job_id="j1", kind="judge", service="trainer", request={})
    workshop.reconciler.tick()
    for attempt in range(1, MAX_FAILURES):
        workshop.launcher.end(f"judge-j1-{attempt}", LaunchStatus("exited", 1))
        workshop.reconciler.tick()
        workshop.reconciler.tick()
        workshop.clock.advance(60)
        workshop.reconciler.tick()
    assert workshop.jobs.get("j1").failures == MAX_FAILURES - 1

    assert work_on(workshop, lambda _: HandOver("promote", {}), epoch=MAX_FAILURES) == 0

    assert workshop.jobs.get("j1").failures == 0


def test_a_late_attempt_at_the_work_before_hands_over_nothing(judged):
    judged.reconciler.tick()

    assert work_on(judged, lambda _: HandOver("promote", {"version": "mv-2"}), epoch=1) == EXIT_FENCED

    assert len(judged.jobs.get("j1").stages) == 1


def test_a_stage_may_hand_back_and_every_launch_goes_when_the_job_has_succeeded(judged):
    judged.reconciler.tick()
    assert work_on(judged, lambda _: HandOver("judge", {}), epoch=2) == 0
    judged.reconciler.tick()
    assert work_on(judged, lambda _: Outcome({}), epoch=3) == 0
    assert judged.launcher.launched == ["judge-j1-1", "promote-j1-2", "judge-j1-3"]
    for name in judged.launcher.names():
        judged.launcher.end(name, ENDED)

    judged.reconciler.tick()

    assert judged.launcher.names() == []
    assert list(judged.jobs.active_ids()) == []


def test_a_job_that_waits_for_its_stage_can_be_cancelled(judged):
    judged.jobs.change("j1", lambda job: judged.jobs.step(job, cancel_requested=True))

    judged.reconciler.tick()

    assert judged.jobs.get("j1").phase == "cancelled"
    assert judged.launcher.launched == ["judge-j1-1"]


def test_the_end_of_a_process_waits_for_the_worker_that_has_handed_over(judged):
    judged.reconciler.stop_workers(grace_s=1)

    assert judged.launcher.stopped == ["judge-j1-1"]


def test_the_stages_are_part_of_the_state_object(judged):
    job = judged.jobs.get("j1")

    assert Job.from_json(job.to_json(), key="k") == job
    assert [job.work_of(attempt) for attempt in (1, 2)] == ["judge", "promote"]
