"""Every bus adapter against the bus's contract."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from contract.bus_contract import AppendBytes, BusContract, Opener
from tunesmith.adapters.cloud_events import EncodedEvent
from tunesmith.adapters.prefixed_bus import PrefixedBus
from tunesmith.adapters.sqlite_bus import SqliteBus
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.ports.bus import EventBus


class TestSqliteBus(BusContract):
    """One file on this machine."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        """A file of its own for each test."""
        return partial(SqliteBus, tmp_path / "bus.sqlite", clock=SystemClock(), session_timeout_s=3.0)

    @pytest.fixture
    def topic(self, bus: SqliteBus) -> str:
        """The only topic of that file."""
        bus.ensure_topics(["topic"])
        return "topic"

    @pytest.fixture
    def append_bytes(self, bus: SqliteBus, topic: str) -> AppendBytes:
        """Past `encode`."""

        def append(headers: Sequence[tuple[str, bytes]], key: bytes, value: bytes) -> None:
            bus.publish_encoded(topic, [EncodedEvent(list(headers), key, value)])

        return append


class TestPrefixedSqliteBus(TestSqliteBus):
    """The same under names of an installation's own."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        """A file of its own for each test."""
        return partial(_prefixed, tmp_path / "bus.sqlite")

    @pytest.fixture
    def append_bytes(self, bus: EventBus, topic: str, tmp_path: Path) -> AppendBytes:
        """Past `encode`, and past the prefix."""

        def append(headers: Sequence[tuple[str, bytes]], key: bytes, value: bytes) -> None:
            inner = SqliteBus(tmp_path / "bus.sqlite", clock=SystemClock())
            inner.publish_encoded(f"prod.{topic}", [EncodedEvent(list(headers), key, value)])
            inner.close()

        return append


def _prefixed(path: Path) -> EventBus:
    return PrefixedBus(SqliteBus(path, clock=SystemClock(), session_timeout_s=3.0), "prod.")
