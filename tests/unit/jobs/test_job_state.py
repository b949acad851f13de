"""The job state object: one compare-and-swap a step, whatever the store answers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tunesmith.domain import keys
from tunesmith.domain.errors import Conflict, DataLoss, InvalidInput, NotFound, Unavailable
from tunesmith.domain.jobs import MAX_SEEN, Job
from tunesmith.jobs.state import JobStore
from tunesmith.ports.store import Store


def submit(jobs: JobStore, job_id: str = "j1", **request: object) -> Job:
    return jobs.submit(job_id=job_id, kind="tune", service="trainer", request=request)[0]


class LosingReplies:
    """A store that applies a write and then answers as if it had failed, as a retried HTTP request does."""

    def __init__(self, inner: Store, error: Exception) -> None:
        self.inner = inner
        self.error = error
        self.armed = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def create(self, key: str, data: bytes) -> str:
        version = self.inner.create(key, data)
        self._answer()
        return version

    def replace(self, key: str, data: bytes, *, version: str) -> str:
        version = self.inner.replace(key, data, version=version)
        self._answer()
        return version

    def _answer(self) -> None:
        if self.armed:
            self.armed = False
            raise self.error


def test_a_job_reads_back_as_it_was_written(workshop):
    job = submit(workshop.jobs, epochs=3)

    stepped = workshop.jobs.change(
        "j1", lambda j: workshop.jobs.step(j, phase="running", events=[("tunesmith.RunSucceeded.v1", "j1", {"n": 1})])
    )

    assert workshop.jobs.get("j1") == stepped
    assert (job.rev, stepped.rev) == (1, 2)
    assert stepped.writer != job.writer


def test_submitting_twice_makes_one_job(workshop):
    first, created = workshop.jobs.submit(job_id="j1", kind="tune", service="trainer", request={"a": 1})
    second, created_again = workshop.jobs.submit(job_id="j1", kind="tune", service="trainer", request={"a": 1})

    assert created
    assert not created_again
    assert second == first


def test_a_request_id_cannot_be_used_for_something_else(workshop):
    submit(workshop.jobs, a=1)

    with pytest.raises(InvalidInput, match="send a new UUID"):
        submit(workshop.jobs, a=2)


def test_equal_requests_join_one_job_until_it_fails(workshop):
    jobs = workshop.jobs

    def ask(request_id: str = "") -> Job:
        return jobs.submit_by_content(kind="tune", service="trainer", request={"a": 1}, request_id=request_id)[0]

    first = ask("r1")
    assert ask().id == first.id
    jobs.change(first.id, lambda j: jobs.step(j, phase="failed"))
    assert ask("r1").id == first.id, "the same request id gets the answer it had"
    second = ask("r2")
    assert second.id != first.id
    assert ask().id == second.id


def test_racing_changes_are_all_applied(workshop):
    submit(workshop.jobs)

    def see(number: int) -> None:
        workshop.jobs.change("j1", lambda j: workshop.jobs.step(j, seen=j.saw(f"e{number}")))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(see, range(24)))

    assert sorted(workshop.jobs.get("j1").seen) == sorted(f"e{n}" for n in range(24))
    assert workshop.jobs.get("j1").rev == 25


def test_seen_event_ids_are_bounded(workshop):
    job = submit(workshop.jobs)
    for number in range(MAX_SEEN + 10):
        job = workshop.jobs.step(job, seen=job.saw(str(number)))

    assert len(job.seen) == MAX_SEEN
    assert job.seen[-1] == str(MAX_SEEN + 9)


@pytest.mark.parametrize("error", [Conflict("412 for its own write"), Unavailable("reply lost")])
def test_a_write_whose_reply_was_lost_counts_once(workshop, error):
    submit(workshop.jobs)
    jobs = JobStore(LosingReplies(workshop.store, error), workshop.clock)

    job = jobs.change("j1", lambda j: jobs.step(j, attempt=j.attempt + 1))

    assert job.attempt == 1
    assert workshop.jobs.get("j1").attempt == 1


def test_a_creation_whose_reply_was_lost_is_still_its_own(workshop):
    jobs = JobStore(LosingReplies(workshop.store, Unavailable("reply lost")), workshop.clock)

    _, created = jobs.submit(job_id="j1", kind="tune", service="trainer", request={})

    assert created


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"id": "j1"}', b'{"phase": "dancing"}'])
def test_a_corrupt_state_object_is_named(workshop, content):
    workshop.store.put(keys.job_state("j1"), content)

    with pytest.raises(DataLoss, match=r"jobs/j1/state\.json"):
        workshop.jobs.get("j1")


def test_an_unknown_job_is_not_found(workshop):
    with pytest.raises(NotFound, match="'nope'"):
        workshop.jobs.get("nope")


def test_markers_that_were_lost_are_put_back(workshop):
    submit(workshop.jobs, "open")
    done = submit(workshop.jobs, "done")
    workshop.jobs.change(done.id, lambda j: workshop.jobs.step(j, phase="succeeded"))
    for job_id in ("open", "done"):
        workshop.store.delete(keys.active_job(job_id))

    assert workshop.jobs.restore_markers() == 1
    assert list(workshop.jobs.active_ids()) == ["open"]


def test_event_ids_follow_from_job_and_revision(workshop):
    job = submit(workshop.jobs)
    event = ("tunesmith.RunSucceeded.v1", "j1", {})

    one = workshop.jobs.step(job, events=[event, event]).outbox
    again = workshop.jobs.step(job, events=[event, event]).outbox

    assert [e.id for e in one] == [e.id for e in again]
    assert one[0].id != one[1].id


def test_the_state_is_readable_json(workshop):
    submit(workshop.jobs, name="forró")

    row = json.loads(workshop.store.get(keys.job_state("j1")).data)

    assert row["request"] == {"name": "forró"}
    assert row["phase"] == "queued"


def test_of_two_that_ask_for_the_same_work_at_once_the_second_joins_the_first(workshop, monkeypatch):
    look = workshop.jobs.find
    looks = []

    def too_early(job_id: str) -> Job | None:
        """The second asker looks just before the first one's job is there."""
        looks.append(job_id)
        return None if len(looks) == 1 else look(job_id)

    def ask(request_id: str) -> tuple[Job, bool]:
        return workshop.jobs.submit_by_content(kind="tune", service="trainer", request={"a": 1}, request_id=request_id)

    first, created = ask("one")
    monkeypatch.setattr(workshop.jobs, "find", too_early)
    second, created_again = ask("two")

    assert (second.id, created, created_again) == (first.id, True, False)
