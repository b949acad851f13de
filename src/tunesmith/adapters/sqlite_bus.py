"""The event bus in one SQLite file, for one machine: several processes, no server."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from pathlib import Path

from tunesmith.adapters.cloud_events import EncodedEvent, dead_letter_topic, encode, read_dead_letter
from tunesmith.adapters.sqlite_log import SqliteLog, read_headers
from tunesmith.adapters.sqlite_subscription import SqliteSubscription
from tunesmith.domain.errors import InvalidInput, InvalidSettings
from tunesmith.domain.events import Event
from tunesmith.ports.bus import DeadLetter
from tunesmith.ports.clock import Clock

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,237}")
"""Kafka allows 249 characters; `.dead-letter` takes 12."""


class SqliteBus:
    """Topics, consumer groups and dead letters in the file at `path` (ports.bus.EventBus).

    Write-ahead log, every commit synchronous. Leases and retry delays go by `clock`; how long `poll` waits is real
    time. The file must lie on a local disk: SQLite's write-ahead log does not work over a network file system.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        partitions: int = 4,
        session_timeout_s: float = 10.0,
        busy_timeout_s: float = 10.0,
    ) -> None:
        if partitions < 1 or session_timeout_s <= 0:
            raise InvalidSettings(
                f"partitions={partitions} must be at least 1 and session_timeout_s={session_timeout_s} positive"
            )
        self._clock = clock
        self._partitions = partitions
        self._session_timeout_s = session_timeout_s
        self._log = SqliteLog(path, clock=clock, busy_timeout_s=busy_timeout_s)
        self._connection = self._log.connect()
        self._connection_lock = threading.Lock()

    def ensure_topics(self, topics: Sequence[str]) -> None:
        """Create the topics that do not exist yet, each with its dead-letter topic of one partition."""
        for topic in topics:
            if not _TOPIC.fullmatch(topic):
                raise InvalidInput(f"topic {topic[:100]!r} is not valid: use 1 to 237 letters, digits, '.', '_' or '-'")
        with self._connection_lock, self._log.transaction(self._connection):
            known = {topic for (topic,) in self._connection.execute("SELECT DISTINCT topic FROM partitions")}
            for topic in topics:
                if topic not in known:
                    rows = [(topic, partition) for partition in range(self._partitions)]
                    rows.append((dead_letter_topic(topic), 0))
                    self._connection.executemany(
                        "INSERT OR IGNORE INTO partitions (topic, partition) VALUES (?, ?)", rows
                    )

    def publish(self, topic: str, events: Sequence[Event]) -> None:
        """Append all events or none; on return they are durable."""
        self.publish_encoded(topic, [encode(event) for event in events])

    def publish_encoded(self, topic: str, events: Sequence[EncodedEvent]) -> None:
        """Append messages as they are, whatever their bytes."""
        with self._connection_lock, self._log.transaction(self._connection):
            self._log.num_partitions(self._connection, topic)
            for event in events:
                self._log.append(self._connection, topic, event.headers, event.key, event.value)
        self._log.announce()

    def subscribe(self, group: str, topics: Sequence[str]) -> SqliteSubscription:
        """Join `group`; NotFound for a topic that does not exist."""
        return SqliteSubscription(
            self._log, clock=self._clock, group=group, topics=topics, session_timeout_s=self._session_timeout_s
        )

    def dead_letters(self, topic: str, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The oldest `limit` dead letters of `topic`; NotFound when it does not exist."""
        with self._connection_lock, self._log.failures():
            self._log.num_partitions(self._connection, dead_letter_topic(topic))
            rows = self._connection.execute(
                "SELECT headers, key, value FROM messages WHERE topic = ? ORDER BY partition, offset LIMIT ?",
                (dead_letter_topic(topic), limit),
            ).fetchall()
        return [read_dead_letter(topic, read_headers(headers), key, value) for headers, key, value in rows]

    def compact(self, *, max_age_s: float) -> int:
        """Delete messages older than `max_age_s` that every group has committed, and old dead letters; how many."""
        with self._connection_lock, self._log.transaction(self._connection):
            return self._connection.execute(
                "DELETE FROM messages AS m WHERE stored_s < ? AND (topic LIKE '%.dead-letter' OR offset < "
                "(SELECT min(next_offset) FROM commits AS c WHERE c.topic = m.topic AND c.partition = m.partition))",
                (self._clock.now().timestamp() - max_age_s,),
            ).rowcount

    def close(self) -> None:
        """Close the bus's own connection."""
        with self._connection_lock:
            self._connection.close()
