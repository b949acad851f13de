"""The event bus in one SQLite file, for one machine: several processes, no server."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from tunesmith.adapters.cloud_events import (
    EncodedEvent,
    Headers,
    dead_letter_topic,
    encode,
    no_dead_letters,
    read_dead_letter,
    without_origin,
)
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

    def ensure_topics(self, topics: Sequence[str]) -> Sequence[str]:
        """Create the topics that do not exist yet, each with its dead-letter topic of one partition."""
        made: list[str] = []
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
                    known.add(topic)
                    made += [topic, dead_letter_topic(topic)]
        return made

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
            rows = self._dead_letter_rows(topic, limit=limit)
        return [read_dead_letter(topic, headers, key, value, position=n) for n, headers, key, value in rows]

    def replay_dead_letters(
        self, topic: str, *, positions: Collection[int] | None = None, limit: int = 100
    ) -> Sequence[DeadLetter]:
        """Move dead letters back to `topic`, in one transaction."""
        with self._connection_lock, self._log.transaction(self._connection):
            rows = self._dead_letter_rows(topic, limit=None if positions is not None else limit)
            if positions is not None:
                missing = sorted(set(positions) - {row[0] for row in rows})
                if missing:
                    raise no_dead_letters(topic, missing)
                rows = [row for row in rows if row[0] in set(positions)][:limit]
            for position, headers, key, value in rows:
                self._log.append(self._connection, topic, without_origin(headers), key, value)
                self._connection.execute(
                    "DELETE FROM messages WHERE topic = ? AND offset = ?", (dead_letter_topic(topic), position)
                )
        self._log.announce()
        return [read_dead_letter(topic, headers, key, value, position=n) for n, headers, key, value in rows]

    def _dead_letter_rows(
        self, topic: str, *, limit: int | None
    ) -> list[tuple[int, Headers, bytes | None, bytes | None]]:
        self._log.num_partitions(self._connection, dead_letter_topic(topic))
        rows = self._connection.execute(
            "SELECT offset, headers, key, value FROM messages WHERE topic = ? ORDER BY offset LIMIT ?",
            (dead_letter_topic(topic), -1 if limit is None else limit),
        )
        return [(offset, read_headers(headers), key, value) for offset, headers, key, value in rows]

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
