"""The event bus: topics of partitions, consumer groups and committed offsets. Shaped after what Kafka can promise."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tunesmith.domain.events import Event


@dataclass(frozen=True, slots=True)
class Message:
    """An event as it was delivered; bytes that could not be decoded come with `event` None and a `decode_error`."""

    topic: str
    partition: int
    offset: int
    key: str
    event: Event | None
    attempt: int
    """Which attempt at handling it this is: one more than the failures that were noted (`note_failure`)."""
    decode_error: str = ""
    size_bytes: int = field(default=0, compare=False)
    """About what it takes on the wire."""
    raw: object = field(default=None, compare=False, repr=False)
    """The bus's own, for `dead_letter`."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up, with where it stood and why."""

    topic: str
    partition: int
    offset: int
    group: str
    attempt: int
    error: str
    message: Message
    position: int
    """Names the letter among those of its topic."""


class Subscription(Protocol):
    """One member of a consumer group. Not thread-safe: one thread owns it.

    Partitions are divided among a group's living members; each message goes to one of them. Within a partition
    messages arrive in offset order. Delivery is at least once: a message that was not committed comes again after a
    restart, a rebalance or `retry_later`. A member that does not poll for the session time-out loses its partitions.
    What is kept in memory does not grow with the messages that were given out and not committed.
    """

    def poll(self, *, timeout_s: float, max_messages: int = 16) -> Sequence[Message]:
        """Messages of partitions that are not paused; empty after `timeout_s` without any. Also the sign of life.

        An undecodable message is delivered with `event` None. Raises Unavailable when the bus does not answer.
        """
        ...

    def commit(self, message: Message) -> None:
        """Record that `message` and all before it in its partition are done.

        Conflict when the partition belongs to another member now: the work may be done twice, and must be idempotent.
        """
        ...

    def holds(self, message: Message) -> bool:
        """Whether `message` is still this member's to handle, by what is known without asking the network.

        Not when it was committed, when its partition has gone to another member, nor when it will be given out here
        again: after `retry_later`, or since the partition went away and came back.
        """
        ...

    def note_failure(self, message: Message) -> Message:
        """Count an attempt that failed; returns the message as its next attempt.

        A bus may keep the count over a restart for the first message of a partition that is not committed.
        """
        ...

    def retry_later(self, message: Message, *, delay_s: float) -> None:
        """Pause the message's partition for `delay_s` and deliver from `message` again. Other partitions go on.

        No attempt is counted.
        """
        ...

    def dead_letter(self, message: Message, *, error: str) -> None:
        """Append `message` to the dead letters, durably. It is not committed: messages before it may not be done.

        Who dies before it is committed appends it again, with the same event id. Conflict when the partition belongs
        to another member now.
        """
        ...

    def close(self) -> None:
        """Leave the group; its partitions go to the others at once."""
        ...


class EventBus(Protocol):
    """Publishes events and opens subscriptions. Thread-safe."""

    def ensure_topics(self, topics: Sequence[str]) -> Sequence[str]:
        """Create the topics that do not exist yet, each with its dead-letter topic; returns the names of the new ones.

        Idempotent. NotFound when one is missing that may not be created from here.
        """
        ...

    def publish(self, topic: str, events: Sequence[Event]) -> None:
        """Append events; on return all are durable.

        Events of one subject keep their order. When it raises (NotFound for a topic that does not exist,
        Unavailable), some may have been appended: publish all of them again, consumers drop repeated ids.
        """
        ...

    def subscribe(self, group: str, topics: Sequence[str]) -> Subscription:
        """Join `group`. A group that never committed starts from the oldest message."""
        ...

    def dead_letters(self, topic: str, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The oldest `limit` dead letters of `topic` that were not put back."""
        ...

    def replay_dead_letters(
        self, topic: str, *, positions: Collection[int] | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Publish dead letters to `topic` again, each as it came; returns those, which are no dead letters any more.

        Those at `positions` (NotFound when one does not wait there), else the oldest `limit`. Every group gets them;
        who has handled the event drops the repeated id. When it raises, some may have been published.
        """
        ...

    def close(self) -> None:
        """Release connections; subscriptions are closed by their owners."""
        ...
