"""Servers that are started with one model version each, for backends that cannot load one while they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tunesmith.domain.models import ModelVersion

ReplicaState = Literal["starting", "ready", "failed"]
"""`ready`: all its servers answer. `failed`: waiting longer is of no use, or has been long enough."""


@dataclass(frozen=True, slots=True)
class Replica:
    """The servers of one model version, as they are now."""

    recipe: str
    version: str
    state: ReplicaState
    reason: str = ""
    """A stable UPPER_SNAKE word; empty where nothing is known to be wrong."""
    detail: str = ""
    """For people: what it waits for, or why it failed, with the fix."""


class Replicas(Protocol):
    """Starts and stops replicas of one installation, and never touches anything else. Thread-safe.

    Several processes may do so at once: a replica is known by its recipe and version alone, and whatever one process
    began, another sees and can end. All methods raise Unavailable while nobody can be asked.
    """

    def start(self, version: ModelVersion) -> None:
        """Start the replica of a version; one that is there is success. Returns before it is ready.

        Raises Unavailable also while a former replica of that version is still going; PermissionRefused,
        ResourceExhausted (quota), InvalidInput, FailedPrecondition (what it is started from is missing) with the fix.
        """
        ...

    def all(self) -> Sequence[Replica]:
        """All replicas that are there and not going, in no order."""
        ...

    def stop(self, recipe: str, version: str) -> None:
        """Let the replica go: it gets no new requests, ends those it has, and is gone. Nothing happens without one."""
        ...
