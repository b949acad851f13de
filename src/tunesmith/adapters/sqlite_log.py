"""The SQLite file below the bus: topics, partitions and messages, and the signal that there are new ones."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tunesmith.adapters.cloud_events import Headers
from tunesmith.domain.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidSettings,
    NotFound,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
    Unsupported,
)
from tunesmith.ports.clock import Clock

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE partitions(
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE messages(
    topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    headers TEXT NOT NULL, key BLOB, value BLOB, stored_s REAL NOT NULL,
    PRIMARY KEY (topic, partition, offset));
CREATE TABLE groups(name TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE members(
    number INTEGER PRIMARY KEY AUTOINCREMENT, group_name TEXT NOT NULL, member TEXT NOT NULL,
    topics TEXT NOT NULL, expires_s REAL NOT NULL, session_timeout_s REAL NOT NULL, UNIQUE (group_name, member));
CREATE TABLE leases(
    group_name TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, member TEXT NOT NULL,
    PRIMARY KEY (group_name, topic, partition)) WITHOUT ROWID;
CREATE TABLE commits(
    group_name TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (group_name, topic, partition)) WITHOUT ROWID;
"""
_LOW_DISK_BYTES = 1 << 20
"""With less than this free an input/output error is taken for a full disk."""


class SqliteLog:
    """Opens connections to one file and writes to it. Thread-safe; each connection belongs to one user at a time."""

    def __init__(self, path: Path, *, clock: Clock, busy_timeout_s: float) -> None:
        self.path = path.absolute()
        self._clock = clock
        self._busy_timeout_s = busy_timeout_s
        # Threads of one process queue here: SQLite itself only lets them sleep and try again.
        self._writing = threading.Lock()
        self._written = threading.Condition()
        self._num_writes = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidSettings(
                f"the bus file {path} cannot be made ({error}); name a file in a folder that this user can write to "
                "in TUNESMITH_BUS=sqlite:///…"
            ) from error
        connection = self.connect()
        try:
            with self.transaction(connection):
                self._prepare(connection)
        finally:
            connection.close()

    def connect(self) -> sqlite3.Connection:
        """A connection whose commits survive a power cut. The caller closes it."""
        with self.failures():
            connection = sqlite3.connect(
                self.path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
            )
            try:
                self._switch_to_wal(connection)
                connection.execute("PRAGMA synchronous = FULL")
            except BaseException:
                connection.close()
                raise
        return connection

    @contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        """All or nothing, durable at the end, one writer at a time."""
        with self._writing, self.failures():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Turn SQLite's errors into the port's."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def num_partitions(self, connection: sqlite3.Connection, topic: str) -> int:
        """How many partitions `topic` has; NotFound when it does not exist."""
        (count,) = connection.execute("SELECT count(*) FROM partitions WHERE topic = ?", (topic,)).fetchone()
        if not count:
            raise NotFound(f"topic {topic!r} does not exist; create it with ensure_topics", metadata={"topic": topic})
        return int(count)

    def append(
        self, connection: sqlite3.Connection, topic: str, headers: Headers, key: bytes | None, value: bytes | None
    ) -> None:
        """Append one message within the caller's transaction. Equal keys go to the same partition."""
        partition = zlib.crc32(key or b"") % self.num_partitions(connection, topic)
        (offset,) = connection.execute(
            "UPDATE partitions SET next_offset = next_offset + 1 WHERE topic = ? AND partition = ? "
            "RETURNING next_offset - 1",
            (topic, partition),
        ).fetchone()
        connection.execute(
            "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)",
            (topic, partition, offset, _headers_text(headers), key, value, self._clock.now().timestamp()),
        )

    def announce(self) -> None:
        """Wake the waiting subscriptions of this process; those of others look every few milliseconds."""
        with self._written:
            self._num_writes += 1
            self._written.notify_all()

    @property
    def num_writes(self) -> int:
        """How often `announce` was called; changes mean news."""
        return self._num_writes

    def wait_for_write(self, num_writes: int, *, timeout_s: float) -> None:
        """Return when `announce` was called since `num_writes` was read, or after `timeout_s` of real time."""
        with self._written:
            self._written.wait_for(lambda: self._num_writes != num_writes, timeout_s)

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        """Use a write-ahead log. Several processes may do so at once, and SQLite does not wait for that lock."""
        deadline_s = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.005)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        elif version != _SCHEMA_VERSION:
            raise Unsupported(
                f"the bus file {self.path} has layout {version}, this version reads {_SCHEMA_VERSION}; "
                "use the version of Tunesmith that wrote it, or another file"
            )

    def _translated(self, error: sqlite3.Error) -> TunesmithError:
        code = _code(error)
        metadata = {"path": str(self.path)}
        free = _free_bytes(self.path.parent)
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and free < _LOW_DISK_BYTES):
            return ResourceExhausted(
                f"no room to write the bus file {self.path}: {free} bytes free; "
                "free some space, or set TUNESMITH_BUS to a file on a larger disk",
                reason="DISK_FULL",
                metadata={**metadata, "free_bytes": str(free)},
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Unavailable(
                f"the bus file {self.path} was locked by another process for {self._busy_timeout_s} s; try again",
                reason="BUS_LOCKED",
                metadata=metadata,
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return DataLoss(
                f"the bus file {self.path} is corrupt ({error}); restore it from a backup or move it away: "
                "unpublished events are still in their jobs' outboxes",
                reason="CORRUPT_BUS",
                metadata=metadata,
            )
        if isinstance(error, sqlite3.ProgrammingError):
            return FailedPrecondition(f"the bus or the subscription is closed ({error})")
        return Unavailable(f"the bus file {self.path} failed: {error}", metadata=metadata)


def read_headers(text: str) -> Sequence[tuple[str, bytes | None]]:
    """The inverse of how headers are stored."""
    return [(name, None if value is None else value.encode("latin-1")) for name, value in json.loads(text)]


def _headers_text(headers: Headers) -> str:
    """Headers as JSON; their bytes as the characters of the same numbers, so that most can be read by eye."""
    return json.dumps([[name, None if value is None else value.decode("latin-1")] for name, value in headers])


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 when Python's module raised by itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
