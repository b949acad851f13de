"""Dead letters on Kafka: what they carry, which of them wait, and putting them back."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from tunesmith.adapters.cloud_events import (
    EncodedEvent,
    Headers,
    dead_letter_topic,
    no_dead_letters,
    read_dead_letter,
    with_origin,
    without_origin,
)
from tunesmith.adapters.kafka_clients import open_client
from tunesmith.adapters.kafka_connection import KafkaConnection
from tunesmith.adapters.kafka_errors import failures
from tunesmith.adapters.kafka_publisher import KafkaPublisher
from tunesmith.adapters.kafka_topics import KafkaTopics
from tunesmith.domain.errors import Unavailable
from tunesmith.ports.bus import DeadLetter, Message

PARTITION = 0
"""A dead-letter topic is made with one partition: an offset names a letter."""
REPLAYED = "replayed_position"
"""The only header of a mark: that the letter at this offset was put back."""
_NULLS = "origin_nulls"
"""Kafka's producer takes no header without a value; this one lists which had none, by number, and `value`."""
_READ_TIMEOUT_S = 10.0
_READ_AT_ONCE = 100


def with_origin_and_nulls(record: Any, message: Message, *, group: str, error: str) -> EncodedEvent:
    """The dead letter of a record, from which `_restored` makes the record's own bytes again."""
    nulls: list[int | str] = [number for number, (_, value) in enumerate(record.headers) if value is None]
    if record.key is None and record.value is None:  # the producer refuses such a message
        nulls.append("value")
    headers = [(name, value or b"") for name, value in with_origin(record.headers, message, group=group, error=error)]
    if nulls:
        headers.append((_NULLS, json.dumps(nulls).encode()))
    return EncodedEvent(headers, record.key, b"" if "value" in nulls else record.value)


class KafkaDeadLetters:
    """Reads dead-letter topics, without a consumer group, and puts letters back. Thread-safe."""

    def __init__(self, connection: KafkaConnection, topics: KafkaTopics, publisher: KafkaPublisher) -> None:
        self._connection = connection
        self._topics = topics
        self._publisher = publisher

    def waiting(self, topic: str, *, limit: int) -> Sequence[DeadLetter]:
        """The oldest `limit` letters that were not put back."""
        return [
            read_dead_letter(topic, *_restored(record), position=record.offset)
            for record in self._waiting(topic, positions=None, limit=limit)
        ]

    def replay(self, topic: str, *, positions: Collection[int] | None, limit: int) -> Sequence[DeadLetter]:
        """Publish the letters' own bytes to `topic` again, then mark them; those put back."""
        records = self._waiting(topic, positions=positions, limit=limit)
        missing = sorted(set(positions or ()) - {record.offset for record in records})
        if missing:
            raise no_dead_letters(topic, missing)
        for start in range(0, len(records), _READ_AT_ONCE):
            some = records[start : start + _READ_AT_ONCE]
            self._publisher.publish(topic, [_again(record) for record in some])
            # After what they speak of: dying in between publishes the same events twice, which consumers drop.
            marks = [EncodedEvent([(REPLAYED, str(record.offset).encode())], None, b"") for record in some]
            self._publisher.publish(dead_letter_topic(topic), marks)
        return [read_dead_letter(topic, *_restored(record), position=record.offset) for record in records]

    def _waiting(self, topic: str, *, positions: Collection[int] | None, limit: int) -> list[Any]:
        self._topics.check([dead_letter_topic(topic)])
        consumer = open_client(
            KafkaConsumer,
            self._connection,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        try:
            with failures(self._connection, f"reading the dead letters of {topic}"):
                # Twice: a mark stands behind the letter it is about, and letters may be too large to hold them all.
                there: set[int] = set()
                replayed: set[int] = set()
                for record in self._records(consumer, topic, start=0):
                    mark = dict(record.headers).get(REPLAYED)
                    if mark is None:
                        there.add(record.offset)
                    else:
                        replayed.add(int(mark))
                wanted = there - replayed
                if positions is not None:
                    wanted &= set(positions)
                wanted = set(sorted(wanted)[:limit])
                if not wanted:
                    return []
                found = []
                for record in self._records(consumer, topic, start=min(wanted)):
                    if record.offset in wanted:
                        found.append(record)
                    if len(found) == len(wanted):
                        break
                return found
        finally:
            consumer.close(autocommit=False)

    def _records(self, consumer: Any, topic: str, *, start: int) -> Iterator[Any]:
        """The records from `start` to what is the end now."""
        partition = TopicPartition(dead_letter_topic(topic), PARTITION)
        timeout_ms = _READ_TIMEOUT_S * 1000
        consumer.assign([partition])
        end = consumer.end_offsets([partition], timeout_ms=timeout_ms)[partition]
        consumer.seek(partition, start)
        while consumer.position(partition, timeout_ms=timeout_ms) < end:
            records = consumer.poll(timeout_ms=timeout_ms).get(partition, [])
            if not records and consumer.position(partition, timeout_ms=timeout_ms) < end:
                raise Unavailable(
                    f"Kafka at {self._connection.address} gave nothing of {partition.topic} for {_READ_TIMEOUT_S:g} s"
                )
            yield from (record for record in records if record.offset < end)


def _restored(record: Any) -> tuple[Headers, bytes | None, bytes | None]:
    """The letter's headers with origin, key and value, with what was null null again."""
    try:
        nulls = set(json.loads(dict(record.headers).get(_NULLS, b"[]")))
    except (ValueError, TypeError):
        nulls = set()
    headers = [
        (name, None if number in nulls else value)
        for number, (name, value) in enumerate(record.headers)
        if name != _NULLS
    ]
    return headers, record.key, None if "value" in nulls else record.value


def _again(record: Any) -> EncodedEvent:
    """The message as it came first. Of headers without a value, which cannot be sent, the value becomes empty."""
    headers, key, value = _restored(record)
    plain = [(name, value or b"") for name, value in without_origin(headers)]
    return EncodedEvent(plain, key, b"" if key is None and value is None else value)
