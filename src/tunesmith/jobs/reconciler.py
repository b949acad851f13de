"""The reconciler: looks at every active job and does the one thing that its state says is next."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from tunesmith.domain.errors import Conflict, DataLoss, InvalidInput, NotFound, TunesmithError
from tunesmith.domain.events import JOB_FAILED
from tunesmith.domain.jobs import Job, JobError
from tunesmith.jobs.relay import publish_outbox
from tunesmith.jobs.state import JobStore
from tunesmith.jobs.ticking import Ticker
from tunesmith.jobs.worker import EXIT_FENCED, EXIT_INTERRUPTED
from tunesmith.ports.bus import EventBus
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.launcher import Launcher, LaunchStatus
from tunesmith.telemetry import log_context

log = logging.getLogger(__name__)

MAX_FAILURES = 3
"""Attempts that end by the work's own fault before the job fails."""

MAX_ATTEMPTS = 50
"""Launches of one job at most, losses (power cut, kill) included."""

FULL_SCAN_S = 300.0
"""How often all jobs are scanned for lost markers."""


@dataclass(frozen=True, slots=True)
class JobKind:
    """How jobs of one kind are launched."""

    argv: Sequence[str]
    """The worker's command; `JOB_ID EPOCH` is appended."""
    slot: str
    """Kinds that share a slot share its limit."""
    max_parallel: int


class Reconciler:
    """Runs `tick` in a thread until stopped. Several processes may reconcile the same jobs: every step is a CAS."""

    def __init__(
        self,
        *,
        jobs: JobStore,
        bus: EventBus,
        launcher: Launcher,
        clock: Clock,
        kinds: Mapping[str, JobKind],
        worker_env: Mapping[str, str],
        interval_s: float = 0.1,
    ) -> None:
        self._jobs = jobs
        self._bus = bus
        self._launcher = launcher
        self._clock = clock
        self._kinds = kinds
        self._worker_env = worker_env
        self._ticker = Ticker("reconciler", self._look, interval_s=interval_s)
        self._complained: set[str] = set()
        self._next_full_scan_s = 0.0

    def start(self) -> None:
        """Start the thread."""
        self._ticker.start()

    def stop(self) -> None:
        """End the thread after the step it is in; running workers are left alone."""
        self._ticker.stop()

    def wake(self) -> None:
        """Look now: something was submitted."""
        self._ticker.wake()

    def _look(self) -> None:
        if self._clock.monotonic_s() >= self._next_full_scan_s:
            self._jobs.restore_markers()
            self._next_full_scan_s = self._clock.monotonic_s() + FULL_SCAN_S
        self.tick()

    def tick(self) -> None:
        """Advance every active job by what can be done now: the highest priority first, then the oldest.

        An error of one job does not hold up the others.
        """
        active: list[Job] = []
        for job_id in list(self._jobs.active_ids()):
            try:
                job = self._jobs.get(job_id)
            except NotFound:
                self._forget_marker_without_job(job_id)
                continue
            except DataLoss as error:
                self._complain_once(job_id, error)
                continue
            if job.kind in self._kinds:
                active.append(job)
        taken = Counter(self._kinds[job.kind].slot for job in active if job.phase in ("launching", "running"))
        for job in sorted(active, key=lambda job: (-job.priority, job.created_at, job.id)):
            with log_context(job_id=job.id):
                try:
                    self._advance(job, taken)
                except (Conflict, NotFound):
                    continue  # another process advanced it; the next tick sees how
                except TunesmithError as error:
                    self._complain_once(job.id, error)

    def stop_workers(self, *, grace_s: float) -> None:
        """Ask all workers to save and end, and wait until they are gone; their jobs continue at the next start.

        The worker of a job that has just ended is waited for as well: it may still be on its way out.
        """
        stops = []
        for job_id in list(self._jobs.active_ids()):
            job = self._jobs.find(job_id)
            if job is not None and job.kind in self._kinds and job.attempt:
                stops.append(
                    threading.Thread(target=self._launcher.stop, args=(launch_name(job),), kwargs={"grace_s": grace_s})
                )
        for stop in stops:
            stop.start()
        for stop in stops:
            stop.join()

    def settle_ended(self) -> None:
        """Publish what jobs have left to say and settle those that ended; launches nothing. For a process that ends."""
        for job_id in list(self._jobs.active_ids()):
            try:
                job = publish_outbox(self._jobs.get(job_id), jobs=self._jobs, bus=self._bus)
                if job.is_terminal and job.kind in self._kinds and self._cleaned_up(job):
                    self._jobs.settle(job.id)
            except TunesmithError as error:
                self._complain_once(job_id, error)

    def _advance(self, job: Job, taken: Counter[str]) -> None:
        job = publish_outbox(job, jobs=self._jobs, bus=self._bus)
        if job.is_terminal:
            if self._cleaned_up(job):
                self._jobs.settle(job.id)
            return
        kind = self._kinds[job.kind]
        if job.phase == "queued":
            if job.cancel_requested:
                self._end(job, "cancelled", JobError("CANCELLED", "CANCELLED", "cancelled before it started"))
                return
            if taken[kind.slot] >= kind.max_parallel or job.not_before > rfc3339(self._clock.now()):
                return
            taken[kind.slot] += 1
            job = self._move(job, "queued", phase="launching", attempt=job.attempt + 1, epoch=job.epoch + 1)
        if job.phase == "launching":
            log.info("launching attempt %s of %s job", job.attempt, job.kind)
            argv = [*kind.argv, job.id, str(job.epoch)]
            try:
                self._launcher.launch(launch_name(job), argv, env=self._worker_env)
            except InvalidInput as error:  # such a program can never start, so trying again is no use
                self._end(job, "failed", JobError("INTERNAL", "WORKER_NOT_STARTABLE", error.message))
                return
            job = self._move(job, "launching", phase="running")
        if job.phase == "running":
            self._supervise(job)

    def _cleaned_up(self, job: Job) -> bool:
        """Forget the launches of a job that succeeded; False while a worker is still on its way out.

        Launches of other jobs stay, for their logs.
        """
        names = [launch_name(replace(job, attempt=attempt)) for attempt in range(1, job.attempt + 1)]
        if any(self._launcher.status(name).state == "running" for name in names):
            return False
        if job.phase == "succeeded":
            for name in names:
                self._launcher.forget(name)
        return True

    def _supervise(self, job: Job) -> None:
        name = launch_name(job)
        status = self._launcher.status(name)
        if status.state == "running":
            if job.cancel_requested:
                self._launcher.stop(name, grace_s=10.0)
                self._end(job, "cancelled", JobError("CANCELLED", "CANCELLED", "cancelled while it was running"))
            return
        current = self._jobs.get(job.id)
        if current.phase != "running" or current.epoch != job.epoch:
            return  # it ended by its own hand between the two looks
        self._after_loss(current, status)

    def _after_loss(self, job: Job, status: LaunchStatus) -> None:
        """The worker is gone and left no result: launch again, or give up."""
        own_fault = status.state == "exited" and status.exit_code is not None and status.exit_code >= 0
        if own_fault and status.exit_code in (EXIT_INTERRUPTED, EXIT_FENCED):
            own_fault = False
        failures = job.failures + own_fault
        why = f"ended with exit code {status.exit_code}" if status.state == "exited" else "disappeared"
        if job.cancel_requested:
            self._end(job, "cancelled", JobError("CANCELLED", "CANCELLED", "cancelled while it was running"))
        elif failures >= MAX_FAILURES or job.attempt >= MAX_ATTEMPTS:
            message = (
                f"the worker {why} {failures} times in {job.attempt} attempts; its last words: "
                f"{status.log_tail.strip()[-1000:] or '(none)'}"
            )
            self._end(job, "failed", JobError("INTERNAL", "WORKER_CRASHED", message), failures=failures)
        else:
            log.warning("worker of attempt %s %s; trying again", job.attempt, why)
            delay_s = 2.0**failures if failures else 0.0
            later = rfc3339(self._clock.now() + timedelta(seconds=delay_s)) if delay_s else ""
            self._move(job, "running", phase="queued", failures=failures, not_before=later)
            self.wake()

    def _move(self, job: Job, expected: str, **changes: object) -> Job:
        """One step of a job that is still in the phase and epoch this reconciler saw; Conflict otherwise."""

        def step(current: Job) -> Job | None:
            if current.phase != expected or current.epoch != job.epoch:
                raise Conflict(f"job {job.id} is {current.phase} now")
            return self._jobs.step(current, **changes)

        return self._jobs.change(job.id, step)

    def _end(self, job: Job, phase: str, error: JobError, **changes: object) -> None:
        data = {
            "job_id": job.id,
            "kind": job.kind,
            "code": error.code,
            "reason": error.reason,
            "message": error.message[:1000],
        }
        # The epoch grows so that a worker which is not quite dead cannot write a result any more.
        ended = self._move(
            job,
            job.phase,
            phase=phase,
            error=error,
            epoch=job.epoch + 1,
            events=[(JOB_FAILED, job.id, data)],
            **changes,
        )
        log.error("job ended as %s: %s", phase, error.message)
        publish_outbox(ended, jobs=self._jobs, bus=self._bus)
        self._jobs.settle(job.id)

    def _forget_marker_without_job(self, job_id: str) -> None:
        """A submitter died between marker and job, or is between them right now: only forget on the second look."""
        if job_id in self._complained:
            self._jobs.settle(job_id)
        self._complained.add(job_id)

    def _complain_once(self, job_id: str, error: TunesmithError) -> None:
        if job_id not in self._complained:
            self._complained.add(job_id)
            log.error("job %s is held up: %s", job_id, error)


def launch_name(job: Job) -> str:
    """The launch of a job's current attempt; made from job and attempt, so launching twice starts one worker."""
    return f"{job.kind}-{job.id}-{job.attempt}"
