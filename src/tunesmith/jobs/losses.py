"""What the end of an attempt means for its job: another attempt, or the job's end and with which error. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.domain.jobs import Job, JobError
from tunesmith.jobs.worker import (
    EXIT_FENCED,
    EXIT_INTERRUPTED,
    EXIT_MISCONFIGURED,
    EXIT_OUT_OF_MEMORY,
    EXIT_UNAVAILABLE,
)
from tunesmith.ports.launcher import OUT_OF_MEMORY, LaunchStatus

MAX_FAILURES = 3
"""Attempts that end by the work's own fault before the job fails."""

MAX_ATTEMPTS = 50
"""Launches of one job at most, losses (power cut, kill) included."""

_CODES = {OUT_OF_MEMORY: "RESOURCE_EXHAUSTED", "QUOTA_EXHAUSTED": "RESOURCE_EXHAUSTED", "NO_GPU": "RESOURCE_EXHAUSTED",
          "UNSCHEDULABLE": "RESOURCE_EXHAUSTED", "EVICTED": "RESOURCE_EXHAUSTED",
          "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED"}  # fmt: skip
"""gRPC status codes of a launcher's reasons; FAILED_PRECONDITION for others."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A worker that is gone and left no result."""

    error: JobError | None
    """With which the job ends; None: it is tried again."""
    why: str
    failures: int
    memory_kills: int
    record: dict[str, Any]
    """For the job's `last_loss`."""


def judged(job: Job, status: LaunchStatus, *, can_shrink: bool) -> Loss:
    """What to do about a job whose attempt ended like this. Being interrupted, killed or lost is nobody's fault.

    `can_shrink`: work of this kind needs less memory at the next attempt, and says by itself when it cannot any more.
    """
    out_of_memory = status.reason == OUT_OF_MEMORY or status.exit_code == EXIT_OUT_OF_MEMORY
    own_fault = status.state == "exited" and (status.exit_code or 0) >= 0
    if status.exit_code in (EXIT_INTERRUPTED, EXIT_FENCED, EXIT_UNAVAILABLE):
        own_fault = False
    if out_of_memory:
        own_fault = not can_shrink
    failures = job.failures + own_fault
    why = f"ended with exit code {status.exit_code}" if status.state == "exited" else "disappeared"
    if status.message:
        why = f"{why}: {status.message}"
    record = {
        "attempt": job.attempt,
        "reason": status.reason,
        "message": status.message,
        "exit_code": status.exit_code,
        "log_tail": status.log_tail,
    }
    error = _error(job, status, failures, why)
    return Loss(error, why, failures, job.memory_kills + out_of_memory, record)


def _error(job: Job, status: LaunchStatus, failures: int, why: str) -> JobError | None:
    words = status.log_tail.strip()[-1000:] or "(none)"
    if status.state == "stuck" or status.fatal:
        return JobError(_CODES.get(status.reason, "FAILED_PRECONDITION"), status.reason, status.message)
    if status.exit_code == EXIT_MISCONFIGURED:
        message = f"the worker's settings are wrong; its last words: {words}"
        return JobError("FAILED_PRECONDITION", "WORKER_MISCONFIGURED", message)
    if failures < MAX_FAILURES and job.attempt < MAX_ATTEMPTS:
        return None
    message = f"the worker {why} {failures} times in {job.attempt} attempts; its last words: {words}"
    if status.reason:
        return JobError(_CODES.get(status.reason, "INTERNAL"), status.reason, message)
    return JobError("INTERNAL", "WORKER_CRASHED", message)
