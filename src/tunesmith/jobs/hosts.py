"""Which hosts live: each keeps a heartbeat in the store and watches those of the others, by its own clock.

A launcher that starts processes on one machine is the only one to see them. The job says whose launch it is (`host`),
and other replicas leave it alone as long as that host's heartbeat changes. Nobody compares wall clocks: they may be
minutes apart.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.domain import keys
from tunesmith.domain.errors import DataLoss
from tunesmith.domain.jobs import Job
from tunesmith.jobs.ticking import Ticker
from tunesmith.ports.clock import Clock
from tunesmith.ports.store import Store
from tunesmith.state_objects import change_object, find_object, new_writer

log = logging.getLogger(__name__)

BEATS_PER_LIMIT = 5
"""Heartbeats within the time after which a silent host counts as lost: four may be late or fail."""

LOOKS_PER_LIMIT = 10

FORGOTTEN_AFTER = 180
"""Limits of silence after which a host's heartbeat is removed: an hour at the default of 20 s."""


@dataclass(frozen=True, slots=True)
class HostState:
    """A host's heartbeat: by service, the number of its last beat."""

    rev: int
    writer: str
    beats: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """The state object."""
        return {"rev": self.rev, "writer": self.writer, "beats": dict(self.beats)}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> HostState:
        """The inverse of `to_json`."""
        beats = {str(service): int(number) for service, number in row["beats"].items()}
        return HostState(int(row["rev"]), str(row["writer"]), beats)


@dataclass(slots=True)
class _Seen:
    """What was observed of another host."""

    looked_s: float
    beats: Mapping[str, int]
    silent_s: dict[str, float] = field(default_factory=dict)
    """By service: how long its beat was seen not to change."""


class Hosts:
    """The heartbeat of this host, and what is known of the others'.

    `host` is the launcher's scope; with an empty one every replica sees all launches, so all jobs are ours and nothing
    is written. `services` are those of this process.
    """

    def __init__(
        self, store: Store, clock: Clock, *, host: str, services: Sequence[str], lost_after_s: float = 20.0
    ) -> None:
        self.host = host
        self._store = store
        self._clock = clock
        self._services = tuple(services)
        self._look_interval_s = lost_after_s / LOOKS_PER_LIMIT
        self._lost_after_s = lost_after_s
        self._seen: dict[str, _Seen] = {}
        self._own: dict[str, int] = {}
        self._shared = False
        self._ticker = Ticker("heartbeat", self.beat, interval_s=lost_after_s / BEATS_PER_LIMIT)

    def start(self) -> None:
        """Beat in a thread from now on."""
        if self.host and self._services:
            self._ticker.start()

    def stop(self) -> None:
        """End the thread and take this process's services out of the heartbeat."""
        if not self.host or not self._services:
            return
        self._ticker.stop()

        def step(current: HostState | None) -> HostState | None:
            left = {name: n for name, n in current.beats.items() if name not in self._services} if current else {}
            return None if current is None else HostState(current.rev + 1, new_writer(), left)

        state, _ = self._change(step)
        if state is not None and not state.beats:
            self._store.delete(keys.host(self.host))

    def beat(self) -> None:
        """Show that this process lives. Raises what the store raises."""

        def step(current: HostState | None) -> HostState:
            beats = dict(current.beats) if current else {}
            for service in self._services:
                beats[service] = beats.get(service, 0) + 1
            return HostState((current.rev if current else 0) + 1, new_writer(), beats)

        before = dict(self._own)
        try:
            state, _ = self._change(step)
        except DataLoss:
            log.exception("the heartbeat of this host is not readable; it is written anew")
            self._store.delete(keys.host(self.host))
            return
        assert state is not None
        self._own = {service: state.beats[service] for service in self._services}
        foreign = any(service in before and self._own[service] != before[service] + 1 for service in self._services)
        if foreign and not self._shared:
            log.error(
                "another process keeps the heartbeat of this host (%s) too: its data folder is in use twice, or was "
                "copied; stop one of them, or delete launches.scope in the copy",
                self.host,
            )
        self._shared = foreign

    def owns(self, job: Job) -> bool:
        """Whether this host sees the job's launch."""
        return not self.host or job.host in ("", self.host)

    def is_silent(self, job: Job) -> bool:
        """Whether the job's host, another one, has shown no life for the limit. Raises what the store raises.

        Only time during which the heartbeat could be read counts, so that neither a store that was away nor a process
        that was suspended makes others look dead.
        """
        seen = self._look(job.host)
        return seen.silent_s.setdefault(job.service, 0.0) >= self._lost_after_s

    def forget_gone(self) -> None:
        """Remove heartbeats of hosts that have been silent for very long."""
        for info in list(self._store.list("hosts/")):
            host = info.key.removeprefix("hosts/")
            if host == self.host or not self.host:
                continue
            silent_s = self._look(host).silent_s.values()
            if silent_s and min(silent_s) >= FORGOTTEN_AFTER * self._lost_after_s:
                self._store.delete(info.key)
                del self._seen[host]

    def _look(self, host: str) -> _Seen:
        now_s = self._clock.monotonic_s()
        seen = self._seen.get(host)
        if seen is not None and now_s - seen.looked_s < self._look_interval_s:
            return seen
        try:
            state = find_object(self._store, keys.host(host), HostState.from_json, what=f"heartbeat of host {host}")
        except DataLoss:
            state = None  # a host that lives writes it anew
        beats = state.beats if state is not None else {}
        if seen is None:
            seen = self._seen[host] = _Seen(now_s, beats)
        passed_s = min(now_s - seen.looked_s, 2 * self._look_interval_s)
        for service in {*seen.silent_s, *beats}:
            same = beats.get(service) == seen.beats.get(service)
            seen.silent_s[service] = seen.silent_s.get(service, 0.0) + passed_s if same else 0.0
        seen.looked_s, seen.beats = now_s, beats
        return seen

    def _change(self, step: Any) -> tuple[HostState | None, bool]:
        key = keys.host(self.host)
        return change_object(self._store, key, step, parse=HostState.from_json, what=f"heartbeat of host {self.host}")
