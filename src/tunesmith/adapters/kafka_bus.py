"""The event bus on Kafka (4.0 and newer, classic consumer groups)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tunesmith.adapters.cloud_events import EncodedEvent, encode
from tunesmith.adapters.kafka_connection import KafkaConnection
from tunesmith.adapters.kafka_dead_letters import KafkaDeadLetters
from tunesmith.adapters.kafka_publisher import KafkaPublisher
from tunesmith.adapters.kafka_subscription import KafkaSubscription
from tunesmith.adapters.kafka_topics import KafkaTopics
from tunesmith.domain.errors import InvalidSettings
from tunesmith.domain.events import Event
from tunesmith.ports.bus import DeadLetter
from tunesmith.ports.clock import Clock


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
        max_poll_interval_s: float = 30.0,
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
        self._topics = KafkaTopics(
            connection, partitions=partitions, replication_factor=replication_factor, may_create=may_create_topics
        )
        self._publisher = KafkaPublisher(connection, self._topics, delivery_timeout_s=delivery_timeout_s)
        self._dead_letters = KafkaDeadLetters(connection, self._topics, self._publisher)

    def ensure_topics(self, topics: Sequence[str]) -> Sequence[str]:
        """Create the topics that do not exist yet, each with its dead-letter topic; returns what was created."""
        return self._topics.ensure(topics)

    def publish(self, topic: str, events: Sequence[Event]) -> None:
        """Append events; on return all in-sync replicas have them. Bounded by twice the delivery time-out."""
        self.publish_encoded(topic, [encode(event) for event in events])

    def publish_encoded(self, topic: str, events: Sequence[EncodedEvent]) -> None:
        """Append messages as they are, whatever their bytes."""
        self._publisher.publish(topic, events)

    def subscribe(self, group: str, topics: Sequence[str]) -> KafkaSubscription:
        """Join `group`; NotFound for a topic that does not exist."""
        self._topics.check(topics)
        return KafkaSubscription(
            self._connection,
            self._publisher,
            clock=self._clock,
            group=group,
            topics=topics,
            session_timeout_s=self._session_timeout_s,
            max_poll_interval_s=self._max_poll_interval_s,
        )

    def dead_letters(self, topic: str, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The oldest `limit` dead letters of `topic`; NotFound when it does not exist."""
        return self._dead_letters.waiting(topic, limit=limit)

    def replay_dead_letters(
        self, topic: str, *, positions: Collection[int] | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Publish dead letters to `topic` again, then mark them in their own topic, so that none is put back twice."""
        return self._dead_letters.replay(topic, positions=positions, limit=limit)

    def close(self) -> None:
        """Release the connections; what is being published is waited for."""
        self._publisher.close()
        self._topics.close()
