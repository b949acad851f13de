"""Topics of the Kafka bus: which exist, and making those that do not."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any

from kafka import KafkaAdminClient, errors

from tunesmith.adapters.cloud_events import MAX_EVENT_BYTES, dead_letter_topic
from tunesmith.adapters.kafka_clients import open_client
from tunesmith.adapters.kafka_connection import KafkaConnection
from tunesmith.adapters.kafka_errors import failures, translated
from tunesmith.domain.errors import InvalidInput, NotFound

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,237}")
"""Kafka allows 249 characters; `.dead-letter` takes 12."""

MAX_DEAD_LETTER_BYTES = 2 * MAX_EVENT_BYTES
"""A message of the largest size becomes larger by the headers that say where it came from."""
EVENTS_KEPT_MS = 30 * 24 * 3600 * 1000
DEAD_LETTERS_KEPT_MS = 180 * 24 * 3600 * 1000
_REQUEST_TIMEOUT_S = 10.0
_REPLICAS_FOR_MIN_TWO = 3
"""With so many replicas a write is durable when two have it, and one broker may be away."""


class KafkaTopics:
    """Looks topics up and makes them. Thread-safe; connects when it is first asked."""

    def __init__(
        self, connection: KafkaConnection, *, partitions: int, replication_factor: int, may_create: bool
    ) -> None:
        self._connection = connection
        self._partitions = partitions
        self._replication_factor = replication_factor
        self._may_create = may_create
        self._lock = threading.Lock()
        self._admin: KafkaAdminClient | None = None
        self._known: set[str] = set()

    def ensure(self, topics: Sequence[str]) -> Sequence[str]:
        """Make the topics that do not exist, each with its dead-letter topic; returns the names of those made.

        NotFound when one is missing and may not be made.
        """
        for topic in topics:
            if not _TOPIC.fullmatch(topic):
                raise InvalidInput(f"topic {topic[:100]!r} is not valid: use 1 to 237 letters, digits, '.', '_' or '-'")
        wanted = sorted({name for topic in topics for name in (topic, dead_letter_topic(topic))})
        with self._lock:
            missing = self._missing(wanted)
            if not missing:
                return []
            if not self._may_create:
                raise self._not_found(missing)
            made = self._create(missing)
            self._known.update(wanted)
        return made

    def check(self, topics: Sequence[str]) -> None:
        """Raise NotFound when one of the topics does not exist. Asks the brokers once for each that does."""
        if self._known.issuperset(topics):
            return
        with self._lock:
            missing = self._missing(sorted(set(topics)))
        if missing:
            raise self._not_found(missing)

    def forget(self, topic: str) -> None:
        """Ask the brokers again when the topic is needed next: it may have been deleted."""
        self._known.discard(topic)

    def close(self) -> None:
        """Release the connection."""
        with self._lock:
            self._drop()

    def _missing(self, topics: Sequence[str]) -> list[str]:
        """Those of `topics` that do not exist; the others are remembered."""
        found = {topic["name"]: topic["error_code"] for topic in self._ask("looking for topics", topics)}
        refused = [name for name, code in found.items() if code == errors.TopicAuthorizationFailedError.errno]
        if refused:
            raise translated(errors.TopicAuthorizationFailedError(set(refused)), self._connection, "looking for topics")
        # A topic whose leader is being elected exists, whatever else its code says.
        missing = [name for name in topics if found.get(name) == errors.UnknownTopicOrPartitionError.errno]
        self._known.update(set(topics) - set(missing))
        return missing

    def _ask(self, doing: str, topics: Sequence[str]) -> Any:
        try:
            with failures(self._connection, doing):
                return self._client().describe_topics(list(topics))
        except BaseException:
            self._drop()
            raise

    def _create(self, topics: Sequence[str]) -> list[str]:
        try:
            with failures(self._connection, "making topics"):
                reply = self._client().create_topics(
                    {topic: self._shape(topic) for topic in topics},
                    timeout_ms=int(_REQUEST_TIMEOUT_S * 1000),
                    raise_errors=False,
                )
                made = []
                for topic in reply["topics"]:
                    kind = errors.for_code(topic["error_code"])
                    if kind is errors.NoError:
                        made.append(topic["name"])
                    elif issubclass(kind, errors.AuthorizationError):
                        raise self._not_found(topics)
                    elif kind is not errors.TopicAlreadyExistsError:  # somebody else made it meanwhile
                        raise kind(f"{topic['name']}: {topic['error_message']}")
                self._client().wait_for_topics(topics, timeout_ms=int(_REQUEST_TIMEOUT_S * 1000))
        except BaseException:
            self._drop()
            raise
        return made

    def _shape(self, topic: str) -> dict[str, Any]:
        dead = topic.endswith(dead_letter_topic(""))
        configs = {
            "cleanup.policy": "delete",
            "retention.ms": str(DEAD_LETTERS_KEPT_MS if dead else EVENTS_KEPT_MS),
        }
        if dead:
            configs["max.message.bytes"] = str(MAX_DEAD_LETTER_BYTES)
        if self._replication_factor >= _REPLICAS_FOR_MIN_TWO:
            configs["min.insync.replicas"] = "2"
        return {
            "num_partitions": 1 if dead else self._partitions,
            "replication_factor": self._replication_factor,
            "configs": configs,
        }

    def _client(self) -> KafkaAdminClient:
        if self._admin is None:
            self._admin = open_client(
                KafkaAdminClient, self._connection, request_timeout_ms=int(_REQUEST_TIMEOUT_S * 1000)
            )
        return self._admin

    def _drop(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()

    def _not_found(self, topics: Sequence[str]) -> NotFound:
        names = ", ".join(repr(topic) for topic in topics)
        return NotFound(
            f"Kafka at {self._connection.address} has no topic {names}; run `tunesmith setup` with a user that may "
            "create topics",
            reason="TOPIC_NOT_FOUND",
            metadata={"topics": ",".join(topics), "servers": self._connection.address},
        )
