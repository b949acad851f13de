"""What poison in the traffic costs the keys that carry none, on Kafka: delay with it and without, and where it went.

    python benchmarks/poison.py         # needs Java 17 and Maven, or TUNESMITH_TEST_KAFKA=host:port

The same traffic goes through the consumer loop in turns: without poison, and with 5 % of it. Poison is half messages
that cannot be decoded, half events that their handler refuses for what is in them. Healthy keys are those that carry
no poison; they share all partitions with the others. A delay counts from when an event was due to be published to its
handler. Bars: all poison in the dead letters, with where it stood, why and after which attempt; p99 of the healthy keys
at most twice that without poison.

Not measured: events that fail for ever as if something were away. Their retries pause their partition, with all of its
keys, for 3 s each.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import real_parts

from tunesmith.adapters.cloud_events import EncodedEvent, encode
from tunesmith.adapters.kafka_bus import KafkaBus
from tunesmith.adapters.kafka_connection import KafkaConnection
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.events import DATASET_BUILT, Event
from tunesmith.jobs.consuming import ConsumerLoop

NUM_EVENTS = 600
EVENTS_A_SECOND = 200
BATCH = 4
ROUNDS = 4
NUM_KEYS = 64
POISON_EVERY = 20
POISONED_KEYS = 8
"""They carry the poison, and healthy events between."""
PATIENCE_S = 60.0

Poison = Literal["none", "refused"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of the traffic."""

    p99_ms: float
    """Of the healthy keys."""
    num_poison: int
    num_dead: int
    """Poison that stands in the dead letters with its right topic, partition, offset, error and attempt."""
    num_wrong: int
    """Dead letters that are no poison, or doubled, or tell something wrong."""


def main() -> None:
    """Print the table."""
    logging.disable()
    with _broker() as address, closing(KafkaBus(KafkaConnection((address,)), clock=SystemClock())) as bus:
        sides: tuple[Poison, Poison] = ("none", "refused")
        outcomes: dict[Poison, list[Outcome]] = {side: [] for side in sides}
        for number in range(ROUNDS + 1):
            for side in sides if number % 2 else reversed(sides):
                outcome = _run(bus, side)
                if number:  # the first round warms up
                    outcomes[side].append(outcome)
    clean, poisoned = outcomes["none"], outcomes["refused"]
    ratio = statistics.median(b.p99_ms / a.p99_ms for a, b in zip(clean, poisoned, strict=True))
    print(
        f"{NUM_EVENTS} events at {EVENTS_A_SECOND} a second over {NUM_KEYS} keys ({POISONED_KEYS} with poison), "
        f"{ROUNDS} rounds in turns, medians"
    )
    print(f"{'':30}{'p99, healthy keys':>20}{'poison':>8}{'dead letters':>14}{'wrong':>7}")
    rows = (("without poison", clean), ("5 % poison", poisoned))
    for name, runs in rows:
        p99_ms = statistics.median(run.p99_ms for run in runs)
        poison, dead, wrong = (
            sum(getattr(run, what) for run in runs) for what in ("num_poison", "num_dead", "num_wrong")
        )
        print(f"{name:30}{p99_ms:17.1f} ms{poison:8}{dead:14}{wrong:7}")
    share = sum(run.num_dead for run in poisoned) / sum(run.num_poison for run in poisoned)
    print(f"poison in the dead letters, fully described: {share:.1%} (bar 100 %)")
    print(f"healthy keys' p99 with poison against without: {ratio:.2f} times (bar 2)")


@contextmanager
def _broker() -> Iterator[str]:
    if given := os.environ.get("TUNESMITH_TEST_KAFKA"):
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        broker = real_parts.kafka(Path(folder))
        with real_parts.running(broker):
            yield broker.address


def _traffic(kind: Poison) -> list[tuple[str, EncodedEvent]]:
    """Event ids and messages, in the order in which they are published. Poison's ids begin with its kind."""
    messages = []
    for number in range(NUM_EVENTS):
        is_poison = kind != "none" and number % POISON_EVERY == 0
        nth = number // POISON_EVERY
        key = f"job-{nth % POISONED_KEYS}" if number % POISON_EVERY == 0 else f"job-{number % NUM_KEYS}"
        undecodable = is_poison and nth % 2 == 0
        what = "undecodable" if undecodable else kind if is_poison else "healthy"
        event = Event(
            f"{what}/{uuid4().hex}", DATASET_BUILT, "/tunesmith/trainer", key, "2026-11-21T10:00:00.000000Z",
            {"number": number, "hash": f"{number:064x}"},
        )  # fmt: skip
        encoded = encode(event)
        if undecodable:
            encoded = EncodedEvent(encoded.headers, encoded.key, b"\xff" + (encoded.value or b""))
        messages.append((event.id, encoded))
    return messages


def _run(bus: KafkaBus, kind: Poison) -> Outcome:
    topic = f"benchmark-{uuid4().hex}"
    bus.ensure_topics([topic])
    traffic = _traffic(kind)
    healthy_keys = {f"job-{n}" for n in range(POISONED_KEYS, NUM_KEYS)}
    handled_s: dict[str, float] = {}
    healthy: set[str] = set()

    def handler(event: Event) -> None:
        if event.id.startswith("refused/"):
            raise InvalidInput("this dataset's hash is of another kind")
        handled_s.setdefault(event.id, time.perf_counter())
        if event.subject in healthy_keys:
            healthy.add(event.id)

    consumer = ConsumerLoop(
        bus=bus, clock=SystemClock(), group=topic, topics=[topic], handlers={DATASET_BUILT: handler}
    )
    consumer.start()
    try:
        for n in range(16):  # into every partition; when they are through, the consumer has all of them
            warm = Event(f"warm-{n}", DATASET_BUILT, "/warm", f"warm-{n}", "2026-11-21T10:00:00.000000Z", {})
            bus.publish(topic, [warm])
        _wait_until(lambda: len(handled_s) == 16)
        due_s: dict[str, float] = {}
        began_s = time.perf_counter()
        for start in range(0, NUM_EVENTS, BATCH):
            batch, at_s = traffic[start : start + BATCH], began_s + start / EVENTS_A_SECOND
            time.sleep(max(0.0, at_s - time.perf_counter()))
            due_s.update((id_, at_s) for id_, _ in batch)
            bus.publish_encoded(topic, [message for _, message in batch])
        num_poison = sum(not id_.startswith("healthy/") for id_, _ in traffic)
        _wait_until(lambda: len(handled_s) == 16 + NUM_EVENTS - num_poison)
        _wait_until(lambda: len(bus.dead_letters(topic, limit=NUM_EVENTS)) >= num_poison)
    finally:
        consumer.stop()
    delays_ms = sorted((handled_s[id_] - due_s[id_]) * 1000 for id_ in healthy & due_s.keys())
    letters = bus.dead_letters(topic, limit=NUM_EVENTS)
    poison = _poison_in(bus, topic)
    described = {
        (letter.partition, letter.offset)
        for letter in letters
        if letter.topic == topic
        and letter.error
        and letter.attempt >= 1
        and (letter.partition, letter.offset) in poison
    }
    assert len(poison) == num_poison, "the topic holds the poison that was sent"
    return Outcome(delays_ms[int(len(delays_ms) * 0.99)], num_poison, len(described), len(letters) - len(described))


def _poison_in(bus: KafkaBus, topic: str) -> set[tuple[int, int]]:
    """Partition and offset of each poisonous message of the topic."""
    found: set[tuple[int, int]] = set()
    num_read = 0
    with closing(bus.subscribe(f"{topic}-audit", [topic])) as subscription:
        while num_read < NUM_EVENTS + 16:
            for message in subscription.poll(timeout_s=1.0, max_messages=500):
                num_read += 1
                if message.event is None or message.event.id.startswith("refused/"):
                    found.add((message.partition, message.offset))
    return found


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the traffic was not through within {PATIENCE_S:g} s")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
