"""The producing side of the Kafka bus: an idempotent producer, every outcome awaited, made anew when it fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from kafka import KafkaProducer, errors

from tunesmith.adapters.cloud_events import EncodedEvent
from tunesmith.adapters.kafka_clients import close_producer, open_client
from tunesmith.adapters.kafka_connection import KafkaConnection
from tunesmith.adapters.kafka_errors import translated
from tunesmith.adapters.kafka_topics import MAX_DEAD_LETTER_BYTES, KafkaTopics
from tunesmith.domain.errors import FailedPrecondition, InvalidInput

log = logging.getLogger(__name__)

BATCH_BYTES = 128 * 1024


class KafkaPublisher:
    """Appends messages durably: all in-sync replicas have them on return. Thread-safe; connects when first used."""

    def __init__(self, connection: KafkaConnection, topics: KafkaTopics, *, delivery_timeout_s: float) -> None:
        self._connection = connection
        self._topics = topics
        self._delivery_timeout_s = delivery_timeout_s
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None
        self._closed = False

    def publish(self, topic: str, messages: Sequence[EncodedEvent]) -> None:
        """Append all messages; those of one key keep their order.

        When it raises some may have been appended. NotFound, or Unavailable after the delivery time-out at the latest.
        """
        if not messages:
            return
        self._topics.check([topic])
        producer = self._running()
        doing = f"publishing to {topic}"
        deadline_s = time.monotonic() + 2 * self._delivery_timeout_s
        try:
            # All are handed over before the first is waited for: they travel in batches.
            sent = [producer.send(topic, m.value, m.key, m.headers) for m in messages]
            for future in sent:
                future.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except errors.KafkaError as error:
            problem = translated(error, self._connection, doing)
            self._topics.forget(topic)
            if not isinstance(problem, InvalidInput):
                # Whatever broke it, a fresh one has no broken sequence, no dead thread and nothing left to send.
                self._discard(producer)
            raise problem from error

    def close(self) -> None:
        """Release the connection."""
        with self._lock:
            self._closed = True
            producer, self._producer = self._producer, None
        if producer is not None:
            close_producer(producer, timeout_s=self._delivery_timeout_s)

    def _running(self) -> KafkaProducer:
        with self._lock:
            if self._closed:
                raise FailedPrecondition("the bus is closed; open it anew")
            if self._producer is None:
                delivery_ms = int(self._delivery_timeout_s * 1000)
                self._producer = open_client(
                    KafkaProducer,
                    self._connection,
                    acks="all",
                    enable_idempotence=True,
                    allow_auto_create_topics=False,
                    request_timeout_ms=delivery_ms // 2,
                    delivery_timeout_ms=delivery_ms,
                    max_block_ms=delivery_ms,
                    max_request_size=MAX_DEAD_LETTER_BYTES,
                    batch_size=BATCH_BYTES,
                    metrics_enabled=False,
                )
            return self._producer

    def _discard(self, producer: KafkaProducer) -> None:
        with self._lock:
            if self._producer is not producer:
                return
            self._producer = None
        log.warning("the producer is made anew")
        close_producer(producer, timeout_s=0)
