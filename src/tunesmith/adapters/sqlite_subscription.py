"""A member of a consumer group on the SQLite bus: leases on partitions, positions in them, and retries."""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

from tunesmith.adapters.cloud_events import dead_letter_topic, key_text, try_decode, with_origin
from tunesmith.adapters.sqlite_log import SqliteLog, read_headers
from tunesmith.domain.errors import Conflict, FailedPrecondition, InvalidInput, NotFound, TunesmithError
from tunesmith.ports.bus import Message
from tunesmith.ports.clock import Clock

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.03
"""How often the file is looked at for what other processes wrote; one look costs microseconds."""
_RENEWALS_PER_SESSION = 3

Partition = tuple[str, int]


class SqliteSubscription:
    """One member of a group (ports.bus.Subscription).

    Partitions move in two steps, so that none is ever with two members that live: every member knows its fair share
    from the list of members, gives back what exceeds it when it polls, and takes what is free. A change that others
    must see raises the group's revision. A member that has not renewed its lease in time is removed by whoever looks.
    """

    def __init__(
        self, store: SqliteLog, *, clock: Clock, group: str, topics: Sequence[str], session_timeout_s: float
    ) -> None:
        if not group or not topics:
            raise InvalidInput(f"a subscription needs a group and at least one topic: {group!r}, {list(topics)}")
        self._log = store
        self._clock = clock
        self._group = group
        self._topics = sorted(set(topics))
        self._session_timeout_s = session_timeout_s
        self._member = uuid4().hex
        self._closed = False
        self._revision = -1
        self._renew_at_s = 0.0
        self._turn = 0
        self._positions: dict[Partition, int] = {}
        self._committed: dict[Partition, int] = {}
        self._paused_until_s: dict[Partition, float] = {}
        self._failures: dict[Partition, dict[int, int]] = defaultdict(dict)
        self._connection = store.connect()
        try:
            self._join()
        except BaseException:
            self._connection.close()
            raise

    def poll(self, *, timeout_s: float, max_messages: int = 16) -> Sequence[Message]:
        """Messages of partitions that are not paused; empty after `timeout_s` of real time without any."""
        self._check_open()
        deadline_s = time.monotonic() + timeout_s
        while True:
            num_writes = self._log.num_writes
            with self._log.failures():
                version = self._data_version()
                if self._must_join():
                    self._join()
                messages = self._fetch(max_messages)
            if messages or not self._wait(num_writes, version, deadline_s):
                return messages

    def commit(self, message: Message) -> None:
        """Record that `message` and all before it in its partition are done; never goes back."""
        self._check_open()
        with self._log.transaction(self._connection):
            self._check_mine(message)
            self._commit(message)
        self._forget_until(message)

    def holds(self, message: Message) -> bool:
        """Whether it was given out since the partition came here, is not committed, and will not come again here."""
        self._check_open()
        partition = (message.topic, message.partition)
        if not self._committed.get(partition, 0) <= message.offset < self._positions.get(partition, 0):
            return False
        with self._log.failures():
            return self._is_mine(message)

    def note_failure(self, message: Message) -> Message:
        """Count an attempt that failed, for as long as this member holds the partition."""
        self._check_open()
        if (message.topic, message.partition) in self._positions:
            self._failures[message.topic, message.partition][message.offset] = message.attempt
        return replace(message, attempt=message.attempt + 1)

    def retry_later(self, message: Message, *, delay_s: float) -> None:
        """Pause the message's partition for `delay_s` and deliver from `message` again."""
        self._check_open()
        partition = (message.topic, message.partition)
        if partition not in self._positions:
            return  # it is with another member, who starts from what is committed
        until_s = self._clock.monotonic_s() + delay_s
        self._paused_until_s[partition] = max(until_s, self._paused_until_s.get(partition, until_s))
        again = max(message.offset, self._committed[partition])
        self._positions[partition] = min(again, self._positions[partition])

    def dead_letter(self, message: Message, *, error: str) -> None:
        """Append the message's bytes to the dead letters."""
        self._check_open()
        with self._log.transaction(self._connection):
            self._check_mine(message)
            row = self._connection.execute(
                "SELECT headers, key, value FROM messages WHERE topic = ? AND partition = ? AND offset = ?",
                (message.topic, message.partition, message.offset),
            ).fetchone()
            if row is None:
                raise NotFound(f"{_place(message)} is no longer kept; commit it instead")
            headers = with_origin(read_headers(row[0]), message, group=self._group, error=error)
            self._log.append(self._connection, dead_letter_topic(message.topic), headers, row[1], row[2])
        self._log.announce()

    def close(self) -> None:
        """Leave the group. If the file does not answer, the lease runs out by itself."""
        if self._closed:
            return
        self._closed = True
        try:
            with self._log.transaction(self._connection):
                for table in ("members", "leases"):
                    self._connection.execute(
                        f"DELETE FROM {table} WHERE group_name = ? AND member = ?",
                        (self._group, self._member),
                    )
                self._raise_revision()
        except TunesmithError as error:
            log.warning("left group %s without telling: %s", self._group, error)
        finally:
            self._connection.close()
        self._log.announce()

    def _must_join(self) -> bool:
        """Whether the lease wants renewing, or the group has changed."""
        if self._clock.monotonic_s() >= self._renew_at_s:
            return True
        (revision,) = self._connection.execute("SELECT revision FROM groups WHERE name = ?", (self._group,)).fetchone()
        return int(revision) != self._revision

    def _join(self) -> None:
        """Renew the membership, remove the dead, give back what exceeds the fair share and take what is free of it."""
        db, group, member = self._connection, self._group, self._member
        now_s = self._clock.now().timestamp()
        with self._log.transaction(db):
            db.execute("INSERT OR IGNORE INTO groups VALUES (?, 0)", (group,))
            # An expiry further away than a whole session comes from a clock that has been set back since.
            changes = db.execute(
                "DELETE FROM members WHERE group_name = ? AND member <> ? "
                "AND (expires_s < ? OR expires_s > ? + session_timeout_s)",
                (group, member, now_s, now_s),
            ).rowcount
            joined = db.execute(
                "INSERT OR IGNORE INTO members (group_name, member, topics, expires_s, session_timeout_s) "
                "VALUES (?, ?, ?, 0, ?)",
                (group, member, json.dumps(self._topics), self._session_timeout_s),
            ).rowcount
            changes += joined
            db.execute(
                "UPDATE members SET expires_s = ? WHERE group_name = ? AND member = ?",
                (now_s + self._session_timeout_s, group, member),
            )
            db.execute(
                "DELETE FROM leases WHERE group_name = ? "
                "AND member NOT IN (SELECT member FROM members WHERE group_name = ?)",
                (group, group),
            )
            share = self._fair_share()
            for topic, partition in self._leases() - share:
                changes += db.execute(
                    "DELETE FROM leases WHERE group_name = ? AND topic = ? AND partition = ?",
                    (group, topic, partition),
                ).rowcount
            for topic, partition in share:
                db.execute("INSERT OR IGNORE INTO leases VALUES (?, ?, ?, ?)", (group, topic, partition, member))
            mine = self._leases()
            if changes:
                self._raise_revision()
            (revision,) = db.execute("SELECT revision FROM groups WHERE name = ?", (group,)).fetchone()
            # Who had been removed starts anew everywhere: others may have gone on meanwhile.
            kept = set() if joined else mine & self._positions.keys()
            starts = {partition: self._start(partition) for partition in mine - kept}
        self._revision = int(revision)
        self._renew_at_s = self._clock.monotonic_s() + self._session_timeout_s / _RENEWALS_PER_SESSION
        self._take_over(kept, starts)
        if changes:
            self._log.announce()

    def _take_over(self, kept: set[Partition], starts: dict[Partition, int]) -> None:
        for lost in self._positions.keys() - kept:
            del self._positions[lost], self._committed[lost]
            self._paused_until_s.pop(lost, None)
            self._failures.pop(lost, None)
        self._positions.update(starts)
        self._committed.update(starts)

    def _fair_share(self) -> set[Partition]:
        """The partitions that are this member's: those of its topics dealt out in turn, the oldest member first."""
        members = [
            (member, set(json.loads(topics)))
            for member, topics in self._connection.execute(
                "SELECT member, topics FROM members WHERE group_name = ? ORDER BY number", (self._group,)
            )
        ]
        share: set[Partition] = set()
        turn = 0
        for topic in self._topics:
            takers = [member for member, topics in members if topic in topics]
            for partition in range(self._log.num_partitions(self._connection, topic)):
                if takers[turn % len(takers)] == self._member:
                    share.add((topic, partition))
                turn += 1
        return share

    def _leases(self) -> set[Partition]:
        return set(
            self._connection.execute(
                "SELECT topic, partition FROM leases WHERE group_name = ? AND member = ?", (self._group, self._member)
            )
        )

    def _start(self, partition: Partition) -> int:
        """The group's first offset that is not committed. Noted when it is 0, so that `compact` knows the group."""
        self._connection.execute("INSERT OR IGNORE INTO commits VALUES (?, ?, ?, 0)", (self._group, *partition))
        (offset,) = self._connection.execute(
            "SELECT next_offset FROM commits WHERE group_name = ? AND topic = ? AND partition = ?",
            (self._group, *partition),
        ).fetchone()
        return int(offset)

    def _fetch(self, max_messages: int) -> Sequence[Message]:
        """The next messages, starting with another partition each time so that a busy one does not starve others."""
        now_s = self._clock.monotonic_s()
        ready = sorted(p for p in self._positions if self._paused_until_s.get(p, now_s) <= now_s)
        self._turn += 1
        messages: list[Message] = []
        for i in range(len(ready)):
            if len(messages) >= max_messages:
                break
            topic, partition = ready[(self._turn + i) % len(ready)]
            rows = self._connection.execute(
                "SELECT offset, headers, key, value FROM messages "
                "WHERE topic = ? AND partition = ? AND offset >= ? ORDER BY offset LIMIT ?",
                (topic, partition, self._positions[topic, partition], max_messages - len(messages)),
            ).fetchall()
            for offset, headers, key, value in rows:
                event, decode_error = try_decode(read_headers(headers), key, value)
                attempt = self._failures[topic, partition].get(offset, 0) + 1
                size_bytes = len(headers) + len(value or b"")
                messages.append(
                    Message(topic, partition, offset, key_text(key), event, attempt, decode_error, size_bytes)
                )
                self._positions[topic, partition] = offset + 1
        return messages

    def _wait(self, num_writes: int, version: int, deadline_s: float) -> bool:
        """Wait for something to look for; False when the deadline passes first."""
        while True:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            self._log.wait_for_write(num_writes, timeout_s=min(left_s, _LOOK_EVERY_S))
            now_s = self._clock.monotonic_s()
            ended = [p for p, until_s in self._paused_until_s.items() if until_s <= now_s]
            for partition in ended:
                del self._paused_until_s[partition]
            with self._log.failures():
                news = self._log.num_writes != num_writes or self._data_version() != version
            if news or ended or now_s >= self._renew_at_s:
                return True

    def _data_version(self) -> int:
        """A number that changes when another connection commits."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _check_open(self) -> None:
        if self._closed:
            raise FailedPrecondition(f"the subscription of group {self._group} is closed; open a new one")

    def _is_mine(self, message: Message) -> bool:
        row = self._connection.execute(
            "SELECT member FROM leases WHERE group_name = ? AND topic = ? AND partition = ?",
            (self._group, message.topic, message.partition),
        ).fetchone()
        return row is not None and row[0] == self._member

    def _check_mine(self, message: Message) -> None:
        if not self._is_mine(message):
            raise Conflict(
                f"{_place(message)} went to another member of group {self._group}: poll at least every "
                f"{self._session_timeout_s} s; the message comes again there",
                reason="PARTITION_LOST",
            )

    def _commit(self, message: Message) -> None:
        self._connection.execute(
            "UPDATE commits SET next_offset = max(next_offset, ?) WHERE group_name = ? AND topic = ? AND partition = ?",
            (message.offset + 1, self._group, message.topic, message.partition),
        )

    def _forget_until(self, message: Message) -> None:
        """Drop what is kept in memory about the message and those before it."""
        partition = (message.topic, message.partition)
        failures = self._failures[partition]
        for offset in [offset for offset in failures if offset <= message.offset]:
            del failures[offset]
        if partition in self._positions:
            self._committed[partition] = max(self._committed[partition], message.offset + 1)
            self._positions[partition] = max(self._positions[partition], message.offset + 1)

    def _raise_revision(self) -> None:
        self._connection.execute("UPDATE groups SET revision = revision + 1 WHERE name = ?", (self._group,))


def _place(message: Message) -> str:
    return f"message {message.offset} of partition {message.partition} of {message.topic}"
