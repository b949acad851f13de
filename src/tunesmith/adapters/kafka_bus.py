"""The event bus on Kafka (4.0 and newer, classic consumer groups)."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.adapters.cloud_events import EncodedEvent, encode
from tunesmith.adapters.kafka_connection import KafkaConnection, servers_of
from tunesmith.adapters.kafka_settings import KafkaSettings
from tunesmith.domain.errors import InvalidSettings
from tunesmith.domain.events import Event
from tunesmith.ports.bus import DeadLetter
from tunesmith.ports.clock import Clock

if TYPE_CHECKING:  # kafka-python takes a third of a second to import, and a worker opens a bus without using it
    from tunesmith.adapters.kafka_dead_letters import KafkaDeadLetters
    from tunesmith.adapters.kafka_publisher import KafkaPublisher
    from tunesmith.adapters.kafka_subscription import KafkaSubscription
    from tunesmith.adapters.kafka_topics import KafkaTopics


@dataclass(frozen=True, slots=True)
class _Parts:
    topics: KafkaTopics
    publisher: KafkaPublisher
    dead_letters: KafkaDeadLetters


class KafkaBus:
    """Topics, consumer groups and dead letters of a Kafka cluster (ports.bus.EventBus).

    Connects with the first call. A member's session ends `session_timeout_s` after its process died, or
    `max_poll_interval_s` after its last poll; the brokers' group.min.session.timeout.ms is a lower limit of the former.
    Without `may_create_topics`, topics that are missing raise NotFound.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        clock: Clock,
        partitions: int = 4,
        replication_factor: int = -1,
        may_create_topics: bool = True,
        session_timeout_s: float = 10.0,
        max_poll_interval_s: float = 60.0,
        delivery_timeout_s: float = 20.0,
    ) -> None:
        if partitions < 1 or session_timeout_s <= 0 or max_poll_interval_s <= 0 or delivery_timeout_s <= 0:
            raise InvalidSettings(
                f"partitions={partitions} must be at least 1; session_timeout_s={session_timeout_s}, "
                f"max_poll_interval_s={max_poll_interval_s}, delivery_timeout_s={delivery_timeout_s} positive"
            )
        self._connection = connection
        self._clock = clock
        self._session_timeout_s = session_timeout_s
        self._max_poll_interval_s = max_poll_interval_s
        self._partitions = partitions
        self._replication_factor = replication_factor
        self._may_create_topics = may_create_topics
        self._delivery_timeout_s = delivery_timeout_s
        self._lock = threading.Lock()
        self._opened: _Parts | None = None

    @classmethod
    def of(cls, settings: KafkaSettings, url: str, *, allow_insecure: bool, clock: Clock) -> KafkaBus:
        """The bus at `url`; InvalidSettings when that names no brokers."""
        connection = KafkaConnection(
            servers_of(url),
            security_protocol=settings.security_protocol,
            ca=settings.ca,
            cert=settings.cert,
            key=settings.key,
            sasl_mechanism=settings.sasl_mechanism,
            user=settings.user,
            password=settings.password.get_secret_value(),
            allow_insecure=allow_insecure,
        )
        return cls(
            connection,
            clock=clock,
            partitions=settings.partitions,
            replication_factor=settings.replication_factor,
            may_create_topics=settings.create_topics,
            session_timeout_s=settings.session_timeout_s,
            max_poll_interval_s=settings.max_poll_interval_s,
        )

    def ensure_topics(self, topics: Sequence[str]) -> Sequence[str]:
        """Create the topics that do not exist yet, each with its dead-letter topic; returns what was created."""
        return self._parts().topics.ensure(topics)

    def publish(self, topic: str, events: Sequence[Event]) -> None:
        """Append events; on return all in-sync replicas have them. Bounded by twice the delivery time-out."""
        self.publish_encoded(topic, [encode(event) for event in events])

    def publish_encoded(self, topic: str, events: Sequence[EncodedEvent]) -> None:
        """Append messages as they are, whatever their bytes."""
        self._parts().publisher.publish(topic, events)

    def subscribe(self, group: str, topics: Sequence[str]) -> KafkaSubscription:
        """Join `group`; NotFound for a topic that does not exist."""
        self._parts().topics.check(topics)
        from tunesmith.adapters.kafka_subscription import KafkaSubscription

        return KafkaSubscription(
            self._connection,
            self._parts().publisher,
            clock=self._clock,
            group=group,
            topics=topics,
            session_timeout_s=self._session_timeout_s,
            max_poll_interval_s=self._max_poll_interval_s,
        )

    def dead_letters(self, topic: str, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The oldest `limit` dead letters of `topic`; NotFound when it does not exist."""
        return self._parts().dead_letters.waiting(topic, limit=limit)

    def replay_dead_letters(
        self, topic: str, *, positions: Collection[int] | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Publish dead letters to `topic` again, then mark them in their own topic, so that none is put back twice."""
        return self._parts().dead_letters.replay(topic, positions=positions, limit=limit)

    def close(self) -> None:
        """Release the connections; what is being published is waited for."""
        with self._lock:
            opened = self._opened
        if opened is not None:
            opened.publisher.close()
            opened.topics.close()

    def _parts(self) -> _Parts:
        with self._lock:
            if self._opened is None:
                from tunesmith.adapters.kafka_dead_letters import KafkaDeadLetters
                from tunesmith.adapters.kafka_publisher import KafkaPublisher
                from tunesmith.adapters.kafka_topics import KafkaTopics

                topics = KafkaTopics(
                    self._connection,
                    partitions=self._partitions,
                    replication_factor=self._replication_factor,
                    may_create=self._may_create_topics,
                )
                publisher = KafkaPublisher(self._connection, topics, delivery_timeout_s=self._delivery_timeout_s)
                self._opened = _Parts(topics, publisher, KafkaDeadLetters(self._connection, topics, publisher))
            return self._opened
