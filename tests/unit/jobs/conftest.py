"""A job store over a real folder and a real bus, with a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from doubles.fake_clock import FakeClock
from doubles.recording_launcher import RecordingLauncher
from fixtures_places import Place
from tunesmith.domain.events import Event
from tunesmith.jobs.hosts import Hosts
from tunesmith.jobs.reconciler import JobKind, Reconciler
from tunesmith.jobs.state import JobStore
from tunesmith.ports.bus import EventBus
from tunesmith.ports.store import Store


@dataclass
class Workshop:
    """What a reconciler works with."""

    place: Place
    store: Store
    bus: EventBus
    launcher: RecordingLauncher
    clock: FakeClock
    jobs: JobStore
    reconciler: Reconciler
    readers: int = 0

    def published(self) -> list[Event]:
        """Every event of the service's topic, in order."""
        self.readers += 1
        return self.place.events(self.bus, ["tunesmith.trainer"], group=f"reader-{self.readers}")


@pytest.fixture
def workshop(place: Place, tmp_path: Path) -> Iterator[Workshop]:
    clock, launcher = FakeClock(), RecordingLauncher()
    store = place.store(tmp_path)
    bus = place.bus(tmp_path, clock=clock)
    bus.ensure_topics(["tunesmith.trainer"])
    jobs = JobStore(store, clock)
    reconciler = Reconciler(
        jobs=jobs,
        bus=bus,
        launcher=launcher,
        clock=clock,
        kinds={
            "tune": JobKind(("work",), slot="model", max_parallel=1, shrinks=True),
            "judge": JobKind(("work",), slot="model", max_parallel=1),
            "promote": JobKind(("work",), slot="promote", max_parallel=2),
            "curate": JobKind(("work",), slot="curate", max_parallel=2),
        },
        worker_env={},
        hosts=Hosts(store, clock, host=launcher.scope, services=["trainer"]),
    )
    yield Workshop(place, store, bus, launcher, clock, jobs, reconciler)
    bus.close()
