"""The SQLite bus: time, full disks, locked and broken files, and its group protocol under random use."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from contract.bus_contract import event, events, numbers
from contract.deadline import eventually
from doubles.fake_clock import FakeClock
from tunesmith.adapters import sqlite_subscription
from tunesmith.adapters.sqlite_bus import SqliteBus
from tunesmith.adapters.sqlite_subscription import SqliteSubscription
from tunesmith.domain.errors import (
    Conflict,
    DataLoss,
    FailedPrecondition,
    InvalidInput,
    InvalidSettings,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unsupported,
)
from tunesmith.ports.bus import Message


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "bus.sqlite"


@pytest.fixture
def bus(path: Path, clock: FakeClock) -> Iterator[SqliteBus]:
    with closing(SqliteBus(path, clock=clock, busy_timeout_s=0.1)) as bus:
        bus.ensure_topics(["topic"])
        yield bus


def test_a_silent_member_is_removed_when_its_session_is_over(bus: SqliteBus, clock: FakeClock) -> None:
    bus.publish("topic", events(0, 8))
    with closing(bus.subscribe("g", ["topic"])) as silent, closing(bus.subscribe("g", ["topic"])) as other:
        assert len(silent.poll(timeout_s=0.0)) == 4
        clock.advance(9.9)
        before = other.poll(timeout_s=0.0)
        assert len(before) == 4

        clock.advance(4.0)

        assert sorted(numbers([*before, *other.poll(timeout_s=0.0)])) == list(range(8))


def test_a_member_that_nobody_missed_keeps_its_place(bus: SqliteBus, clock: FakeClock) -> None:
    bus.publish("topic", events(0, 3, subject="s"))
    with closing(bus.subscribe("g", ["topic"])) as subscription:
        messages = subscription.poll(timeout_s=0.0)
        clock.advance(3600.0)

        assert subscription.poll(timeout_s=0.0) == []
        subscription.commit(messages[2])


def test_a_wall_clock_set_back_does_not_keep_the_dead_alive(bus: SqliteBus, clock: FakeClock) -> None:
    bus.publish("topic", events(0, 8))
    with closing(bus.subscribe("g", ["topic"])), closing(bus.subscribe("g", ["topic"])) as other:
        clock.set_wall(clock.now() - timedelta(days=1))
        clock.advance(4.0)

        assert sorted(numbers(other.poll(timeout_s=0.0))) == list(range(8))


def test_a_delay_ends_with_the_clock(bus: SqliteBus, clock: FakeClock) -> None:
    bus.publish("topic", [event(1)])
    with closing(bus.subscribe("g", ["topic"])) as subscription:
        (message,) = subscription.poll(timeout_s=0.0)
        subscription.retry_later(message, delay_s=2.0)

        clock.advance(1.9)
        assert subscription.poll(timeout_s=0.0) == []
        clock.advance(0.2)

        assert subscription.poll(timeout_s=0.0) == [message]


def test_publishing_wakes_a_waiting_poll_of_the_same_bus(bus: SqliteBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_subscription, "_LOOK_EVERY_S", 60.0)
    with closing(bus.subscribe("g", ["topic"])) as subscription, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(subscription.poll, timeout_s=30.0)
        eventually(lambda: subscription._turn == 1)

        bus.publish("topic", [event(1)])

        assert numbers(waiting.result()) == [1]


def test_publishing_wakes_a_waiting_poll_of_another_process(bus: SqliteBus, path: Path, clock: FakeClock) -> None:
    with closing(bus.subscribe("g", ["topic"])) as subscription, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(subscription.poll, timeout_s=30.0)
        eventually(lambda: subscription._turn == 1)

        with closing(SqliteBus(path, clock=clock)) as other:
            other.publish("topic", [event(1)])

        assert numbers(waiting.result()) == [1]


def test_the_end_of_a_delay_wakes_a_waiting_poll(bus: SqliteBus, clock: FakeClock) -> None:
    bus.publish("topic", [event(1)])
    with closing(bus.subscribe("g", ["topic"])) as subscription, ThreadPoolExecutor(1) as pool:
        subscription.retry_later(subscription.poll(timeout_s=0.0)[0], delay_s=1.0)
        waiting = pool.submit(subscription.poll, timeout_s=30.0)
        eventually(lambda: subscription._turn == 2)

        clock.advance(1.0)

        assert numbers(waiting.result()) == [1]


def test_partitions_of_several_topics_are_dealt_out_evenly(bus: SqliteBus) -> None:
    bus.ensure_topics(["other", "third"])
    topics = ["topic", "other", "third"]
    members = [bus.subscribe("g", topics) for _ in range(3)] + [bus.subscribe("g", ["other"])]

    for _ in range(3):
        for member in members:
            member.poll(timeout_s=0.0)

    assert sorted(len(member._positions) for member in members) == [1, 3, 4, 4]
    assert len({p for member in members for p in member._positions}) == 12
    for member in members:
        member.close()


def test_a_file_locked_by_another_process_is_unavailable(bus: SqliteBus, path: Path) -> None:
    subscription = bus.subscribe("g", ["topic"])
    bus.publish("topic", [event(1)])
    (message,) = subscription.poll(timeout_s=0.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        for call in (lambda: bus.publish("topic", [event(2)]), lambda: subscription.commit(message)):
            with pytest.raises(Unavailable, match="locked by another process"):
                call()

    bus.publish("topic", [event(3)])
    subscription.commit(message)
    assert numbers(subscription.poll(timeout_s=0.0)) == [3]
    subscription.close()


def test_leaving_while_the_file_is_locked_does_not_fail(bus: SqliteBus, path: Path) -> None:
    subscription = bus.subscribe("g", ["topic"])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        subscription.close()

    with pytest.raises(FailedPrecondition, match="closed"):
        subscription.poll(timeout_s=0.0)


def test_a_full_disk_is_named_and_publishes_nothing(bus: SqliteBus, path: Path) -> None:
    (pages,) = bus._connection.execute("PRAGMA page_count").fetchone()
    bus._connection.execute(f"PRAGMA max_page_count = {pages + 20}")

    with pytest.raises(ResourceExhausted, match=r"bus\.sqlite.*bytes free"):
        bus.publish("topic", [event(n) for n in range(10_000)])

    bus.publish("topic", [event(1)])
    with closing(bus.subscribe("g", ["topic"])) as subscription:
        assert numbers(subscription.poll(timeout_s=0.0)) == [1]


def test_a_file_of_something_else_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "text").write_text("not a database " * 100)

    with pytest.raises(DataLoss, match="corrupt"):
        SqliteBus(tmp_path / "text", clock=clock)


def test_a_file_of_a_later_version_is_refused(bus: SqliteBus, path: Path, clock: FakeClock) -> None:
    bus._connection.execute("PRAGMA user_version = 7")

    with pytest.raises(Unsupported, match="layout 7"):
        SqliteBus(path, clock=clock)


def test_a_path_that_cannot_be_used_stops_the_start(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(InvalidSettings, match="TUNESMITH_BUS"):
        SqliteBus(tmp_path / "file" / "bus.sqlite", clock=clock)
    with pytest.raises(InvalidSettings, match="partitions"):
        SqliteBus(tmp_path / "bus.sqlite", clock=clock, partitions=0)


def test_wrong_names_are_refused(bus: SqliteBus) -> None:
    refused: list[Callable[[], object]] = [
        lambda: bus.ensure_topics(["a b"]),
        lambda: bus.ensure_topics([""]),
        lambda: bus.subscribe("", ["topic"]),
        lambda: bus.subscribe("g", []),
    ]
    for call in refused:
        with pytest.raises(InvalidInput):
            call()
    for missing in (lambda: bus.subscribe("g", ["nothing"]), lambda: bus.dead_letters("nothing")):
        with pytest.raises(NotFound, match="nothing"):
            missing()


def test_a_closed_bus_says_so(bus: SqliteBus) -> None:
    bus.close()
    bus.close()

    with pytest.raises(FailedPrecondition, match="closed"):
        bus.publish("topic", [event(1)])


def test_dead_letters_can_be_consumed_like_any_topic(bus: SqliteBus) -> None:
    bus.publish("topic", [event(1)])
    with closing(bus.subscribe("g", ["topic"])) as subscription:
        subscription.dead_letter(subscription.poll(timeout_s=0.0)[0], error="e")

    with closing(bus.subscribe("replay", ["topic.dead-letter"])) as subscription:
        assert numbers(subscription.poll(timeout_s=0.0)) == [1]


def test_compacting_keeps_what_is_young_or_still_needed(bus: SqliteBus, clock: FakeClock) -> None:
    bus.publish("topic", events(0, 6, subject="s"))
    slow, quick = bus.subscribe("slow", ["topic"]), bus.subscribe("quick", ["topic"])
    slow.commit(slow.poll(timeout_s=0.0)[1])
    messages = quick.poll(timeout_s=0.0)
    quick.dead_letter(messages[4], error="e")
    quick.commit(messages[5])

    assert bus.compact(max_age_s=60.0) == 0
    clock.advance(61.0)
    bus.publish("topic", [event(6, subject="s")])
    assert bus.compact(max_age_s=60.0) == 3

    assert bus.dead_letters("topic") == []
    slow.close()
    quick.close()
    with closing(bus.subscribe("slow", ["topic"])) as subscription:
        assert numbers(subscription.poll(timeout_s=0.0)) == [2, 3, 4, 5, 6]
    with closing(bus.subscribe("new", ["topic"])) as subscription:
        messages = subscription.poll(timeout_s=0.0)
        assert numbers(messages) == [2, 3, 4, 5, 6]
        assert [m.offset for m in messages] == [2, 3, 4, 5, 6]


class GroupUnderRandomUse(RuleBasedStateMachine):
    """Members come, go, stall and fail while events are published: nothing is lost, doubled after commit or swapped."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.bus = SqliteBus(Path(self.folder.name) / "bus.sqlite", clock=self.clock, partitions=3)
        self.bus._connection.execute("PRAGMA synchronous = OFF")
        self.bus.ensure_topics(["topic"])
        self.num_published = 0
        self.members: list[SqliteSubscription] = []
        self.held: dict[SqliteSubscription, list[Message]] = defaultdict(list)
        self.next_offset: dict[int, int] = defaultdict(int)
        self.done: set[int] = set()

    @rule(count=st.integers(1, 5))
    def publish(self, count: int) -> None:
        self.bus.publish("topic", events(self.num_published, self.num_published + count))
        self.num_published += count

    @precondition(lambda self: len(self.members) < 4)
    @rule()
    def join(self) -> None:
        member = self.bus.subscribe("g", ["topic"])
        member._connection.execute("PRAGMA synchronous = OFF")
        self.members.append(member)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), max_messages=st.integers(1, 4))
    def poll(self, data: st.DataObject, max_messages: int) -> None:
        member = data.draw(st.sampled_from(self.members))
        for message in member.poll(timeout_s=0.0, max_messages=max_messages):
            assert message.offset >= self.next_offset[message.partition], "a committed message came again"
            earlier = [m.offset for m in self.held[member] if m.partition == message.partition]
            assert (
                message.offset <= max(earlier, default=-1) + 1 or message.offset == self.next_offset[message.partition]
            )
            self.held[member].append(message)

    @precondition(lambda self: any(self.held[m] for m in self.members))
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from([m for m in self.members if self.held[m]]))
        message = data.draw(st.sampled_from(self.held[member]))
        try:
            member.commit(message)
        except Conflict:
            owners = [m for m in self.members if ("topic", message.partition) in m._leases()]
            assert member not in owners
            return
        self.next_offset[message.partition] = max(self.next_offset[message.partition], message.offset + 1)
        self.done |= set(
            numbers([m for m in self.held[member] if m.partition == message.partition and m.offset <= message.offset])
        )

    @precondition(lambda self: any(self.held[m] for m in self.members))
    @rule(data=st.data(), delay_s=st.sampled_from([0.0, 1.0, 30.0]))
    def retry_later(self, data: st.DataObject, delay_s: float) -> None:
        member = data.draw(st.sampled_from([m for m in self.members if self.held[m]]))
        member.retry_later(data.draw(st.sampled_from(self.held[member])), delay_s=delay_s)

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(self.members))
        self.members.remove(member)
        member.close()

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(self.members))
        self.members.remove(member)
        member._connection.close()

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def no_partition_is_with_two_members(self) -> None:
        leases = [partition for member in self.members for partition in member._leases()]
        assert len(leases) == len(set(leases))

    def teardown(self) -> None:
        try:
            self.clock.advance(60.0)
            with closing(self.bus.subscribe("g", ["topic"])) as last:
                rest: list[Message] = []
                for _ in range(20 + self.num_published):
                    rest += last.poll(timeout_s=0.0)
                assert self.done | set(numbers(rest)) >= set(range(self.num_published)), "a message was lost"
                for message in rest:
                    assert message.offset >= self.next_offset[message.partition]
        finally:
            for member in self.members:
                member.close()
            self.bus.close()
            self.folder.cleanup()


TestGroupUnderRandomUse = GroupUnderRandomUse.TestCase
TestGroupUnderRandomUse.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
