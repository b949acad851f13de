"""The Kafka bus against the bus's contract, on a real broker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from uuid import uuid4

import pytest

from contract.bus_contract import AppendBytes, BusContract, Opener
from tunesmith.adapters.cloud_events import EncodedEvent
from tunesmith.adapters.kafka_bus import KafkaBus
from tunesmith.adapters.kafka_connection import KafkaConnection
from tunesmith.adapters.system_clock import SystemClock


class TestKafkaBus(BusContract):
    """Sessions of seconds: the broker must allow them (group.min.session.timeout.ms)."""

    @pytest.fixture
    def opener(self, kafka_broker: str) -> Opener:
        """All tests share the broker."""
        return partial(
            KafkaBus,
            KafkaConnection((kafka_broker,)),
            clock=SystemClock(),
            session_timeout_s=3.0,
            max_poll_interval_s=3.0,
        )

    @pytest.fixture
    def topic(self, bus: KafkaBus) -> str:
        """A new topic."""
        name = f"topic-{uuid4().hex}"
        bus.ensure_topics([name])
        return name

    @pytest.fixture
    def append_bytes(self, bus: KafkaBus, topic: str) -> AppendBytes:
        """Past `encode`."""

        def append(headers: Sequence[tuple[str, bytes]], key: bytes, value: bytes) -> None:
            bus.publish_encoded(topic, [EncodedEvent(list(headers), key, value)])

        return append
