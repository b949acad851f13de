"""Failing events wait by key, beside those that go on: on a real bus, in time that stands still."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from contract.deadline import eventually
from doubles.fake_clock import FakeClock
from tunesmith.adapters.cloud_events import EncodedEvent
from tunesmith.adapters.sqlite_bus import SqliteBus
from tunesmith.domain.errors import InvalidInput, StoreUnavailable, Unavailable
from tunesmith.domain.events import RUN_SUCCEEDED, Event
from tunesmith.jobs import parking
from tunesmith.jobs.consuming import BATCH_S, MAX_ATTEMPTS, MAX_OUTAGE_ATTEMPTS, MAX_RETRY_S, ConsumerLoop
from tunesmith.ports.bus import Message

TOPIC = "topic"


@dataclass
class Plant:
    """Members of one group, and what their handler was asked to do."""

    bus: SqliteBus
    clock: FakeClock
    wrong: dict[str, Exception] = field(default_factory=dict)
    """What the handler raises, by event id, while it stands here."""
    tried: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    takes_s: float = 0.0
    """How long the handler is at work."""

    ids: list[str] = field(default_factory=list)
    """What was published, in order."""

    def publish(self, *keys: str) -> None:
        """One event for each key; its id is the key and a number that goes on from those before."""
        for key in keys:
            self.ids.append(f"{key}{len(self.ids)}")
            made = Event(self.ids[-1], RUN_SUCCEEDED, "/tunesmith/trainer", key, "2026-01-01T00:00:00.000000Z", {})
            self.bus.publish(TOPIC, [made])

    def handle(self, event: Event) -> None:
        self.clock.advance(self.takes_s)
        self.tried.append(event.id)
        if event.id in self.wrong:
            raise self.wrong[event.id]
        self.done.append(event.id)

    def loop(self) -> ConsumerLoop:
        return ConsumerLoop(
            bus=self.bus, clock=self.clock, group="g", topics=[TOPIC], handlers={RUN_SUCCEEDED: self.handle}
        )

    def dead(self) -> list[tuple[str, int]]:
        """Id and attempt of each dead letter."""
        letters = self.bus.dead_letters(TOPIC, limit=10_000)
        return [(x.message.event.id, x.attempt) for x in letters if x.message.event is not None]

    def uncommitted(self) -> list[str]:
        """What would come again if everybody died now."""
        rows = self.bus._connection.execute(
            "SELECT m.headers FROM messages AS m JOIN commits AS c USING (topic, partition) "
            "WHERE c.group_name = 'g' AND m.offset >= c.next_offset ORDER BY m.partition, m.offset"
        )
        return [dict(json.loads(headers))["ce_id"] for (headers,) in rows]


class Member:
    """One consumer, a poll at a time."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.subscription = plant.bus.subscribe("g", [TOPIC])
        self.loop = plant.loop()

    def turn(self, *, after_s: float = 0.0) -> int:
        self.plant.clock.advance(after_s)
        return self.loop.handle_batch(self.subscription, timeout_s=0.0)

    def close(self) -> None:
        self.subscription.close()


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    clock = FakeClock()
    with closing(SqliteBus(tmp_path / "bus.sqlite", clock=clock, partitions=1)) as bus:
        bus.ensure_topics([TOPIC])
        bus._connection.execute("PRAGMA synchronous = OFF")
        yield Plant(bus, clock)


@pytest.fixture
def member(plant: Plant) -> Iterator[Member]:
    with closing(Member(plant)) as member:
        yield member


def test_other_keys_of_the_partition_do_not_wait_for_one_that_fails(plant: Plant, member: Member) -> None:
    plant.wrong["a0"] = RuntimeError("broken")
    plant.publish("a", "b", "a", "c", "b")

    member.turn()
    assert plant.done == ["b1", "c3", "b4"]
    assert plant.tried == ["a0", "b1", "c3", "b4"]

    del plant.wrong["a0"]
    member.turn(after_s=0.19)
    assert plant.done == ["b1", "c3", "b4"]
    assert member.turn(after_s=0.02) == 2
    assert plant.done == ["b1", "c3", "b4", "a0", "a2"]
    assert plant.uncommitted() == []


def test_who_stood_behind_a_failing_event_has_not_been_tried(plant: Plant, member: Member) -> None:
    plant.wrong |= {"a0": RuntimeError("broken"), "a1": InvalidInput("no such base")}
    plant.publish("a", "a")

    for _ in range(MAX_ATTEMPTS):
        member.turn(after_s=MAX_RETRY_S)

    assert plant.dead() == [("a0", MAX_ATTEMPTS), ("a1", 1)]
    assert plant.uncommitted() == []


def test_nothing_that_waits_is_committed_past_and_all_of_it_comes_again_after_a_crash(
    plant: Plant, member: Member
) -> None:
    plant.wrong |= {"b1": RuntimeError("broken"), "d4": InvalidInput("never")}
    plant.publish("a", "b", "c", "b", "d", "e")

    member.turn()

    assert plant.dead() == [("d4", 1)]
    assert plant.done == ["a0", "c2", "e5"]
    assert plant.uncommitted() == ["b1", "c2", "b3", "d4", "e5"]
    member.subscription._connection.close()  # killed
    plant.wrong.clear()
    plant.clock.advance(60.0)
    with closing(Member(plant)) as other:
        other.turn()
    assert plant.done[3:] == ["b1", "c2", "b3", "d4", "e5"]
    assert plant.uncommitted() == []


def test_an_undecodable_message_is_a_dead_letter_in_its_keys_turn(plant: Plant, member: Member) -> None:
    plant.wrong["a0"] = RuntimeError("broken")
    plant.publish("a")
    plant.bus.publish_encoded(TOPIC, [EncodedEvent([], b"a", b"{"), EncodedEvent([], b"b", b"{")])

    member.turn()
    assert [letter.message.key for letter in plant.bus.dead_letters(TOPIC)] == ["b"]
    plant.wrong.clear()
    member.turn(after_s=1.0)

    assert [letter.message.key for letter in plant.bus.dead_letters(TOPIC)] == ["b", "a"]


def test_an_outage_of_a_minute_costs_no_event(plant: Plant, member: Member) -> None:
    plant.publish(*"abcab")
    plant.wrong |= dict.fromkeys(plant.ids, StoreUnavailable("the store is away"))

    for _ in range(600):
        member.turn(after_s=0.1)

    tries = Counter(plant.tried)
    assert set(tries) == {"a0", "b1", "c2"}, "only the first of each key is tried"
    assert max(tries.values()) <= 12, "tries grow rare"
    assert plant.dead() == []
    plant.wrong.clear()
    member.turn(after_s=MAX_RETRY_S)
    assert sorted(plant.done) == sorted(plant.ids)
    assert plant.uncommitted() == []


def test_what_meets_an_outage_for_half_an_hour_is_given_up(plant: Plant, member: Member) -> None:
    plant.publish("a", "b")
    plant.wrong["a0"] = Unavailable("for ever")

    began_s = plant.clock.monotonic_s()
    while not plant.dead():
        member.turn(after_s=1.0)

    assert plant.dead() == [("a0", MAX_OUTAGE_ATTEMPTS)]
    assert 1500 < plant.clock.monotonic_s() - began_s < 2400


def test_attempts_during_an_outage_are_not_held_against_an_event(plant: Plant, member: Member) -> None:
    plant.publish("a")
    plant.wrong["a0"] = Unavailable("away")
    for _ in range(20):
        member.turn(after_s=MAX_RETRY_S)
    attempts = len(plant.tried)

    plant.wrong["a0"] = RuntimeError("its own fault")
    for _ in range(MAX_ATTEMPTS):
        assert plant.dead() == []
        member.turn(after_s=MAX_RETRY_S)

    assert plant.dead() == [("a0", attempts + MAX_ATTEMPTS)]


def test_no_more_wait_than_may_and_the_rest_stays_with_the_bus(
    plant: Plant, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "MAX_PARKED", 3)
    plant.publish(*"aaaaabac")
    plant.wrong |= {id_: Unavailable("away") for id_ in plant.ids}

    for _ in range(100):
        member.turn(after_s=1.0)

    assert set(plant.tried) == {"a0"}, "what is behind the third comes when that has room"
    plant.wrong.clear()
    for _ in range(20):
        member.turn(after_s=MAX_RETRY_S)
    assert sorted(plant.done) == sorted(plant.ids)
    assert [id_ for id_ in plant.done if id_[0] == "a"] == ["a0", "a1", "a2", "a3", "a4", "a6"]
    assert plant.dead() == []
    assert plant.uncommitted() == []


@pytest.mark.parametrize(("limit", "value"), [("MAX_PARKED", 4), ("MAX_PARKED_BYTES", 1600), ("MAX_BEHIND", 8)])
def test_events_that_fail_while_most_go_on_are_given_up_before_they_hold_up_others(
    plant: Plant, member: Member, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(parking, limit, value)
    for n in range(20):
        plant.publish("a", f"b{n}", f"c{n}", f"d{n}")
    plant.wrong |= {id_: Unavailable("for ever") for id_ in plant.ids if id_[0] == "a"}

    for _ in range(60):
        member.turn(after_s=0.1)

    assert [id_ for id_ in plant.done if id_[0] != "a"] == [id_ for id_ in plant.ids if id_[0] != "a"]
    dead = [id_ for id_, _ in plant.dead()]
    assert 10 <= len(dead) < 20
    assert dead == [id_ for id_ in plant.ids if id_[0] == "a"][: len(dead)]


def test_a_full_parking_is_no_reason_to_give_up_in_an_outage_that_all_meet(
    plant: Plant, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "MAX_PARKED", 4)
    plant.publish(*"zabcdefgh")
    plant.wrong |= {id_: Unavailable("away") for id_ in plant.ids[1:]}

    for _ in range(300):
        member.turn(after_s=1.0)

    assert plant.dead() == []
    assert len(set(plant.tried)) == 6, "four wait, and one more was tried"


def test_the_parked_messages_of_a_lost_partition_are_handled_by_its_new_member_alone(plant: Plant) -> None:
    with closing(Member(plant)) as silent:
        plant.publish("a", "a", "b")
        plant.wrong["a0"] = RuntimeError("broken here")
        silent.turn()
        plant.clock.advance(60.0)
        plant.wrong.clear()
        with closing(Member(plant)) as other:
            other.turn()
            assert plant.done == ["b2", "a0", "a1", "b2"]

            for _ in range(5):
                silent.turn(after_s=0.5)
                other.turn()

    assert plant.done == ["b2", "a0", "a1", "b2"]


def test_a_partition_that_went_and_came_back_starts_from_what_is_committed(plant: Plant) -> None:
    with closing(Member(plant)) as silent:
        plant.publish("a", "a", "b", "c")
        plant.wrong |= {"a0": RuntimeError("broken here"), "c3": RuntimeError("broken")}
        silent.turn()
        plant.clock.advance(60.0)
        with closing(Member(plant)) as other:
            del plant.wrong["a0"]
            other.turn()
        del plant.done[:], plant.tried[:]

        for _ in range(5):
            silent.turn(after_s=1.0)

    assert set(plant.tried) == {"c3"}


def test_a_partition_that_came_back_as_it_was_is_handled_as_if_new(plant: Plant) -> None:
    with closing(Member(plant)) as silent:
        plant.publish("a", "a", "b")
        plant.wrong["a0"] = RuntimeError("broken")
        silent.turn()
        plant.clock.advance(60.0)
        with closing(plant.bus.subscribe("g", [TOPIC])) as other:
            assert len(other.poll(timeout_s=0.0)) == 3
        plant.wrong.clear()
        del plant.done[:]

        for _ in range(5):
            silent.turn(after_s=1.0)

    assert plant.done == ["a0", "a1", "b2"]
    assert plant.uncommitted() == []


def test_an_event_that_finds_no_room_to_wait_is_given_up_after_as_many_attempts(
    plant: Plant, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "MAX_PARKED", 1)
    plant.publish("a", "b", "c")
    plant.wrong |= {"a0": Unavailable("away"), "b1": RuntimeError("broken")}

    for _ in range(2 * MAX_ATTEMPTS):
        member.turn(after_s=MAX_RETRY_S)

    assert plant.dead() == [("b1", MAX_ATTEMPTS)]
    assert plant.done == ["c2"]


def test_stopping_does_not_wait_for_what_is_parked(plant: Plant) -> None:
    plant.wrong["a0"] = Unavailable("away")
    plant.publish("a", "b")
    loop = plant.loop()
    loop.start()
    eventually(lambda: plant.done)

    loop.stop()

    assert plant.uncommitted() == ["a0", "b1"]


def test_slow_handlers_leave_the_rest_of_a_batch_for_the_next_poll(plant: Plant, member: Member) -> None:
    plant.takes_s = 0.4
    plant.publish(*"abcabcabc")

    assert member.turn() == 3
    assert plant.uncommitted() == plant.ids[3:]
    for _ in range(2):
        assert member.turn() == 3

    assert plant.done == plant.ids


def test_slow_failures_do_not_keep_the_consumer_from_polling(plant: Plant, member: Member) -> None:
    plant.takes_s = 30.0
    plant.publish(*"abcdef")
    plant.wrong |= dict.fromkeys(plant.ids, Unavailable("no answer"))

    for _ in range(20):
        before = len(plant.tried)
        member.turn()
        assert len(plant.tried) - before <= 1

    assert set(plant.tried) == set(plant.ids)
    assert len(plant.tried) > len(plant.ids)


def test_an_event_that_cannot_become_a_dead_letter_is_kept(plant: Plant, member: Member) -> None:
    plant.publish("a", "b")
    plant.wrong["a0"] = InvalidInput("never")
    db = plant.bus._connection
    db.execute("UPDATE partitions SET topic = 'hidden' WHERE topic = 'topic.dead-letter'")

    member.turn()
    assert plant.done == ["b1"]
    assert plant.uncommitted() == ["a0", "b1"]
    db.execute("UPDATE partitions SET topic = 'topic.dead-letter' WHERE topic = 'hidden'")
    member.turn(after_s=1.0)

    assert plant.dead() == [("a0", 2)]
    assert plant.uncommitted() == []


def test_what_is_done_is_not_kept_in_memory_by_what_waits_behind_it() -> None:
    large = Message("t", 0, 1, "a", Event("e", RUN_SUCCEEDED, "/s", "a", "", {}), 1, raw=bytearray(1 << 20))
    failing = Message("t", 0, 2, "b", None, 1)
    here = parking.Parking(large)

    here.park(failing, due_s=0.0)

    assert here.last_done is not None
    assert (here.last_done.offset, here.last_done.event, here.last_done.raw) == (1, None, None)


def test_a_batch_takes_no_longer_than_the_shortest_time_that_a_member_may_be_silent() -> None:
    assert BATCH_S <= 1.0


class ConsumersUnderRandomFailures(RuleBasedStateMachine):
    """Handlers fail at random while members join, stall and die: each event is done in its key's order, or stays."""

    PARTITIONS = 2

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.patch = pytest.MonkeyPatch()
        for name, value in (("MAX_PARKED", 4), ("MAX_BEHIND", 12)):
            self.patch.setattr(parking, name, value)
        clock = FakeClock()
        bus = SqliteBus(Path(self.folder.name) / "bus.sqlite", clock=clock, partitions=self.PARTITIONS)
        bus._connection.execute("PRAGMA synchronous = OFF")
        bus.ensure_topics([TOPIC])
        self.plant = Plant(bus, clock)
        self.plant.handle = self.handle  # type: ignore[method-assign]
        self.members: list[Member] = []
        self.failures: dict[str, list[Exception]] = {}
        self.by_key: dict[str, list[str]] = defaultdict(list)
        self.finished: set[str] = set()

    def handle(self, event: Event) -> None:
        if self.by_key[event.subject][0] != event.id and event.id not in self.finished:
            assert set(self.before(event)) <= self.over(), f"{event.id} was tried before those of its key were done"
        if self.failures[event.id]:
            raise self.failures[event.id].pop()
        self.finished.add(event.id)

    def before(self, event: Event) -> list[str]:
        return self.by_key[event.subject][: self.by_key[event.subject].index(event.id)]

    def over(self) -> set[str]:
        return self.finished | {id_ for id_, _ in self.plant.dead()}

    @rule(
        keys=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=8),
        error=st.sampled_from([Unavailable("away"), RuntimeError("broken"), InvalidInput("never")]),
        often=st.sampled_from([0, 0, 1, 3, 7]),
    )
    def publish(self, keys: list[str], error: Exception, often: int) -> None:
        for n, key in enumerate(keys):
            self.plant.publish(key)
            self.failures[self.plant.ids[-1]] = [] if n % 2 else [error] * often
            self.by_key[key].append(self.plant.ids[-1])

    @precondition(lambda self: len(self.members) < 3)
    @rule()
    def join(self) -> None:
        member = Member(self.plant)
        member.subscription._connection.execute("PRAGMA synchronous = OFF")
        self.members.append(member)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), after_s=st.sampled_from([0.0, 0.3, 2.0, 11.0]))
    def turn(self, data: st.DataObject, after_s: float) -> None:
        data.draw(st.sampled_from(self.members)).turn(after_s=after_s)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), end=st.sampled_from([Member.close, lambda member: member.subscription._connection.close()]))
    def leave(self, data: st.DataObject, end: Callable[[Member], None]) -> None:
        member = data.draw(st.sampled_from(self.members))
        self.members.remove(member)
        end(member)

    @invariant()
    def what_is_committed_is_done(self) -> None:
        asked = self.plant.bus._connection.execute("SELECT count(*) FROM commits WHERE group_name = 'g'").fetchone()[0]
        if asked == self.PARTITIONS:
            assert set(self.plant.ids) - set(self.plant.uncommitted()) <= self.over()

    def teardown(self) -> None:
        try:
            self.plant.clock.advance(60.0)
            with closing(Member(self.plant)) as last:
                for _ in range(40 * len(self.plant.ids)):
                    last.turn(after_s=2.0)
                    if not self.plant.uncommitted():
                        break
            assert self.over() >= set(self.plant.ids), "an event was lost"
            assert self.plant.uncommitted() == []
        finally:
            for member in self.members:
                member.close()
            self.plant.bus.close()
            self.folder.cleanup()
            self.patch.undo()


TestConsumersUnderRandomFailures = ConsumersUnderRandomFailures.TestCase
TestConsumersUnderRandomFailures.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
