"""A bus whose topics and groups begin with a prefix where they are kept, so that installations can share a cluster."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from tunesmith.domain.events import Event
from tunesmith.ports.bus import DeadLetter, EventBus, Message, Subscription


class PrefixedBus:
    """Implements `EventBus` over another; callers see names without the prefix."""

    def __init__(self, inner: EventBus, prefix: str) -> None:
        self._inner = inner
        self._prefix = prefix

    def ensure_topics(self, topics: Sequence[str]) -> Sequence[str]:
        """See the port."""
        return [self._without(topic) for topic in self._inner.ensure_topics(self._with(topics))]

    def publish(self, topic: str, events: Sequence[Event]) -> None:
        """See the port."""
        self._inner.publish(self._prefix + topic, events)

    def subscribe(self, group: str, topics: Sequence[str]) -> Subscription:
        """See the port."""
        return _PrefixedSubscription(self._inner.subscribe(self._prefix + group, self._with(topics)), self._prefix)

    def dead_letters(self, topic: str, *, limit: int = 100) -> Sequence[DeadLetter]:
        """See the port."""
        return [self._letter(letter) for letter in self._inner.dead_letters(self._prefix + topic, limit=limit)]

    def replay_dead_letters(
        self, topic: str, *, positions: Collection[int] | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """See the port."""
        replayed = self._inner.replay_dead_letters(self._prefix + topic, positions=positions, limit=limit)
        return [self._letter(letter) for letter in replayed]

    def close(self) -> None:
        """See the port."""
        self._inner.close()

    def _with(self, topics: Sequence[str]) -> list[str]:
        return [self._prefix + topic for topic in topics]

    def _without(self, name: str) -> str:
        return name.removeprefix(self._prefix)

    def _letter(self, letter: DeadLetter) -> DeadLetter:
        message = replace(letter.message, topic=self._without(letter.message.topic))
        return replace(letter, topic=self._without(letter.topic), group=self._without(letter.group), message=message)


class _PrefixedSubscription:
    def __init__(self, inner: Subscription, prefix: str) -> None:
        self._inner = inner
        self._prefix = prefix

    def poll(self, *, timeout_s: float, max_messages: int = 16) -> Sequence[Message]:
        messages = self._inner.poll(timeout_s=timeout_s, max_messages=max_messages)
        return [self._without(message) for message in messages]

    def commit(self, message: Message) -> None:
        self._inner.commit(self._with(message))

    def holds(self, message: Message) -> bool:
        return self._inner.holds(self._with(message))

    def note_failure(self, message: Message) -> Message:
        return self._without(self._inner.note_failure(self._with(message)))

    def retry_later(self, message: Message, *, delay_s: float) -> None:
        self._inner.retry_later(self._with(message), delay_s=delay_s)

    def dead_letter(self, message: Message, *, error: str) -> None:
        self._inner.dead_letter(self._with(message), error=error)

    def close(self) -> None:
        self._inner.close()

    def _with(self, message: Message) -> Message:
        return replace(message, topic=self._prefix + message.topic)

    def _without(self, message: Message) -> Message:
        return replace(message, topic=message.topic.removeprefix(self._prefix))
