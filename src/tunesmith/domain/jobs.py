"""Jobs: long work with durable state. Every change is one compare-and-swap of one small object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from tunesmith.domain.errors import DataLoss, InvalidInput
from tunesmith.domain.events import Event, checked_trace
from tunesmith.domain.ids import derived_uuid

Phase = Literal["queued", "launching", "running", "succeeded", "failed", "cancelled"]
TERMINAL: frozenset[Phase] = frozenset({"succeeded", "failed", "cancelled"})

PRIORITY_LIMIT = 100
"""Priorities lie between minus and plus this."""

MAX_SEEN = 64
"""Consumed event ids kept; older ones no-op because commands also carry the phase they expect."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is: `done` of `total` `unit`s (total 0: unknown) in `stage`, with live `values` such as losses."""

    stage: str
    done: int = 0
    total: int = 0
    unit: str = ""
    message: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


ProgressReporter = Callable[[Progress], None]
"""Takes progress as often as it comes; cheap, never raises, throttles by itself."""


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job ended without a result. `code` is the name of a gRPC status code."""

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """The rest of a job's work, launched by itself because it needs other surroundings than the work before it."""

    work: str
    """Stands for the job's kind in all that concerns launching."""
    after_attempt: int
    """The last attempt at the work before."""
    carried: Mapping[str, Any]
    """What the work before hands on."""
    usage: Mapping[str, float]
    """What all before used: `cpu_s`, `peak_mib`."""


@dataclass(frozen=True, slots=True)
class Job:
    """The state object of one job.

    `attempt` counts launches, from 0 before the first; `epoch` grows with every launch and fences off a doubled or
    late worker: a write that carries an older epoch is refused. `outbox` holds events that are facts already but not
    yet published.
    """

    id: str
    kind: str
    """`collect`, `caption`, `curate`, `tune` or `judge`."""
    service: str
    phase: Phase
    rev: int
    attempt: int
    epoch: int
    writer: str
    request: Mapping[str, Any]
    created_at: str
    updated_at: str
    failures: int = 0
    """Attempts that ended by the work's own fault; losses (power cut, kill) do not count."""
    memory_kills: int = 0
    """Attempts that were killed because they wanted more memory than their limit; the next one makes do with less."""
    last_loss: Mapping[str, Any] | None = None
    """How the last attempt that gave no result ended: `attempt`, `reason`, `message`, `exit_code`, `log_tail`."""
    seen: tuple[str, ...] = ()
    outbox: tuple[Event, ...] = ()
    result: Mapping[str, Any] | None = None
    error: JobError | None = None
    cancel_requested: bool = False
    not_before: str = ""
    """RFC 3339 time before which no new attempt is launched (back-off); empty for at once."""
    priority: int = 0
    """Of the queued jobs that share a slot, the highest is launched first; equal ones by age."""
    host: str = ""
    """The scope of the launcher that launched the current attempt; empty for one whose launches every replica sees."""
    trace: Mapping[str, str] = field(default_factory=dict)
    """The W3C trace context in which the job was asked for; its work and its events go on with it."""
    stages: tuple[Stage, ...] = ()
    """The stages that were begun after the kind's own work; the last one is what is done now."""

    @property
    def work(self) -> str:
        """What the attempt that is under way, or comes next, does: the kind, or the stage that it has come to."""
        return self.stages[-1].work if self.stages else self.kind

    def work_of(self, attempt: int) -> str:
        """What an attempt did, does, or is to do."""
        begun = (stage.work for stage in reversed(self.stages) if attempt > stage.after_attempt)
        return next(begun, self.kind)

    @property
    def is_terminal(self) -> bool:
        """Whether nothing but publishing its outbox can still happen to the job."""
        return self.phase in TERMINAL

    def step(
        self,
        *,
        now: str,
        writer: str,
        events: Sequence[tuple[str, str, Mapping[str, Any]]] = (),
        trace: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> Job:
        """The next revision: `changes` applied and `events` (type, subject, data) appended to the outbox.

        The events are made in the context `trace`, by default that in which the job was asked for.

        Event ids follow from job, revision and position, so a crash between publishing and forgetting repeats an id.
        """
        rev, source, made_in = self.rev + 1, f"/tunesmith/{self.service}", trace or self.trace
        outbox = (
            *changes.pop("outbox", self.outbox),
            *(
                Event(derived_uuid(self.id, rev, n), kind, source, subject, now, dict(data), made_in)
                for n, (kind, subject, data) in enumerate(events)
            ),
        )
        return replace(self, rev=rev, writer=writer, updated_at=now, outbox=outbox, **changes)

    def saw(self, event_id: str) -> tuple[str, ...]:
        """`seen` with one more consumed event id, bounded to MAX_SEEN."""
        return (*self.seen, event_id)[-MAX_SEEN:]

    def to_json(self) -> dict[str, Any]:
        """The state object."""
        return {
            "id": self.id,
            "kind": self.kind,
            "service": self.service,
            "phase": self.phase,
            "rev": self.rev,
            "attempt": self.attempt,
            "epoch": self.epoch,
            "writer": self.writer,
            "request": dict(self.request),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "failures": self.failures,
            "memory_kills": self.memory_kills,
            "last_loss": None if self.last_loss is None else dict(self.last_loss),
            "seen": list(self.seen),
            "outbox": [event.to_json() for event in self.outbox],
            "result": None if self.result is None else dict(self.result),
            "error": None
            if self.error is None
            else {
                "code": self.error.code,
                "reason": self.error.reason,
                "message": self.error.message,
                "metadata": dict(self.error.metadata),
            },
            "cancel_requested": self.cancel_requested,
            "not_before": self.not_before,
            "priority": self.priority,
            "host": self.host,
            **({"trace": dict(self.trace)} if self.trace else {}),
            **({"stages": [asdict(stage) for stage in self.stages]} if self.stages else {}),
        }

    @staticmethod
    def from_json(row: Any, *, key: str) -> Job:
        """The inverse of `to_json`; an object of another shape raises DataLoss that names `key`."""
        try:
            return Job(
                id=row["id"],
                kind=row["kind"],
                service=row["service"],
                phase=_phase(row["phase"]),
                rev=int(row["rev"]),
                attempt=int(row["attempt"]),
                epoch=int(row["epoch"]),
                writer=row["writer"],
                request=dict(row["request"]),
                created_at=row["created_at"],
                updated_at=row["updated_at"],
                failures=int(row["failures"]),
                memory_kills=int(row.get("memory_kills", 0)),
                last_loss=dict(row["last_loss"]) if row.get("last_loss") else None,
                seen=tuple(row["seen"]),
                outbox=tuple(Event.from_json(event) for event in row["outbox"]),
                result=None if row["result"] is None else dict(row["result"]),
                error=None if row["error"] is None else JobError(**row["error"]),
                cancel_requested=bool(row["cancel_requested"]),
                not_before=row["not_before"],
                priority=int(row.get("priority", 0)),
                host=row.get("host", ""),
                trace=checked_trace(row.get("trace")),
                stages=tuple(Stage(**stage) for stage in row.get("stages", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataLoss(
                f"the job state object {key} is corrupt ({type(error).__name__}: {error}); "
                "restore it from a backup, or delete the object and send the request again",
                reason="CORRUPT_JOB_STATE",
                metadata={"key": key},
            ) from error


def checked_priority(value: int) -> int:
    """`value` if it is a priority; InvalidInput names the range."""
    if not -PRIORITY_LIMIT <= value <= PRIORITY_LIMIT:
        raise InvalidInput(
            f"priority={value} is out of range: it must lie between {-PRIORITY_LIMIT} and {PRIORITY_LIMIT}",
            metadata={"field": "priority", "value": str(value)},
        )
    return value


def _phase(value: str) -> Phase:
    for phase in ("queued", "launching", "running", "succeeded", "failed", "cancelled"):
        if value == phase:
            return phase
    raise ValueError(f"unknown phase {value!r}")
