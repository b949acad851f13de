"""Events a second through the bus on Kafka against bare kafka-python, and how long an event takes to its handler.

    python benchmarks/bus.py            # needs Java 17 and Maven, or TUNESMITH_TEST_KAFKA=host:port

All sides publish and consume the same bytes on the same broker, in turns: an idempotent producer that waits for all
acknowledgements of a batch, a consumer that commits after each poll. The bus encodes, checks and decodes events
besides; the bare client moves bytes. Bar: the bus reaches 0.9 of bare kafka-python.

There are two peers. `bare` is kafka-python as `pip install kafka-python` brings it, whose checksums are computed in
Python; the bus asks for its `crc32c` extra, which computes them in C. `bare+crc32c` is the same client with that extra:
what is left between it and the bus is the price of events over bytes.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from unittest import mock
from uuid import uuid4

from kafka import KafkaConsumer, KafkaProducer
from kafka.record import default_records
from kafka.record._crc32c import crc as crc32c_in_python
from kafka.structs import OffsetAndMetadata

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import real_parts

from tunesmith.adapters.cloud_events import encode
from tunesmith.adapters.kafka_bus import KafkaBus
from tunesmith.adapters.kafka_connection import KafkaConnection
from tunesmith.adapters.kafka_publisher import BATCH_BYTES
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain.events import DATASET_BUILT, Event
from tunesmith.jobs.consuming import POLL_MESSAGES, ConsumerLoop

NUM_EVENTS = 6_000
BATCH = 500
ROUNDS = 5
NUM_HAND_OVERS = 300
PAYLOAD_CHARS = 600
"""About what the keys, counts and hashes of a dataset's event take."""


def main() -> None:
    """Print the table."""
    with broker_address() as address, closing(KafkaBus(KafkaConnection((address,)), clock=SystemClock())) as bus:
        events = [_event(n) for n in range(NUM_EVENTS)]
        sides: dict[str, Callable[[], tuple[float, float]]] = {
            "bus": lambda: _through_bus(bus, events),
            "bare": lambda: _with_checksums_in_python(lambda: _bare(address, bus, events)),
            "bare+crc32c": lambda: _bare(address, bus, events),
        }
        rounds: list[dict[str, tuple[float, float]]] = []
        for number in range(ROUNDS + 1):
            names = list(sides)
            turn = number % len(names)
            rounds.append({name: sides[name]() for name in names[turn:] + names[:turn]})
        del rounds[0]  # it warmed up
        print(f"{NUM_EVENTS} events of about 1 KB in batches of {BATCH}, {ROUNDS} rounds in turns, medians")
        heads = "".join(f"{name:>14}" for name in sides)
        print(f"{'':10}{heads}{'bus/bare':>10}{'bar':>5}{'bus/bare+crc32c':>17}")
        for i, part in enumerate(("publish", "consume")):
            rates = "".join(f"{statistics.median(each[name][i] for each in rounds):12.0f}/s" for name in sides)
            plain, with_c = (
                statistics.median(each["bus"][i] / each[peer][i] for each in rounds) for peer in ("bare", "bare+crc32c")
            )
            print(f"{part:10}{rates}{plain:10.2f}{0.9:5.1f}{with_c:17.2f}")
        waits_ms = sorted(_hand_overs(bus))
        print(
            f"hand-over publish -> handler, one event at a time: p50 {waits_ms[len(waits_ms) // 2]:.1f} ms, "
            f"p99 {waits_ms[int(len(waits_ms) * 0.99)]:.1f} ms"
        )


@contextmanager
def broker_address() -> Iterator[str]:
    """A broker of its own, or the one that TUNESMITH_TEST_KAFKA names."""
    if given := os.environ.get("TUNESMITH_TEST_KAFKA"):
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        broker = real_parts.kafka(Path(folder))
        with real_parts.running(broker):
            yield broker.address


def _event(number: int) -> Event:
    data = {"number": number, "hash": f"{number:064x}", "keys": "k" * PAYLOAD_CHARS}
    return Event(
        uuid4().hex, DATASET_BUILT, "/tunesmith/trainer", f"job-{number % 64}", "2026-11-21T10:00:00.000000Z", data
    )


def _topic(bus: KafkaBus) -> str:
    topic = f"benchmark-{uuid4().hex}"
    bus.ensure_topics([topic])
    return topic


def _through_bus(bus: KafkaBus, events: list[Event]) -> tuple[float, float]:
    """Events a second published, and consumed."""
    topic = _topic(bus)
    bus.publish(topic, events[:1])
    began_s = time.perf_counter()
    for start in range(0, NUM_EVENTS, BATCH):
        bus.publish(topic, events[start : start + BATCH])
    published_s = time.perf_counter() - began_s
    handled = 0

    def handler(_event: Event) -> None:
        nonlocal handled
        handled += 1

    consumer = ConsumerLoop(
        bus=bus, clock=SystemClock(), group=topic, topics=[topic], handlers={DATASET_BUILT: handler}
    )
    with closing(bus.subscribe(topic, [topic])) as subscription:
        while not handled:
            consumer.handle_batch(subscription)
        began, began_s = handled, time.perf_counter()
        while handled < NUM_EVENTS + 1:
            consumer.handle_batch(subscription)
        consumed_s = time.perf_counter() - began_s
    return NUM_EVENTS / published_s, (handled - began) / consumed_s


def _with_checksums_in_python(measure: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    with mock.patch.object(default_records, "calc_crc32c", crc32c_in_python):
        return measure()


def _bare(address: str, bus: KafkaBus, events: list[Event]) -> tuple[float, float]:
    topic = _topic(bus)
    encoded = [encode(event) for event in events]
    producer = KafkaProducer(
        bootstrap_servers=address, acks="all", enable_idempotence=True, batch_size=BATCH_BYTES, metrics_enabled=False
    )
    first = encoded[0]
    producer.send(topic, first.value, first.key, first.headers).get(30)
    began_s = time.perf_counter()
    for start in range(0, NUM_EVENTS, BATCH):
        sent = [producer.send(topic, e.value, e.key, e.headers) for e in encoded[start : start + BATCH]]
        for future in sent:
            future.get(30)
    published_s = time.perf_counter() - began_s
    producer.close()
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=address,
        group_id=topic,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=POLL_MESSAGES,
        metrics_enabled=False,
    )

    def poll() -> int:
        batches = consumer.poll(timeout_ms=500)
        for partition, records in batches.items():
            consumer.commit({partition: OffsetAndMetadata(records[-1].offset + 1, "", -1)})
        return sum(map(len, batches.values()))

    handled = 0
    while not handled:
        handled += poll()
    began, began_s = handled, time.perf_counter()
    while handled < NUM_EVENTS + 1:
        handled += poll()
    consumed_s = time.perf_counter() - began_s
    consumer.close()
    return NUM_EVENTS / published_s, (handled - began) / consumed_s


def _hand_overs(bus: KafkaBus) -> list[float]:
    """Milliseconds from the call that publishes to the handler's."""
    topic = _topic(bus)
    arrived = threading.Event()
    at_s = 0.0

    def handler(_event: Event) -> None:
        nonlocal at_s
        at_s = time.perf_counter()
        arrived.set()

    consumer = ConsumerLoop(
        bus=bus, clock=SystemClock(), group=topic, topics=[topic], handlers={DATASET_BUILT: handler}
    )
    consumer.start()
    waits_ms = []
    try:
        for number in range(NUM_HAND_OVERS + 20):
            arrived.clear()
            began_s = time.perf_counter()
            bus.publish(topic, [_event(number)])
            if not arrived.wait(60):
                raise TimeoutError("an event was not handed over within 60 s")
            if number >= 20:
                waits_ms.append((at_s - began_s) * 1000)
    finally:
        consumer.stop()
    return waits_ms


if __name__ == "__main__":
    main()
