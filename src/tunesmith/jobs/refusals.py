"""Launches that are refused: how soon to try again, and when to give up."""

from __future__ import annotations

from tunesmith.domain.errors import (
    FailedPrecondition,
    PermissionRefused,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
)
from tunesmith.domain.jobs import Job, JobError
from tunesmith.ports.clock import Clock
from tunesmith.status_codes import code_name_of

PATIENCE_S = {PermissionRefused: 60.0, FailedPrecondition: 60.0, ResourceExhausted: 1800.0, Unavailable: 1800.0}
"""How long a launch may be refused for before its job fails: rights are perhaps being given right now, quota becomes
free when others' work ends, and a platform that does not answer may come back."""

RETRY_S = (0.5, 15.0)
"""First and longest pause between two tries."""


class Refusals:
    """The launches that were refused to this process, by its own clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refused: dict[tuple[str, int], tuple[float, float, float]] = {}

    def may_try(self, job: Job) -> bool:
        """Whether the pause after the last refusal has passed."""
        _, next_s, _ = self._refused.get((job.id, job.attempt), (0.0, 0.0, 0.0))
        return self._clock.monotonic_s() >= next_s

    def given_up(self, job: Job, error: TunesmithError) -> JobError | None:
        """Note a refusal; the error with which to end the job once patience is at an end, else None."""
        now_s = self._clock.monotonic_s()
        since_s, _, pause_s = self._refused.get((job.id, job.attempt), (now_s, 0.0, RETRY_S[0] / 2))
        pause_s = min(2 * pause_s, RETRY_S[1])
        self._refused[job.id, job.attempt] = since_s, now_s + pause_s, pause_s
        patience_s = next((s for kind, s in PATIENCE_S.items() if isinstance(error, kind)), 0.0)
        if now_s - since_s < patience_s:
            return None
        self.done(job)
        message = f"the worker could not be launched for {now_s - since_s:.0f} s: {error.message}"
        return JobError(code_name_of(error), error.reason, message, error.metadata)

    def done(self, job: Job) -> None:
        """Forget the refusals of a job that was launched or has ended."""
        self._refused.pop((job.id, job.attempt), None)
