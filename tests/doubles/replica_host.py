"""A machine that starts servers for model versions, in memory: what processes see of it is one and the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from tunesmith.domain.errors import TunesmithError
from tunesmith.domain.models import ModelVersion
from tunesmith.ports.replicas import Replica, ReplicaState


class ReplicaHost:
    """The servers that are there. A test lets them get ready, or fail."""

    def __init__(self, *, ready_at_once: bool = False) -> None:
        self.lock = threading.Lock()
        self.there: dict[tuple[str, str], Replica] = {}
        self.ready_at_once = ready_at_once
        self.refusal: TunesmithError | None = None
        self.is_away: TunesmithError | None = None
        self.num_started = 0
        self.most = 0
        """Most servers that were there at once."""
        self.begun: Callable[[ModelVersion], None] = lambda _: None
        self.ended: Callable[[str], None] = lambda _: None

    def set(self, version: str, state: ReplicaState, reason: str = "", detail: str = "") -> None:
        with self.lock:
            for (recipe, name), _ in list(self.there.items()):
                if name == version:
                    self.there[recipe, name] = Replica(recipe, name, state, reason, detail)

    def names(self) -> set[str]:
        with self.lock:
            return {version for _, version in self.there}


class HostedReplicas:
    """Implements `Replicas`."""

    def __init__(self, host: ReplicaHost) -> None:
        self._host = host

    def start(self, version: ModelVersion) -> None:
        host = self._host
        if problem := host.is_away or host.refusal:
            raise problem
        with host.lock:
            if (version.recipe, version.id) in host.there:
                return
            state: ReplicaState = "ready" if host.ready_at_once else "starting"
            host.there[version.recipe, version.id] = Replica(version.recipe, version.id, state)
            host.num_started += 1
            host.most = max(host.most, len(host.there))
        host.begun(version)

    def all(self) -> Sequence[Replica]:
        if self._host.is_away:
            raise self._host.is_away
        with self._host.lock:
            return list(self._host.there.values())

    def stop(self, recipe: str, version: str) -> None:
        if self._host.is_away:
            raise self._host.is_away
        with self._host.lock:
            found = self._host.there.pop((recipe, version), None)
        if found is not None:
            self._host.ended(version)
