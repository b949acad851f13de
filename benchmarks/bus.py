"""Events a second through the bus on Kafka against bare kafka-python, and how long an event takes to its handler.

    python benchmarks/bus.py            # needs Java 17 and Maven, or TUNESMITH_TEST_KAFKA=host:port

Both sides publish and consume the same bytes on the same broker, in turns: an idempotent producer that waits for all
acknowledgements of a batch, a consumer that commits after each poll. The bus encodes, checks and decodes events
besides; bare kafka-python moves bytes. Bar: the bus reaches 0.9 of the bare client.
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
from uuid import uuid4

from kafka import KafkaConsumer, KafkaProducer
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
    with _broker() as address, closing(KafkaBus(KafkaConnection((address,)), clock=SystemClock())) as bus:
        events = [_event(n) for n in range(NUM_EVENTS)]
        ratios: dict[str, list[float]] = {"publish": [], "consume": []}
        rates: dict[str, list[tuple[float, float]]] = {"publish": [], "consume": []}
        for number in range(ROUNDS + 1):
            sides: list[Callable[[], tuple[float, float]]] = [
                lambda: _through_bus(bus, events),
                lambda: _bare(address, bus, events),
            ]
            first = number % 2
            results = {first: sides[first](), 1 - first: sides[1 - first]()}
            if number == 0:
                continue  # warms up
            for i, part in enumerate(("publish", "consume")):
                rates[part].append((results[0][i], results[1][i]))
                ratios[part].append(results[0][i] / results[1][i])
        print(f"{NUM_EVENTS} events of about 1 KB in batches of {BATCH}, {ROUNDS} rounds in turns, medians")
        print(f"{'':10}{'bus':>12}{'bare':>12}{'ratio':>8}{'bar':>6}")
        for part in ("publish", "consume"):
            bus_rate, bare_rate = (statistics.median(rate[i] for rate in rates[part]) for i in (0, 1))
            print(f"{part:10}{bus_rate:10.0f}/s{bare_rate:10.0f}/s{statistics.median(ratios[part]):8.2f}{0.9:6.1f}")
        waits_ms = sorted(_hand_overs(bus))
        print(
            f"hand-over publish -> handler, one event at a time: p50 {waits_ms[len(waits_ms) // 2]:.1f} ms, "
            f"p99 {waits_ms[int(len(waits_ms) * 0.99)]:.1f} ms"
        )


@contextmanager
def _broker() -> Iterator[str]:
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
