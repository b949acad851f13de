"""A member of a consumer group on Kafka: positions, pauses, retries and what is committed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kafka import KafkaConsumer, errors
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import MemberState
from kafka.structs import OffsetAndMetadata, TopicPartition

from tunesmith.adapters.cloud_events import dead_letter_topic, key_text, try_decode
from tunesmith.adapters.kafka_clients import open_client
from tunesmith.adapters.kafka_connection import KafkaConnection
from tunesmith.adapters.kafka_dead_letters import with_origin_and_nulls
from tunesmith.adapters.kafka_errors import failures
from tunesmith.adapters.kafka_publisher import KafkaPublisher
from tunesmith.domain.errors import Conflict, FailedPrecondition, InvalidInput, TunesmithError
from tunesmith.ports.bus import Message
from tunesmith.ports.clock import Clock

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 5.0
_LOOK_AT_GROUP_EVERY_S = 0.5
_FETCH_WAIT_MS = 250
_HEARTBEATS_PER_SESSION = 3
_NO_EPOCH = -1


@dataclass(slots=True)
class _Standing:
    """What this member knows of a partition that it holds."""

    committed: int
    """The group's first offset that is not done."""
    position: int
    """The offset that is given out next."""
    failures: dict[int, int]
    """How many attempts failed, of each message from `committed` on that had any."""
    paused_until_s: float | None = None


class KafkaSubscription(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python carries no types
    """One member of a group (ports.bus.Subscription).

    Rebalances are cooperative: who keeps a partition goes on without a stop. They happen inside `poll` only, so a
    member that commits what it was given before it polls again never has work that another one starts anew.
    How many attempts of the message at a partition's head failed is kept with the group's committed offset, and so
    survives this process.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        publisher: KafkaPublisher,
        *,
        clock: Clock,
        group: str,
        topics: Sequence[str],
        session_timeout_s: float,
        max_poll_interval_s: float,
    ) -> None:
        if not group or not topics:
            raise InvalidInput(f"a subscription needs a group and at least one topic: {group!r}, {list(topics)}")
        self._connection = connection
        self._publisher = publisher
        self._clock = clock
        self._group = group
        self._max_poll_interval_s = max_poll_interval_s
        self._closed = False
        self._standings: dict[TopicPartition, _Standing] = {}
        self._owed: dict[TopicPartition, int] = {}
        self._member_id = ""
        self._consumer: Any = open_client(
            KafkaConsumer,
            connection,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            partition_assignment_strategy=[CooperativeStickyAssignor],
            session_timeout_ms=int(session_timeout_s * 1000),
            heartbeat_interval_ms=int(session_timeout_s * 1000 / _HEARTBEATS_PER_SESSION),
            max_poll_interval_ms=int(max_poll_interval_s * 1000),
            request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
            # A fetch on its way holds up the one that starts again from a message to retry.
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            metrics_enabled=False,
        )
        self._consumer.subscribe(topics=sorted(set(topics)), listener=self)

    def poll(self, *, timeout_s: float, max_messages: int = 16) -> Sequence[Message]:
        """Messages of partitions that are not paused; empty after `timeout_s` of real time without any.

        While the brokers are away it stays empty, and goes on by itself when they are back.
        """
        self._check_open()
        deadline_s = time.monotonic() + timeout_s
        while True:
            # In short pieces: kafka-python looks at its group between polls, not within one.
            wait_s = min(deadline_s - time.monotonic(), self._resume(), _LOOK_AT_GROUP_EVERY_S)
            _keep_join(self._consumer)
            _free_slot(self._consumer)
            with failures(self._connection, f"polling for {self._group}"):
                batches = self._consumer.poll(timeout_ms=max(0.0, wait_s) * 1000, max_records=max_messages)
                messages = [] if self._was_away() else self._given_out(batches)
                self._pay()
            if messages or time.monotonic() >= deadline_s:
                return messages

    def commit(self, message: Message) -> None:
        """Record that `message` and all before it in its partition are done; never goes back."""
        self._check_open()
        partition = _partition(message)
        standing = self._standing(message)
        if message.offset + 1 > standing.committed:
            self._commit(partition, message.offset + 1)
        self._forget_until(partition, message.offset + 1)

    def holds(self, message: Message) -> bool:
        """Whether it was given out since the partition came here, is not committed, and will not come again here."""
        self._check_open()
        standing = self._standings.get(_partition(message))
        if standing is None or not self._is_member():
            return False
        return standing.committed <= message.offset < standing.position

    def note_failure(self, message: Message) -> Message:
        """Count an attempt that failed. The brokers keep it with the next commit, or at once at a partition's head."""
        self._check_open()
        partition = _partition(message)
        standing = self._standings.get(partition)
        if standing is not None and message.offset >= standing.committed and self._is_member():
            standing.failures[message.offset] = message.attempt
            if message.offset == standing.committed:
                with failures(self._connection, "noting a failure"):
                    self._consumer.commit_async({partition: _noting(message.offset, message.attempt)}, _noted)
        return replace(message, attempt=message.attempt + 1)

    def retry_later(self, message: Message, *, delay_s: float) -> None:
        """Pause the message's partition for `delay_s` and deliver from `message` again."""
        self._check_open()
        partition = _partition(message)
        standing = self._standings.get(partition)
        if standing is None or not self._is_member():
            return  # it is with another member, who starts from what is committed
        until_s = self._clock.monotonic_s() + delay_s
        standing.paused_until_s = max(until_s, standing.paused_until_s or until_s)
        self._consumer.pause(partition)
        again = max(message.offset, standing.committed)
        if again < standing.position:
            self._seek(partition, again)

    def dead_letter(self, message: Message, *, error: str) -> None:
        """Append the message's bytes to the dead letters."""
        self._check_open()
        self._standing(message)
        letter = with_origin_and_nulls(message.raw, message, group=self._group, error=error)
        self._publisher.publish(dead_letter_topic(message.topic), [letter])

    def close(self) -> None:
        """Leave the group. If the brokers do not answer, the session runs out by itself."""
        if self._closed:
            return
        self._closed = True
        try:
            self._consumer.close(autocommit=False, timeout_ms=_CLOSE_TIMEOUT_S * 1000)
        except errors.KafkaError as error:
            log.warning("left group %s without telling: %s", self._group, error)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Kafka's notice, from within `poll`. What is needed is looked up with the partition's first message."""

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Kafka's notice, from within `poll` or `close`."""
        for partition in revoked:
            self._standings.pop(partition, None)
            self._owed.pop(partition, None)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Kafka's notice that others may have gone on meanwhile."""
        self.on_partitions_revoked(lost)

    def _was_away(self) -> bool:
        """Whether the group went on without this member; if so it starts everywhere from what is committed.

        kafka-python notices by itself unless the broker is the first to say so.
        """
        member = self._consumer.group_metadata()
        if member.state is not MemberState.STABLE or member.member_id == self._member_id:
            return False
        was_away = self._member_id != ""
        if was_away:
            self._standings.clear()
            self._owed.clear()
            for partition in self._consumer.assignment():
                committed = self._consumer.committed(partition, timeout_ms=REQUEST_TIMEOUT_S * 1000)
                if committed is None:
                    self._consumer.seek_to_beginning(partition)
                else:
                    self._consumer.seek(partition, committed)
                self._consumer.resume(partition)
        self._member_id = member.member_id
        return was_away

    def _given_out(self, batches: dict[TopicPartition, list[Any]]) -> list[Message]:
        messages = []
        try:
            for partition in batches:
                if partition not in self._standings:
                    self._standings[partition] = self._first_standing(partition, batches[partition][0].offset)
        except BaseException:
            for partition, records in batches.items():  # the consumer believes that we have them
                self._consumer.seek(partition, records[0].offset)
            raise
        for partition, records in batches.items():
            standing = self._standings[partition]
            for record in records:
                attempt = standing.failures.get(record.offset, 0) + 1
                event, why = try_decode(record.headers, record.key, record.value)
                size_bytes = record.serialized_value_size + record.serialized_header_size
                messages.append(
                    Message(
                        record.topic,
                        record.partition,
                        record.offset,
                        key_text(record.key),
                        event,
                        attempt,
                        why,
                        size_bytes,
                        record,
                    )
                )
            standing.position = records[-1].offset + 1
        return messages

    def _first_standing(self, partition: TopicPartition, first: int) -> _Standing:
        """What the group noted about a partition that came to this member."""
        noted = self._consumer.committed(partition, metadata=True, timeout_ms=REQUEST_TIMEOUT_S * 1000)
        if noted is None or noted.offset > first:
            return _Standing(first, first, {})
        return _Standing(noted.offset, first, {noted.offset: _failures_of(noted.metadata)})

    def _commit(self, partition: TopicPartition, next_offset: int) -> None:
        place = f"offset {next_offset} of partition {partition.partition} of {partition.topic}"
        num_failures = self._standings[partition].failures.get(next_offset, 0)
        with failures(self._connection, f"committing {place}"):
            try:
                self._consumer.commit(
                    {partition: _noting(next_offset, num_failures)}, timeout_ms=REQUEST_TIMEOUT_S * 1000
                )
                self._owed.pop(partition, None)
            except (errors.RebalanceInProgressError, errors.CommitFailedError) as error:
                if not _is_rebalancing(error):
                    raise self._lost(place) from error
                # The partition may stay here; if it does, the next poll commits it.
                self._owed[partition] = next_offset

    def _pay(self) -> None:
        """Commit what could not be during a rebalance, where the partition stayed."""
        owed, self._owed = self._owed, {}
        for partition, next_offset in owed.items():
            try:
                self._commit(partition, next_offset)
            except TunesmithError as error:
                log.info("the message before will come again: %s", error)

    def _resume(self) -> float:
        """Resume the partitions whose pause is over; seconds until that of the next one is."""
        now_s = self._clock.monotonic_s()
        left_s = float("inf")
        for partition, standing in self._standings.items():
            if standing.paused_until_s is None:
                continue
            if standing.paused_until_s <= now_s:
                standing.paused_until_s = None
                self._consumer.resume(partition)
            else:
                left_s = min(left_s, standing.paused_until_s - now_s)
        return left_s

    def _forget_until(self, partition: TopicPartition, next_offset: int) -> None:
        """Drop what is kept in memory about the messages before `next_offset`."""
        standing = self._standings[partition]
        standing.committed = max(standing.committed, next_offset)
        for offset in [offset for offset in standing.failures if offset < next_offset]:
            del standing.failures[offset]
        if standing.position < next_offset:
            self._seek(partition, next_offset)

    def _seek(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.seek(partition, offset)
        self._standings[partition].position = offset

    def _check_open(self) -> None:
        if self._closed:
            raise FailedPrecondition(f"the subscription of group {self._group} is closed; open a new one")

    def _standing(self, message: Message) -> _Standing:
        """The standing of the message's partition; Conflict when this member does not hold it."""
        standing = self._standings.get(_partition(message))
        if standing is None or not self._is_member():
            raise self._lost(_place(message))
        return standing

    def _is_member(self) -> bool:
        return bool(self._consumer.group_metadata().state is not MemberState.UNJOINED)

    def _lost(self, place: str) -> Conflict:
        return Conflict(
            f"{place} went to another member of group {self._group}: poll at least every "
            f"{self._max_poll_interval_s:g} s; it comes again there",
            reason="PARTITION_LOST",
        )


class _UnreadJoin:
    """An attempt to join the group whose outcome the coordinator has still to read."""

    is_done = False

    def __init__(self, attempt: Any) -> None:
        self.add_callback = attempt.add_callback
        self.add_errback = attempt.add_errback


def _keep_join(consumer: Any) -> None:
    """Let the next poll read how the last attempt to join ended.

    kafka-python 3.0 throws an attempt away that ended between two polls and joins anew, which starts a rebalance for
    everybody: members that poll in short pieces can go on like that for ever. And it forgets an attempt that was made
    for new metadata: such a member neither gets messages nor sends heartbeats.
    """
    coordinator = consumer._coordinator
    attempt = coordinator._join_task
    if attempt is None:
        return
    coordinator.request_rejoin()
    if not isinstance(attempt, _UnreadJoin):
        coordinator._join_task = _UnreadJoin(attempt)


def _free_slot(consumer: Any) -> None:
    """Let kafka-python go on with a partition that was paused while some of its fetched records were not given out.

    kafka-python 3.0 puts such records aside and takes them up again only while it works on no others, for which it
    looks for None; what it leaves behind is an empty batch. The partition would stand still for ever.
    """
    fetcher = consumer._fetcher
    if not fetcher._next_partition_records:
        fetcher._next_partition_records = None


def _is_rebalancing(error: errors.KafkaError) -> bool:
    causes = (error, *error.args)
    return any(isinstance(cause, errors.RebalanceInProgressError) for cause in causes)


def _noted(_offsets: Any, outcome: Any) -> None:
    if isinstance(outcome, Exception):
        log.debug("a failure was not noted: %s", outcome)


def _noting(next_offset: int, num_failures: int) -> OffsetAndMetadata:
    """What is committed: the offset of the first message that is not done, and how many attempts of it failed."""
    return OffsetAndMetadata(next_offset, json.dumps({"failures": num_failures}) if num_failures else "", _NO_EPOCH)


def _failures_of(note: str | None) -> int:
    """The inverse of the note; 0 for one that is not ours."""
    try:
        return int(json.loads(note or "{}")["failures"])
    except (ValueError, KeyError, TypeError):
        return 0


def _partition(message: Message) -> TopicPartition:
    return TopicPartition(message.topic, message.partition)


def _place(message: Message) -> str:
    return f"message {message.offset} of partition {message.partition} of {message.topic}"
