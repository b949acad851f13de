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
from tunesmith.domain.jobs import Job, JobError, Progress
from tunesmith.jobs.hosts import Hosts
from tunesmith.jobs.losses import judged
from tunesmith.jobs.refusals import Refusals
from tunesmith.jobs.relay import publish_outbox
from tunesmith.jobs.state import JobStore
from tunesmith.jobs.ticking import Ticker
from tunesmith.ports.bus import EventBus
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.launcher import Launcher, LaunchStatus
from tunesmith.telemetry import log_context

log = logging.getLogger(__name__)

FULL_SCAN_S = 300.0
"""How often all jobs are scanned for lost markers, and launches for strays."""

FORGET_MARKER_S = 60.0
"""How long a marker may stand without a job: its submitter may be about to write the job, to a slow store."""


SLOT_LOOKS = 10
SLOT_LOOK_S = 0.05
"""How often, and how far apart, a replica looks whether a rival for the last place steps back."""


@dataclass(frozen=True, slots=True)
class JobKind:
    """How jobs of one kind, or one stage of them, are launched."""

    argv: Sequence[str]
    """The worker's command; `JOB_ID EPOCH` is appended."""
    slot: str
    """Kinds that share a slot share its limit."""
    max_parallel: int
    """Most jobs of the slot that are under way at once on one host."""
    shrinks: bool = False
    """An attempt after one that was killed for its memory needs less of it."""
    everywhere: bool = False
    """The limit holds for all hosts together."""


class Reconciler:
    """Runs `tick` in a thread until stopped.

    Several processes may reconcile the same jobs: every step is a CAS. A queued job is anyone's; a launched one is left
    to the host that launched it, until that host has been silent for too long (`jobs.hosts`).
    """

    def __init__(
        self,
        *,
        jobs: JobStore,
        bus: EventBus,
        launcher: Launcher,
        clock: Clock,
        kinds: Mapping[str, JobKind],
        worker_env: Mapping[str, str],
        hosts: Hosts,
        interval_s: float = 0.1,
    ) -> None:
        self._jobs = jobs
        self._bus = bus
        self._launcher = launcher
        self._clock = clock
        self._kinds = kinds
        self._worker_env = worker_env
        self._hosts = hosts
        self._ticker = Ticker("reconciler", self.tick, interval_s=interval_s)
        self._housekeeper = Ticker("housekeeping", self.keep_house, interval_s=FULL_SCAN_S)
        self._complained: set[str] = set()
        self._refusals = Refusals(clock)
        self._waiting: dict[str, str] = {}
        """Why launched jobs have not begun, as their progress tells."""
        self._settled: set[str] = set()
        self._ghosts: dict[str, float] = {}
        """Markers without a job, and since when."""
        self._put_off: dict[tuple[str, int], float] = {}
        """Jobs (with their attempt) that wait for a back-off to pass, and since when."""

    def start(self) -> None:
        """Start the threads, and the heartbeat of this host."""
        self._hosts.start()
        self._ticker.start()
        self._housekeeper.start()

    def stop(self) -> None:
        """End the threads after the step they are in; running workers are left alone and the heart beats on."""
        self._housekeeper.stop()
        self._ticker.stop()

    def wake(self) -> None:
        """Look now: something was submitted."""
        self._ticker.wake()

    def keep_house(self) -> None:
        """The slow backstops: put back lost markers, end and forget launches that nobody waits for any more."""
        if not self._kinds:
            return
        self._jobs.restore_markers(self._settled)
        self._clear_launches()
        self._hosts.forget_gone()

    def tick(self) -> None:
        """Advance every active job by what can be done now: the highest priority first, then the oldest.

        An error of one job does not hold up the others.
        """
        if not self._kinds:
            return
        active = self._active()
        taken = Counter(self._kinds[job.work].slot for job in active if self._takes_slot(job))
        for job in sorted(active, key=_turn):
            with log_context(job_id=job.id):
                try:
                    if self._hosts.owns(job) or job.phase == "queued":
                        self._advance(job, taken)
                    else:
                        self._mind(job)
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
            if job is not None and job.work in self._kinds and job.attempt and self._hosts.owns(job):
                stops.append(
                    threading.Thread(target=self._launcher.stop, args=(launch_name(job),), kwargs={"grace_s": grace_s})
                )
        for stop in stops:
            stop.start()
        for stop in stops:
            stop.join()

    def settle_ended(self) -> None:
        """For a process that ends: publish what jobs have left to say, settle those that ended, hand over the others.

        Launches nothing. What was interrupted is queued, so that another replica goes on with it at once.
        """
        for job_id in list(self._jobs.active_ids()):
            try:
                job = self._jobs.find(job_id)
                if job is None or job.work not in self._kinds or not self._hosts.owns(job):
                    continue
                job = publish_outbox(job, jobs=self._jobs, bus=self._bus)
                if job.is_terminal:
                    if self._cleaned_up(job):
                        self._jobs.settle(job.id)
                elif job.phase in ("launching", "running") and self._launcher.scope:
                    status = self._launcher.status(launch_name(job))
                    if status.state != "running":
                        self._after_loss(job, status)
            except TunesmithError as error:
                self._complain_once(job_id, error)
        try:
            self._hosts.stop()
        except TunesmithError as error:
            log.warning("the heartbeat of this host stays behind: %s", error)

    def _active(self) -> list[Job]:
        """The active jobs of our kinds that can be read."""
        active: list[Job] = []
        ghosts = {}
        for job_id in list(self._jobs.active_ids()):
            try:
                job = self._jobs.get(job_id)
            except NotFound:
                ghosts[job_id] = self._ghosts.get(job_id, self._clock.monotonic_s())
            except DataLoss as error:
                self._complain_once(job_id, error)
            else:
                if job.work in self._kinds:
                    active.append(job)
        self._ghosts = ghosts
        for job_id, since_s in ghosts.items():
            # A submitter died between marker and job, or is between them right now.
            if self._clock.monotonic_s() - since_s >= FORGET_MARKER_S:
                self._jobs.settle(job_id)
        return active

    def _takes_slot(self, job: Job) -> bool:
        under_way = job.phase in ("launching", "running")
        return under_way and (self._kinds[job.work].everywhere or self._hosts.owns(job))

    def _mind(self, job: Job) -> None:
        """See to a job that another host launched, once that host is lost."""
        if not self._hosts.is_silent(job):
            return
        job = publish_outbox(job, jobs=self._jobs, bus=self._bus)
        if job.is_terminal:
            self._jobs.settle(job.id)
            return
        log.warning("host %s shows no life; attempt %s of its job is taken over", job.host, job.attempt)
        # The epoch grows at once: should the host come back, its worker writes nothing any more.
        self._after_loss(job, LaunchStatus("lost"), epoch=job.epoch + 1)

    def _advance(self, job: Job, taken: Counter[str]) -> None:
        job = publish_outbox(job, jobs=self._jobs, bus=self._bus)
        if job.is_terminal:
            if self._cleaned_up(job):
                self._jobs.settle(job.id)
            return
        kind = self._kinds[job.work]
        if job.phase == "queued":
            if job.cancel_requested:
                self._end(job, "cancelled", JobError("CANCELLED", "CANCELLED", "cancelled before it started"))
                return
            if taken[kind.slot] >= kind.max_parallel or self._must_wait(job):
                return
            taken[kind.slot] += 1
            job = self._move(
                job,
                "queued",
                phase="launching",
                attempt=job.attempt + 1,
                epoch=job.epoch + 1,
                host=self._launcher.scope,
            )
            if not self._keeps_slot(job):
                self._move(job, "launching", phase="queued", host="")
                return
        if job.phase == "launching":
            if job.cancel_requested and not self._refusals.may_try(job):
                self._launcher.stop(launch_name(job), grace_s=10.0)
                self._end(job, "cancelled", JobError("CANCELLED", "CANCELLED", "cancelled before it started"))
                return
            if not self._refusals.may_try(job):
                return
            log.info("launching attempt %s of %s job (%s)", job.attempt, job.kind, job.work)
            argv = [*kind.argv, job.id, str(job.epoch)]
            try:
                self._launcher.launch(launch_name(job), argv, env=self._worker_env)
            except InvalidInput as error:  # such a program can never start, so trying again is no use
                self._end(job, "failed", JobError("INTERNAL", "WORKER_NOT_STARTABLE", error.message))
                return
            except TunesmithError as error:
                given_up = self._refusals.given_up(job, error)
                if given_up is None:
                    self._tell_waiting(job, error.reason, error.message)
                    raise
                self._end(job, "failed", given_up)
                return
            self._refusals.done(job)
            job = self._move(job, "launching", phase="running")
        if job.phase == "running":
            self._supervise(job)

    def _must_wait(self, job: Job) -> bool:
        """Whether the back-off after a failure has not passed yet: by this process's clock, not by who noted it."""
        if not job.not_before:
            return False
        since_s = self._put_off.setdefault((job.id, job.attempt), self._clock.monotonic_s())
        if self._clock.monotonic_s() - since_s < _back_off_s(job.failures):
            return True
        del self._put_off[job.id, job.attempt]
        return False

    def _keeps_slot(self, job: Job) -> bool:
        """Whether a job that was just moved to `launching` may stay there.

        Replicas that share a limit may each have moved one. Nobody launches before a look, after its own move, that
        shows the limit kept, so of two the later one always sees the other. The first in line waits for the others to
        step back, unless they were launched already.
        """
        kind = self._kinds[job.work]
        if self._launcher.scope and not kind.everywhere:
            return True
        for _ in range(SLOT_LOOKS):
            slot = [other for other in self._active() if self._kinds[other.work].slot == kind.slot]
            under_way = sorted((other for other in slot if self._takes_slot(other)), key=_turn)
            if len(under_way) <= kind.max_parallel:
                return True
            if job.id not in [other.id for other in under_way[: kind.max_parallel]]:
                return False
            self._clock.sleep(SLOT_LOOK_S)
        return False

    def _clear_launches(self) -> None:
        """End launches whose job has gone on elsewhere, and forget those of jobs that succeeded there."""
        for name in self._launcher.names():
            kind, _, rest = name.partition("-")
            job_id, _, attempt = rest.rpartition("-")
            job = self._jobs.find(job_id) if kind in self._kinds and attempt.isdigit() else None
            if job is None:
                continue
            running = self._launcher.status(name).state == "running"
            passed_on = int(attempt) < job.attempt or not self._hosts.owns(job) or job.phase == "queued"
            if running and passed_on:
                log.warning("worker %s has lost its job to another attempt and is stopped", name)
                self._launcher.stop(name, grace_s=10.0)
            elif not running and job.phase == "succeeded" and not self._hosts.owns(job):
                self._launcher.forget(name)

    def _cleaned_up(self, job: Job) -> bool:
        """Forget the launches of a job that succeeded; False while a worker is still on its way out.

        Launches of other jobs stay a while, for their logs. One that has not begun is stopped: whoever ended the job
        died before that.
        """
        self._waiting.pop(job.id, None)
        names = _launches(job)
        for name in names:
            status = self._launcher.status(name)
            if status.state == "stuck" or (status.state == "running" and status.reason):
                self._launcher.stop(name, grace_s=10.0)
            elif status.state == "running":
                return False
        for name in names:
            if job.phase == "succeeded":
                self._launcher.forget(name)
            else:
                self._launcher.retire(name)
        return True

    def _supervise(self, job: Job) -> None:
        name = launch_name(job)
        status = self._launcher.status(name)
        if status.state == "running":
            if job.cancel_requested:
                self._launcher.stop(name, grace_s=10.0)
                self._end(job, "cancelled", JobError("CANCELLED", "CANCELLED", "cancelled while it was running"))
            elif status.message:
                self._tell_waiting(job, status.reason, status.message)
            return
        current = self._jobs.get(job.id)
        if current.phase != "running" or current.epoch != job.epoch:
            return  # it ended by its own hand between the two looks
        self._after_loss(current, status)

    def _after_loss(self, job: Job, status: LaunchStatus, **changes: object) -> None:
        """The worker is gone and left no result: launch again, or give up."""
        loss = judged(job, status, can_shrink=self._kinds[job.work].shrinks)
        noted = {"failures": loss.failures, "memory_kills": loss.memory_kills, "last_loss": loss.record}
        still_there = status.state == "stuck"
        if job.cancel_requested:
            cancelled = JobError("CANCELLED", "CANCELLED", "cancelled while it was running")
            self._end(job, "cancelled", cancelled, still_there=still_there)
        elif loss.error is not None:
            self._end(job, "failed", loss.error, still_there=still_there, **noted)
        else:
            log.warning("worker of attempt %s %s; trying again", job.attempt, loss.why)
            delay_s = _back_off_s(loss.failures)
            later = rfc3339(self._clock.now() + timedelta(seconds=delay_s)) if delay_s else ""
            self._move(job, job.phase, phase="queued", host="", **noted, not_before=later, **changes)
            self.wake()

    def _tell_waiting(self, job: Job, reason: str, message: str) -> None:
        """Show callers why a launched job has not begun: as its progress, which nobody else writes yet."""
        if self._waiting.get(job.id) != message:
            self._waiting[job.id] = message
            log.warning("attempt %s has not begun: %s", job.attempt, message)
            self._jobs.write_progress(job.id, Progress("waiting", message=f"{reason}: {message}"[:1000]))

    def _move(self, job: Job, expected: str, **changes: object) -> Job:
        """One step of a job that is still in the phase and epoch this reconciler saw; Conflict otherwise."""

        def step(current: Job) -> Job | None:
            if current.phase != expected or current.epoch != job.epoch:
                raise Conflict(f"job {job.id} is {current.phase} now")
            return self._jobs.step(current, **changes)

        return self._jobs.change(job.id, step)

    def _end(self, job: Job, phase: str, error: JobError, *, still_there: bool = False, **changes: object) -> None:
        """Write down that and why the job ends, then stop what is `still_there` of it.

        In this order: to another replica, a launch that was stopped looks like one that was lost and is to be repeated.
        """
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
        self._waiting.pop(job.id, None)
        if still_there:
            self._launcher.stop(launch_name(job), grace_s=10.0)
        for name in _launches(job):
            try:
                self._launcher.retire(name)
            except TunesmithError as refused:
                log.warning("what is left of %s stays: %s", name, refused)
        publish_outbox(ended, jobs=self._jobs, bus=self._bus)
        self._jobs.settle(job.id)

    def _complain_once(self, job_id: str, error: TunesmithError) -> None:
        if job_id not in self._complained:
            self._complained.add(job_id)
            log.error("job %s is held up: %s", job_id, error)


def _turn(job: Job) -> tuple[int, str, str]:
    """The highest priority goes first, then the oldest."""
    return (-job.priority, job.created_at, job.id)


def _back_off_s(failures: int) -> float:
    return 2.0**failures if failures else 0.0


def _launches(job: Job) -> list[str]:
    """The launches of all attempts of a job."""
    return [launch_name(replace(job, attempt=attempt)) for attempt in range(1, job.attempt + 1)]


def launch_name(job: Job) -> str:
    """The launch of a job's current attempt; made from job and attempt, so launching twice starts one worker."""
    return f"{job.work_of(job.attempt)}-{job.id}-{job.attempt}"
