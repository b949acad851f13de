"""The worker's side of a job: runs in a process that may die at any instant."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.domain.errors import (
    Conflict,
    Interrupted,
    MemoryRanOut,
    ResourceExhausted,
    StoreUnavailable,
    TunesmithError,
)
from tunesmith.domain.events import JOB_FAILED
from tunesmith.domain.jobs import Job, JobError, Progress, Stage
from tunesmith.jobs.ranks import Rank
from tunesmith.jobs.state import JobStore
from tunesmith.jobs.ticking import Ticker
from tunesmith.ports.clock import Clock
from tunesmith.status_codes import code_name_of
from tunesmith.telemetry import log_context, span

log = logging.getLogger(__name__)

EXIT_UNAVAILABLE = 69
"""The store did not answer; the job is queued again, and has not failed (EX_UNAVAILABLE of sysexits.h)."""
EXIT_FAILED = 70
"""One of several processes failed, so that the others must be ended; a failure of the first is in the job
(EX_SOFTWARE). A worker that is alone returns 0 then."""
EXIT_OUT_OF_MEMORY = 71
"""One of several processes ran out of memory; the next attempt makes each batch in smaller parts (EX_OSERR)."""
EXIT_INTERRUPTED = 75
"""Asked to stop and saved what it had; the job is queued again (EX_TEMPFAIL of sysexits.h)."""
EXIT_FENCED = 76
"""Another attempt has taken over, or the job has ended; nothing was written."""

EXIT_MISCONFIGURED = 78
"""The worker's settings are wrong, so that another attempt would end the same (EX_CONFIG)."""

PROGRESS_INTERVAL_S = 0.2

LAUNCHER_INTERVAL_S = 1.0
"""How often one of several processes looks whether the process that started it is still there."""

FENCE_INTERVAL_S = 5.0
"""How often a worker looks whether its job has gone on without it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job made: its result, and the events (type, subject, data) that are true from now on."""

    result: Mapping[str, Any]
    events: Sequence[tuple[str, str, Mapping[str, Any]]] = ()


@dataclass(frozen=True, slots=True)
class HandOver:
    """What a part of a job made whose rest needs other surroundings: it is queued as that stage, and launched anew."""

    stage: str
    carried: Mapping[str, Any]
    """What the stage finds as `job.stages[-1].carried`."""
    events: Sequence[tuple[str, str, Mapping[str, Any]]] = ()


class WorkContext:
    """What work may ask of its surroundings."""

    def __init__(self, job: Job, jobs: JobStore, clock: Clock, stop: threading.Event, rank: Rank) -> None:
        self.job = job
        self.rank = rank
        self._jobs = jobs
        self._clock = clock
        self._stop = stop
        self._next_report_s = 0.0
        self._last: Progress | None = None

    def report(self, progress: Progress) -> None:
        """Publish live progress: the first and the last of a stage at once, others every PROGRESS_INTERVAL_S.

        Of several processes only the first publishes.
        """
        if not self.rank.leads:
            return
        now_s = self._clock.monotonic_s()
        new_stage = self._last is None or self._last.stage != progress.stage
        complete = progress.total > 0 and progress.done >= progress.total
        self._last = progress
        if now_s < self._next_report_s and not new_stage and not complete:
            return
        self._next_report_s = now_s + PROGRESS_INTERVAL_S
        try:
            self._jobs.write_progress(self.job.id, progress)
        except TunesmithError as error:
            log.warning("progress could not be written: %s", error)

    def should_stop(self) -> bool:
        """Whether the work should save and raise Interrupted."""
        return self._stop.is_set()


Work = Callable[[WorkContext], Outcome | HandOver]

Help = Callable[[WorkContext], None]
"""The part that each process but the first has in work that several do together."""


@dataclass(frozen=True, slots=True)
class Together:
    """Work of one kind that several processes can do together."""

    help_along: Help
    """What each of them but the first does."""
    start: Callable[[Sequence[str]], int | None]
    """Starts them with the worker's arguments and waits: their exit code. None where one process is to do."""


def run_worker(job_id: str, epoch: int, work: Work, *, jobs: JobStore, clock: Clock, rank: Rank | None = None) -> int:
    """Do one attempt of a job and write its outcome; returns the process's exit code.

    A TunesmithError is the job's failure, recorded with its reason, unless it is the store that does not answer; any
    other exception ends the process with a traceback in the launch's log, and the reconciler decides whether to try
    again. `rank`: this process is the first of several (`run_helper`).
    """
    rank = rank or Rank()
    stop = threading.Event()
    fence = Ticker("fence", lambda: _stop_when_fenced(jobs, job_id, epoch, stop), interval_s=FENCE_INTERVAL_S)
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    # Ctrl-C reaches the whole foreground group; the server decides about its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with log_context(job_id=job_id):
        try:
            job = jobs.get(job_id)
            if job.epoch != epoch or job.is_terminal:
                return EXIT_FENCED
            fence.start()
            with span(f"work {job.work}", continues=job.trace):
                outcome = work(WorkContext(job, jobs, clock, stop, rank))
                _finish(jobs, job_id, epoch, events=outcome.events, **_after(job, outcome))
        except Conflict as error:
            log.warning("fenced off: %s", error)
            return EXIT_FENCED
        except (Interrupted, StoreUnavailable) as error:
            return _put_off(error)
        except (TunesmithError, OSError, RuntimeError) as raised:
            known = _explained(raised)
            if known is None:
                raise
            log.error("%s: %s", known.reason, known.message)
            failure = JobError(code_name_of(known), known.reason, known.message, known.metadata)
            data = {
                "job_id": job_id,
                "kind": job.kind,
                "code": failure.code,
                "reason": failure.reason,
                "message": failure.message[:1000],
            }
            try:
                _finish(jobs, job_id, epoch, phase="failed", error=failure, events=[(JOB_FAILED, job_id, data)])
            except Conflict:
                return EXIT_FENCED
            except StoreUnavailable as error:
                log.error("the failure could not be written: %s", error.message)
                return EXIT_UNAVAILABLE
            return 0 if rank.is_alone else EXIT_FAILED
        finally:
            fence.stop()
    return 0


def _after(job: Job, outcome: Outcome | HandOver) -> Mapping[str, Any]:
    """How the job goes on from here."""
    usage = _usage()
    if job.stages:
        before = job.stages[-1].usage
        usage = {
            "cpu_s": round(before["cpu_s"] + usage["cpu_s"], 2),
            "peak_mib": max(before["peak_mib"], usage["peak_mib"]),
        }
    if isinstance(outcome, Outcome):
        return {"phase": "succeeded", "result": {**outcome.result, "usage": usage}}
    stage = Stage(outcome.stage, job.attempt, outcome.carried, usage)
    # Its host stays until another attempt is launched: this process is still to be waited for there.
    return {"phase": "queued", "stages": (*job.stages, stage), "failures": 0, "memory_kills": 0}


def _put_off(error: Interrupted | StoreUnavailable) -> int:
    """The exit code of an attempt that ended through no fault of its job's."""
    if isinstance(error, StoreUnavailable):
        log.error("%s", error.message)
        return EXIT_UNAVAILABLE
    log.info("interrupted: %s", error)
    return EXIT_OUT_OF_MEMORY if isinstance(error, MemoryRanOut) else EXIT_INTERRUPTED


def run_helper(job_id: str, epoch: int, help_along: Help, *, jobs: JobStore, clock: Clock, rank: Rank) -> int:
    """Take part in one attempt of a job that `run_worker` does in another process; returns the exit code.

    Writes nothing of the job: neither progress nor outcome. What goes wrong here ends the attempt.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with log_context(job_id=job_id):
        try:
            job = jobs.get(job_id)
            if job.epoch != epoch or job.is_terminal:
                return EXIT_FENCED
            with span(f"help {job.kind}", continues=job.trace):
                help_along(WorkContext(job, jobs, clock, stop, rank))
        except (Interrupted, StoreUnavailable) as error:
            return _put_off(error)
        except TunesmithError as error:
            log.error("%s: %s", error.reason, error.message)
            return EXIT_FAILED
    return 0


def end_with_launcher() -> None:
    """End this process, whatever it is at, once the process that started it is gone.

    For one of several processes, which has a session of its own: nobody else would end it when that one is killed.
    """
    started_by = os.getppid()

    def look() -> None:
        if os.getppid() != started_by:
            os._exit(EXIT_INTERRUPTED)

    Ticker("launcher", look, interval_s=LAUNCHER_INTERVAL_S).start()


def _stop_when_fenced(jobs: JobStore, job_id: str, epoch: int, stop: threading.Event) -> None:
    """Have the work stop when the job went on without it: what it makes could not be written any more."""
    job = jobs.get(job_id)
    if job.epoch != epoch or job.is_terminal:
        log.warning("job is at epoch %s (%s), this attempt was %s: stopping", job.epoch, job.phase, epoch)
        stop.set()


def _usage() -> dict[str, float]:
    """What this process has used: CPU seconds, and peak resident memory in MiB (Linux counts in KiB)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_s": round(used.ru_utime + used.ru_stime, 2), "peak_mib": round(used.ru_maxrss / 1024, 1)}


def _explained(error: Exception) -> TunesmithError | None:
    """The error as a caller should see it; None for one that nobody foresaw.

    Libraries report a full disk in their own ways: Python by errno, safetensors and SQLite by text.
    """
    if isinstance(error, TunesmithError):
        return error
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
        return ResourceExhausted(
            f"the disk is full ({error}); make room in the data folder and send the request again, it continues",
            reason="DISK_FULL",
        )
    return None


def _finish(jobs: JobStore, job_id: str, epoch: int, **changes: Any) -> None:
    def step(current: Job) -> Job:
        if current.epoch != epoch or current.is_terminal:
            raise Conflict(f"job {job_id} is at epoch {current.epoch} ({current.phase}), this attempt was {epoch}")
        return jobs.step(current, **changes)

    jobs.change(job_id, step)
