"""Job state objects in the store, changed only by compare-and-swap."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from tunesmith.domain import keys
from tunesmith.domain.errors import AlreadyExists, Conflict, InvalidInput, NotFound, TunesmithError, Unavailable
from tunesmith.domain.ids import canonical_json, derived_uuid
from tunesmith.domain.jobs import Job, Progress
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.store import Store
from tunesmith.telemetry import current_trace

log = logging.getLogger(__name__)

MAX_CAS_ROUNDS = 64
"""Lost races in a row before giving up: each loss means another writer made progress."""

REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
"""Reason of the InvalidInput for an id under which another request was sent before."""

MAX_RESUBMISSIONS = 1000
"""Failed jobs of one request before a new one is refused."""


class JobStore:
    """Jobs by id. Thread-safe and usable from several processes on one store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def submit(
        self,
        *,
        job_id: str,
        kind: str,
        service: str,
        request: Mapping[str, Any],
        consumed_event: str = "",
        priority: int = 0,
    ) -> tuple[Job, bool]:
        """Create a queued job, or return the one that has this id; the flag says whether it is new.

        The active marker is written first: a crash between the two leaves a marker without a job, which the
        reconciler removes. InvalidInput when the id was used for a different request.
        """
        now = rfc3339(self._clock.now())
        job = Job(
            id=job_id,
            kind=kind,
            service=service,
            phase="queued",
            rev=1,
            attempt=0,
            epoch=0,
            writer=secrets.token_hex(8),
            request=dict(request),
            created_at=now,
            updated_at=now,
            seen=(consumed_event,) if consumed_event else (),
            priority=priority,
            trace=current_trace(),
        )
        if existing := self.find(job_id):
            return self._same_request(existing, job), False
        self._store.put(keys.active_job(job_id), canonical_json({"service": service, "at": now}))
        try:
            self._store.create(keys.job_state(job_id), _encode(job))
        except (AlreadyExists, Unavailable):
            stored = self.get(job_id)
            return self._same_request(stored, job), stored.writer == job.writer
        return job, True

    def submit_by_content(
        self, *, kind: str, service: str, request: Mapping[str, Any], request_id: str = "", priority: int = 0
    ) -> tuple[Job, bool]:
        """Submit a job whose id follows from what it does: an equal request joins the job that is under way or done.

        A job that failed or was cancelled is not joined, and a new one is made, unless it carries the same
        `request_id`: then the caller repeats a request it already had this answer to. A queued job that is joined with
        a higher priority takes that priority.
        """
        for generation in range(MAX_RESUBMISSIONS):
            job_id = derived_uuid(kind, canonical_json(request).decode(), generation)
            existing = self.find(job_id)
            if existing is None:
                try:
                    return self.submit(
                        job_id=job_id,
                        kind=kind,
                        service=service,
                        request={**request, "request_id": request_id},
                        priority=priority,
                    )
                except InvalidInput as error:
                    if error.reason != REQUEST_ID_REUSED:
                        raise
                    # Somebody else submitted the same work meanwhile, under a request id of their own.
                    existing = self.get(job_id)
            ended_badly = existing.phase in ("failed", "cancelled")
            if not ended_badly or (request_id and existing.request.get("request_id") == request_id):
                return self._raised(existing, priority), False
        raise InvalidInput(f"this {kind} request has failed {MAX_RESUBMISSIONS} times; change it before trying again")

    def _raised(self, job: Job, priority: int) -> Job:
        def step(current: Job) -> Job | None:
            if current.phase != "queued" or current.priority >= priority:
                return None
            return self.step(current, priority=priority)

        return job if job.phase != "queued" or job.priority >= priority else self.change(job.id, step)

    def find(self, job_id: str) -> Job | None:
        """The job, or None. DataLoss when its object is corrupt."""
        try:
            return self.get(job_id)
        except NotFound:
            return None

    def get(self, job_id: str) -> Job:
        """The job. NotFound names the id; DataLoss when its object is corrupt."""
        return self._read(job_id)[0]

    def change(self, job_id: str, step: Callable[[Job], Job | None]) -> Job:
        """Apply `step` by compare-and-swap until it wins; returns the job as stored.

        `step` gets the current job and returns its next revision, or None to leave it. It may run several times and
        must be pure. A write whose outcome is unknown counts as done when its writer and revision are read back.
        """
        for _ in range(MAX_CAS_ROUNDS):
            job, version = self._read(job_id)
            changed = step(job)
            if changed is None:
                return job
            assert changed.rev == job.rev + 1, "a step makes exactly one revision"
            try:
                self._store.replace(keys.job_state(job_id), _encode(changed), version=version)
            except (Conflict, Unavailable):
                now = self.get(job_id)
                if (now.rev, now.writer) != (changed.rev, changed.writer):
                    continue
            return changed
        raise Conflict(f"job {job_id} changed {MAX_CAS_ROUNDS} times while it was being written; try again")

    def step(self, job: Job, *, events: Any = (), **changes: Any) -> Job:
        """`job`'s next revision with this writer's nonce, time and trace context."""
        now, writer = rfc3339(self._clock.now()), secrets.token_hex(8)
        return job.step(now=now, writer=writer, events=events, trace=current_trace(), **changes)

    def active_ids(self) -> Iterator[str]:
        """Ids of jobs that may have work or events outstanding."""
        for info in self._store.list("jobs-active/"):
            yield info.key.removeprefix("jobs-active/")

    def restore_markers(self, settled: set[str] | None = None) -> int:
        """Scan all jobs and put back markers that are missing: the slow backstop. Returns how many.

        `settled` holds ids of jobs that were found to have ended, which no later scan has to read; it is added to.
        """
        active = set(self.active_ids())
        ended = set() if settled is None else settled
        restored = 0
        for job_id in self.all_ids():
            if job_id in active or job_id in ended:
                continue
            try:
                job = self.get(job_id)
            except TunesmithError as error:
                log.error("job %s cannot be read: %s", job_id, error)
                continue
            if not job.is_terminal or job.outbox:
                self._store.put(keys.active_job(job_id), canonical_json({"service": job.service}))
                restored += 1
            else:
                ended.add(job_id)
        return restored

    def all_ids(self) -> Iterator[str]:
        """Ids of all jobs, in id order."""
        for info in self._store.list("jobs/"):
            if info.key.endswith("/state.json"):
                yield info.key.split("/")[1]

    def settle(self, job_id: str) -> None:
        """Remove the marker of a job that has ended and published everything."""
        self._store.delete(keys.active_job(job_id))

    def progress(self, job_id: str) -> Progress | None:
        """The worker's last report, or None."""
        try:
            return Progress(**json.loads(self._store.get(keys.job_progress(job_id)).data))
        except (NotFound, ValueError, TypeError):
            return None

    def write_progress(self, job_id: str, progress: Progress) -> None:
        """Overwrite the live progress. Raises what the store raises."""
        self._store.put(keys.job_progress(job_id), canonical_json(asdict(progress)))

    def _read(self, job_id: str) -> tuple[Job, str]:
        key = keys.job_state(job_id)
        try:
            stored = self._store.get(key)
        except NotFound:
            raise NotFound(
                f"job {job_id!r} does not exist; list jobs with ListJobs", metadata={"job_id": job_id}
            ) from None
        try:
            row = json.loads(stored.data)
        except ValueError:
            row = None
        return Job.from_json(row, key=key), stored.version

    @staticmethod
    def _same_request(existing: Job, wanted: Job) -> Job:
        if (existing.kind, canonical_json(existing.request)) != (wanted.kind, canonical_json(wanted.request)):
            raise InvalidInput(
                f"the request id of job {existing.id} was used before for a different {existing.kind} request; "
                "send a new UUID as request_id",
                reason=REQUEST_ID_REUSED,
                metadata={"job_id": existing.id},
            )
        return existing


def _encode(job: Job) -> bytes:
    return canonical_json(job.to_json())
