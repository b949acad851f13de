"""What poison in the traffic costs the keys that carry none, on Kafka: delay with it and without, and where it went.

    python benchmarks/poison.py         # needs Java 17 and Maven, or TUNESMITH_TEST_KAFKA=host:port

The same traffic goes through the consumer loop in turns: without poison, and with 5 % of each kind. Poison stands in a
few keys, healthy events of theirs between; healthy keys carry none, and share all partitions with the others. A delay
counts from when an event was due to be published to its handler. Bars: p99 of the healthy keys at most twice that
without poison; all poison in the dead letters, with where it stood, why and after which attempt, and nothing else.

Events that meet an outage (Unavailable) must not become dead letters within the time of a run: when all healthy keys
are through, the outage ends, and all that it held back must be handled. In all runs each key must stay in order.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, get_args
from uuid import uuid4

from bus import broker_address

from tunesmith.adapters.cloud_events import EncodedEvent, encode
from tunesmith.adapters.kafka_bus import KafkaBus
from tunesmith.adapters.kafka_connection import KafkaConnection
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain.errors import InvalidInput, Unavailable
from tunesmith.domain.events import DATASET_BUILT, Event
from tunesmith.jobs.consuming import MAX_ATTEMPTS, ConsumerLoop
from tunesmith.ports.bus import DeadLetter

NUM_EVENTS = 600
EVENTS_A_SECOND = 200
BATCH = 4
ROUNDS = 4
NUM_KEYS = 64
POISON_EVERY = 20
POISONED_KEYS = 8
PATIENCE_S = 60.0
BAR = 2.0

Kind = Literal["none", "undecodable", "refused", "failing", "away"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NAMES: dict[Kind, str] = {
    "none": "without poison",
    "undecodable": "undecodable",
    "refused": "refused by the handler",
    "failing": "handler always fails",
    "away": "handler always Unavailable",
}
LETTERS: dict[Kind, tuple[str, int]] = {
    "undecodable": ("undecodable: ", 1),
    "refused": ("InvalidInput: this dataset's hash", 1),
    "failing": ("RuntimeError: broken", MAX_ATTEMPTS),
}
"""How the error of the poison's dead letters begins, and after which attempt they were given up."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of the traffic."""

    p50_ms: float
    """Of the healthy keys, as the next."""
    p99_ms: float
    num_due: int
    """Poison that must be in the dead letters."""
    num_dead: int
    """Poison that stands there with its right topic, partition, offset, error and attempt."""
    num_wrong: int
    """Dead letters that are no poison, or doubled, or tell something wrong."""


def main() -> None:
    """Print the table."""
    logging.disable()
    with broker_address() as address, closing(KafkaBus(KafkaConnection((address,)), clock=SystemClock())) as bus:
        runs: dict[Kind, list[Outcome]] = {kind: [] for kind in KINDS}
        for number in range(ROUNDS + 1):
            for kind in KINDS if number % 2 else reversed(KINDS):
                outcome = _run(bus, kind)
                if number:  # the first round warms up
                    runs[kind].append(outcome)
    print(
        f"{NUM_EVENTS} events at {EVENTS_A_SECOND} a second over {NUM_KEYS} keys ({POISONED_KEYS} with poison, 5 % of "
        f"the events), {ROUNDS} rounds in turns, medians of the healthy keys"
    )
    print(f"{'':28}{'p50':>10}{'p99':>12}{'p99 ratio':>11}{'bar':>6}{'due':>6}{'dead letters':>14}{'wrong':>7}")
    for kind, outcomes in runs.items():
        p50_ms, p99_ms = (statistics.median(getattr(run, part) for run in outcomes) for part in ("p50_ms", "p99_ms"))
        ratio = statistics.median(b.p99_ms / a.p99_ms for a, b in zip(runs["none"], outcomes, strict=True))
        due, dead, wrong = (
            sum(getattr(run, part) for run in outcomes) for part in ("num_due", "num_dead", "num_wrong")
        )
        against = "" if kind == "none" else f"{ratio:.2f}"
        share = f"{dead} ({dead / due:.0%})" if due else f"{dead}"
        bar = "" if kind == "none" else f"{BAR:g}"
        print(f"{NAMES[kind]:28}{p50_ms:7.1f} ms{p99_ms:9.1f} ms{against:>11}{bar:>6}{due:6}{share:>14}{wrong:7}")
    print("dead letters: those with the right topic, partition, offset, error and attempt (bar 100 % of those due)")


def _traffic(kind: Kind) -> list[tuple[str, EncodedEvent]]:
    """Event ids and messages, in the order in which they are published. Poison's ids begin with its kind."""
    messages = []
    for number in range(NUM_EVENTS):
        is_poison = kind != "none" and number % POISON_EVERY == 0
        nth = number // POISON_EVERY
        key = f"job-{nth % POISONED_KEYS}" if number % POISON_EVERY == 0 else f"job-{number % NUM_KEYS}"
        what = kind if is_poison else "healthy"
        event = Event(
            f"{what}/{uuid4().hex}", DATASET_BUILT, "/tunesmith/trainer", key, "2026-11-21T10:00:00.000000Z",
            {"number": number, "hash": f"{number:064x}"},
        )  # fmt: skip
        encoded = encode(event)
        if what == "undecodable":
            encoded = EncodedEvent(encoded.headers, encoded.key, b"\xff" + (encoded.value or b""))
        messages.append((event.id, encoded))
    return messages


class _Handler:
    """Notes when each event was handled first; poison meets what its id says."""

    def __init__(self) -> None:
        self.handled_s: dict[str, float] = {}
        self.numbers: dict[str, list[int]] = {}
        """Of the events handled, by key."""
        self.is_away = True

    def __call__(self, event: Event) -> None:
        if event.id.startswith("refused/"):
            raise InvalidInput("this dataset's hash is of another kind")
        if event.id.startswith("failing/"):
            raise RuntimeError("broken")
        if event.id.startswith("away/") and self.is_away:
            raise Unavailable("the store does not answer")
        self.handled_s.setdefault(event.id, time.perf_counter())
        self.numbers.setdefault(event.subject, []).append(event.data["number"])


def _run(bus: KafkaBus, kind: Kind) -> Outcome:
    topic = f"benchmark-{uuid4().hex}"
    bus.ensure_topics([topic])
    traffic = _traffic(kind)
    healthy_keys = {f"job-{n}".encode() for n in range(POISONED_KEYS, NUM_KEYS)}
    in_healthy_keys = {id_ for id_, message in traffic if message.key in healthy_keys}
    poison = {id_ for id_, _ in traffic if not id_.startswith("healthy/")}
    due = poison if kind in LETTERS else set()
    handler = _Handler()
    consumer = ConsumerLoop(
        bus=bus, clock=SystemClock(), group=topic, topics=[topic], handlers={DATASET_BUILT: handler}
    )
    consumer.start()
    try:
        for n in range(16):  # into every partition; when they are through, the consumer has all of them
            data = {"number": n}
            warm = Event(f"warm-{n}", DATASET_BUILT, "/warm", f"warm-{n}", "2026-11-21T10:00:00.000000Z", data)
            bus.publish(topic, [warm])
        _wait_until(lambda: len(handler.handled_s) == 16)
        due_s: dict[str, float] = {}
        began_s = time.perf_counter()
        for start in range(0, NUM_EVENTS, BATCH):
            batch, at_s = traffic[start : start + BATCH], began_s + start / EVENTS_A_SECOND
            time.sleep(max(0.0, at_s - time.perf_counter()))
            due_s.update((id_, at_s) for id_, _ in batch)
            bus.publish_encoded(topic, [message for _, message in batch])
        _wait_until(lambda: handler.handled_s.keys() >= in_healthy_keys)
        if kind == "away":
            assert not bus.dead_letters(topic), "an outage of seconds costs no event"
            assert not handler.handled_s.keys() & poison
            handler.is_away = False
        _wait_until(lambda: len(handler.handled_s) == 16 + NUM_EVENTS - len(due))
        _wait_until(lambda: len(bus.dead_letters(topic, limit=NUM_EVENTS)) >= len(due))
    finally:
        consumer.stop()
    for numbers in handler.numbers.values():
        assert numbers == sorted(numbers), "a key got out of order"
    delays_ms = sorted((handler.handled_s[id_] - due_s[id_]) * 1000 for id_ in in_healthy_keys)
    letters = bus.dead_letters(topic, limit=NUM_EVENTS)
    described = _described(kind, topic, letters, _places(bus, topic, kind))
    p50_ms, p99_ms = (delays_ms[int(len(delays_ms) * share)] for share in (0.5, 0.99))
    return Outcome(p50_ms, p99_ms, len(due), len(described), len(letters) - len(described))


def _described(
    kind: Kind, topic: str, letters: Sequence[DeadLetter], poison: set[tuple[int, int]]
) -> set[tuple[int, int]]:
    """Partition and offset of the letters that say truly where they stood, and why and when they were given up."""
    if kind not in LETTERS:
        return set()
    error, attempt = LETTERS[kind]
    return {
        (letter.partition, letter.offset)
        for letter in letters
        if letter.topic == topic and letter.error.startswith(error) and letter.attempt == attempt
    } & poison


def _places(bus: KafkaBus, topic: str, kind: Kind) -> set[tuple[int, int]]:
    """Partition and offset of each poisonous message of the topic, read by a group of its own."""
    found: set[tuple[int, int]] = set()
    num_read = 0
    with closing(bus.subscribe(f"{topic}-audit", [topic])) as subscription:
        while num_read < NUM_EVENTS + 16:
            for message in subscription.poll(timeout_s=1.0, max_messages=500):
                num_read += 1
                if message.event is None or message.event.id.startswith(f"{kind}/"):
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
