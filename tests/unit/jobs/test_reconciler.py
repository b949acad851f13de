"""The reconciler: every row of the crash table, played by hand."""

from __future__ import annotations

import json

import pytest

from tunesmith.domain import keys
from tunesmith.domain.errors import InvalidInput, Unavailable
from tunesmith.domain.jobs import Job
from tunesmith.jobs.losses import MAX_ATTEMPTS, MAX_FAILURES
from tunesmith.jobs.reconciler import FORGET_MARKER_S, launch_name
from tunesmith.jobs.worker import EXIT_INTERRUPTED
from tunesmith.ports.launcher import LaunchStatus

CRASHED = LaunchStatus("exited", 1, "Traceback ... ValueError: boom")
KILLED = LaunchStatus("exited", -9)
LOST = LaunchStatus("lost")


def submit(workshop, job_id="j1", kind="tune") -> Job:
    return workshop.jobs.submit(job_id=job_id, kind=kind, service="trainer", request={})[0]


def finish(workshop, job_id="j1", **changes) -> None:
    event = ("tunesmith.RunSucceeded.v1", job_id, {"run_id": "r"})
    step = {"phase": "succeeded", "result": {"run": "r"}, "events": [event], **changes}
    workshop.jobs.change(job_id, lambda j: workshop.jobs.step(j, **step))


def test_a_queued_job_is_launched_once(workshop):
    submit(workshop)

    workshop.reconciler.tick()
    workshop.reconciler.tick()

    job = workshop.jobs.get("j1")
    assert (job.phase, job.attempt, job.epoch) == ("running", 1, 1)
    assert workshop.launcher.launched == ["tune-j1-1"]
    assert workshop.launcher.argv["tune-j1-1"] == ["work", "j1", "1"]


def test_a_finished_job_publishes_its_events_and_is_forgotten(workshop):
    submit(workshop)
    workshop.reconciler.tick()
    finish(workshop)

    workshop.reconciler.tick()
    assert workshop.launcher.names() == ["tune-j1-1"], "its process is on its way out"
    workshop.launcher.end("tune-j1-1", LaunchStatus("exited", 0))
    workshop.reconciler.tick()

    assert [event.type for event in workshop.published()] == ["tunesmith.RunSucceeded.v1"]
    assert workshop.jobs.get("j1").outbox == ()
    assert list(workshop.jobs.active_ids()) == []
    assert workshop.launcher.names() == []


def test_dying_between_publishing_and_forgetting_repeats_the_same_event_id(workshop):
    submit(workshop)
    workshop.reconciler.tick()
    finish(workshop)
    outbox = workshop.jobs.get("j1").outbox
    workshop.bus.publish("tunesmith.trainer", outbox)

    workshop.reconciler.tick()

    assert [event.id for event in workshop.published()] == [outbox[0].id, outbox[0].id]


def test_dying_between_deciding_and_launching_launches_the_same_name(workshop):
    submit(workshop)
    workshop.jobs.change("j1", lambda j: workshop.jobs.step(j, phase="launching", attempt=1, epoch=1))

    workshop.reconciler.tick()

    assert workshop.launcher.launched == ["tune-j1-1"]
    assert workshop.jobs.get("j1").phase == "running"


@pytest.mark.parametrize("status", [KILLED, LOST, LaunchStatus("exited", EXIT_INTERRUPTED)])
def test_a_worker_that_was_killed_is_launched_again_and_not_blamed(workshop, status):
    submit(workshop)
    workshop.reconciler.tick()
    workshop.launcher.end("tune-j1-1", status)

    workshop.reconciler.tick()
    workshop.reconciler.tick()

    job = workshop.jobs.get("j1")
    assert (job.phase, job.attempt, job.epoch, job.failures) == ("running", 2, 2, 0)
    assert workshop.launcher.launched == ["tune-j1-1", "tune-j1-2"]


def test_a_worker_that_crashes_is_tried_again_after_a_while_and_then_given_up(workshop):
    submit(workshop)
    for attempt in range(1, MAX_FAILURES + 1):
        workshop.reconciler.tick()
        workshop.launcher.end(f"tune-j1-{attempt}", CRASHED)
        workshop.reconciler.tick()
        workshop.reconciler.tick()
        assert len(workshop.launcher.launched) == attempt, "not before the back-off has passed"
        workshop.clock.advance(60)

    job = workshop.jobs.get("j1")
    assert (job.phase, job.error.reason) == ("failed", "WORKER_CRASHED")
    assert "ValueError: boom" in job.error.message
    assert [event.type for event in workshop.published()] == ["tunesmith.JobFailed.v1"]


def test_endless_losses_end_at_last(workshop):
    submit(workshop)
    for _ in range(3 * MAX_ATTEMPTS):
        workshop.reconciler.tick()
        if workshop.launcher.launched:
            workshop.launcher.end(workshop.launcher.launched[-1], LOST)

    assert workshop.jobs.get("j1").phase == "failed"
    assert len(workshop.launcher.launched) == MAX_ATTEMPTS


def test_a_worker_that_ended_with_a_result_just_now_is_not_called_lost(workshop):
    submit(workshop)
    workshop.reconciler.tick()
    job = workshop.jobs.get("j1")
    finish(workshop)
    workshop.launcher.end(launch_name(job), LaunchStatus("exited", 0))

    workshop.reconciler._supervise(job)

    assert workshop.jobs.get("j1").phase == "succeeded"


def test_jobs_of_one_slot_wait_for_each_other_in_order(workshop):
    for number in range(3):
        submit(workshop, f"j{number}", kind="judge" if number == 1 else "tune")
        workshop.clock.advance(1)

    workshop.reconciler.tick()
    assert workshop.launcher.launched == ["tune-j0-1"]
    finish(workshop, "j0")
    workshop.reconciler.tick()
    workshop.reconciler.tick()

    assert workshop.launcher.launched == ["tune-j0-1", "judge-j1-1"]


def test_other_slots_do_not_wait(workshop):
    submit(workshop, "a", kind="tune")
    submit(workshop, "b", kind="curate")

    workshop.reconciler.tick()

    assert sorted(workshop.launcher.launched) == ["curate-b-1", "tune-a-1"]


def test_a_queued_job_is_cancelled_without_being_launched(workshop):
    submit(workshop)
    workshop.jobs.change("j1", lambda j: workshop.jobs.step(j, cancel_requested=True))

    workshop.reconciler.tick()

    assert workshop.jobs.get("j1").phase == "cancelled"
    assert workshop.launcher.launched == []


def test_a_running_job_is_stopped_and_its_worker_fenced_off(workshop):
    submit(workshop)
    workshop.reconciler.tick()
    workshop.jobs.change("j1", lambda j: workshop.jobs.step(j, cancel_requested=True))

    workshop.reconciler.tick()

    job = workshop.jobs.get("j1")
    assert workshop.launcher.stopped == ["tune-j1-1"]
    assert (job.phase, job.epoch) == ("cancelled", 2)


def test_a_corrupt_job_does_not_hold_up_the_others(workshop, caplog):
    submit(workshop, "bad")
    submit(workshop, "good")
    workshop.store.put(keys.job_state("bad"), b"{")

    workshop.reconciler.tick()
    workshop.reconciler.tick()

    assert workshop.launcher.launched == ["tune-good-1"]
    assert [r.message for r in caplog.records if "bad" in r.message and r.levelname == "ERROR"].__len__() == 1


def test_a_marker_without_a_job_goes_after_a_while(workshop):
    workshop.store.put(keys.active_job("ghost"), json.dumps({}).encode())

    workshop.reconciler.tick()
    workshop.clock.advance(FORGET_MARKER_S - 1)
    workshop.reconciler.tick()
    assert list(workshop.jobs.active_ids()) == ["ghost"], "its submitter may be writing the job right now"
    workshop.clock.advance(1)
    workshop.reconciler.tick()

    assert list(workshop.jobs.active_ids()) == []


def test_a_bus_that_does_not_answer_keeps_events_in_the_outbox(workshop, monkeypatch):
    submit(workshop)
    workshop.reconciler.tick()
    finish(workshop)

    def refuse(*_):
        raise Unavailable("no broker")

    with monkeypatch.context() as patch:
        patch.setattr(workshop.bus, "publish", refuse)
        workshop.reconciler.tick()
    assert len(workshop.jobs.get("j1").outbox) == 1
    workshop.reconciler.tick()

    assert len(workshop.published()) == 1


def test_a_worker_that_can_never_start_fails_the_job(workshop, monkeypatch):
    submit(workshop)

    def refuse(*_, **__):
        raise InvalidInput("no such program: work")

    monkeypatch.setattr(workshop.launcher, "launch", refuse)
    workshop.reconciler.tick()

    job = workshop.jobs.get("j1")
    assert (job.phase, job.error.reason) == ("failed", "WORKER_NOT_STARTABLE")


def test_the_end_of_a_process_publishes_what_is_left_and_launches_nothing(workshop):
    submit(workshop, "done")
    workshop.reconciler.tick()
    finish(workshop, "done")
    submit(workshop, "waiting")

    workshop.reconciler.settle_ended()

    assert [event.subject for event in workshop.published()] == ["done"]
    assert workshop.jobs.get("done").outbox == ()
    assert workshop.launcher.launched == ["tune-done-1"]


def test_the_end_of_a_process_waits_for_a_worker_that_is_still_on_its_way_out(workshop):
    submit(workshop)
    workshop.reconciler.tick()
    finish(workshop)
    workshop.reconciler.tick()
    assert list(workshop.jobs.active_ids()) == ["j1"]

    workshop.reconciler.stop_workers(grace_s=1)
    workshop.reconciler.settle_ended()

    assert workshop.launcher.stopped == ["tune-j1-1"]
    assert list(workshop.jobs.active_ids()) == []


def test_jobs_of_other_services_are_left_alone(workshop):
    workshop.jobs.submit(job_id="j1", kind="collect", service="scraper", request={})

    workshop.reconciler.tick()

    assert workshop.jobs.get("j1").phase == "queued"


def queue(workshop, job_id, priority=0, kind="tune") -> None:
    workshop.jobs.submit(job_id=job_id, kind=kind, service="trainer", request={}, priority=priority)
    workshop.clock.advance(1)


def test_of_the_jobs_that_wait_for_a_slot_the_highest_priority_goes_first_and_then_the_oldest(workshop):
    for job_id, priority in (("first", 0), ("low", -1), ("second", 0), ("urgent", 5)):
        queue(workshop, job_id, priority)

    launched = []
    for _ in range(4):
        workshop.reconciler.tick()
        launched = workshop.launcher.launched
        finish(workshop, launched[-1].split("-")[1])

    assert launched == ["tune-urgent-1", "tune-first-1", "tune-second-1", "tune-low-1"]


def test_a_higher_priority_does_not_push_out_what_runs(workshop):
    queue(workshop, "running")
    workshop.reconciler.tick()
    queue(workshop, "urgent", 100)

    workshop.reconciler.tick()

    assert workshop.launcher.launched == ["tune-running-1"]
    assert workshop.launcher.stopped == []


def test_a_job_that_fails_does_not_stop_the_queue(workshop):
    queue(workshop, "bad", 1)
    queue(workshop, "good")
    workshop.reconciler.tick()
    finish(workshop, "bad", phase="failed", result=None)

    workshop.reconciler.tick()

    assert workshop.launcher.launched == ["tune-bad-1", "tune-good-1"]


def test_joining_a_queued_job_with_a_higher_priority_raises_it_and_a_lower_one_does_not(workshop):
    def ask(priority: int) -> Job:
        return workshop.jobs.submit_by_content(kind="tune", service="trainer", request={"a": 1}, priority=priority)[0]

    first = ask(1)

    assert ask(7).priority == 7
    assert ask(2).priority == 7
    assert ask(2).id == first.id


def test_a_job_of_an_older_version_has_no_priority(workshop):
    row = submit(workshop).to_json()
    del row["priority"]

    assert Job.from_json(row, key="k").priority == 0
