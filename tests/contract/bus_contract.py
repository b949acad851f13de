"""What every event bus must do; an adapter's test gives the `opener`, `topic` and `append_bytes` fixtures."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from typing import TypeVar

import pytest

from contract.deadline import eventually
from contract.processes import Reporter, running
from tunesmith.domain.errors import Conflict, InvalidInput, NotFound
from tunesmith.domain.events import DATASET_BUILT, RECORDS_COLLECTED, Event
from tunesmith.ports.bus import EventBus, Message, Subscription

Opener = Callable[[], EventBus]
"""Opens the bus anew; can be sent to another process. A topic has at least two partitions."""

AppendBytes = Callable[[Sequence[tuple[str, bytes]], bytes, bytes], None]
"""Appends a message with these headers, key and value to `topic`, past all checks."""

Subscribe = Callable[[str], Subscription]

T = TypeVar("T")

TIME = "2026-11-21T10:00:00.123456Z"
HEADERS = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"1"),
    ("ce_type", DATASET_BUILT.encode()),
    ("ce_source", b"/tunesmith/trainer"),
    ("ce_subject", b"s"),
    ("ce_time", TIME.encode()),
    ("content-type", b"application/json"),
]


def event(number: int, *, subject: str | None = None) -> Event:
    """An event that can be told from others by `number`; one of eight subjects if none is given."""
    return Event(
        f"event-{number}",
        DATASET_BUILT,
        "/tunesmith/trainer",
        subject or f"subject-{number % 8}",
        TIME,
        {"number": number},
    )


def events(start: int, stop: int, *, subject: str | None = None) -> list[Event]:
    """The events numbered from `start` to `stop - 1`."""
    return [event(n, subject=subject) for n in range(start, stop)]


def numbers(messages: Sequence[Message]) -> list[int]:
    """The numbers of the messages' events."""
    return [message.event.data["number"] for message in messages if message.event is not None]


def receive(subscription: Subscription, count: int, *, timeout_s: float = 60.0) -> list[Message]:
    """Poll until `count` messages came."""
    messages: list[Message] = []
    deadline_s = time.monotonic() + timeout_s
    while len(messages) < count:
        assert time.monotonic() < deadline_s, f"{len(messages)} of {count} messages in {timeout_s} s: {messages}"
        messages += subscription.poll(timeout_s=0.5)
    return messages


def receive_nothing(*subscriptions: Subscription) -> None:
    """Assert that there is nothing more to come."""
    for _ in range(3):
        for subscription in subscriptions:
            assert subscription.poll(timeout_s=0.05) == []


class BusContract:
    """Subclass it with the three fixtures. Sessions should time out within a few seconds."""

    @pytest.fixture
    def opener(self) -> Opener:
        """How to open the bus under test."""
        raise NotImplementedError

    @pytest.fixture
    def topic(self, bus: EventBus) -> str:
        """The name of a topic that no other test uses; it exists."""
        raise NotImplementedError

    @pytest.fixture
    def append_bytes(self, bus: EventBus, topic: str) -> AppendBytes:
        """How to append a message that is not an event."""
        raise NotImplementedError

    @pytest.fixture
    def bus(self, opener: Opener) -> Iterator[EventBus]:
        """The bus under test."""
        with closing(opener()) as bus:
            yield bus

    @pytest.fixture
    def subscribe(self, bus: EventBus, topic: str) -> Iterator[Subscribe]:
        """Opens subscriptions that are closed at the end."""
        with ExitStack() as stack:
            yield lambda group: stack.enter_context(closing(bus.subscribe(group, [topic])))

    def test_events_arrive_whole_and_in_order_within_a_subject(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        data = {"text": "naïve – 歌 🎵", "list": [1, 2.5, None, True], "nested": {"a": {"b": []}}, "number": 0}
        published = [Event("id", RECORDS_COLLECTED, "/tunesmith/scraper", "sübject/1", TIME, data), *events(1, 60)]

        bus.publish(topic, published)

        messages = receive(subscribe("group"), 60)
        assert {m.event.id: m.event for m in messages if m.event} == {e.id: e for e in published}
        assert all(m.event is not None and m.key == m.event.subject for m in messages)
        assert all((m.topic, m.attempt, m.decode_error) == (topic, 1, "") for m in messages)
        for sequence in _grouped(messages, lambda m: m.key).values():
            assert numbers(sequence) == sorted(numbers(sequence))
            assert len({m.partition for m in sequence}) == 1
        for sequence in _grouped(messages, lambda m: m.partition).values():
            offsets = [m.offset for m in sequence]
            assert offsets == sorted(set(offsets))

    def test_one_poll_gives_no_more_than_asked_for(self, bus: EventBus, topic: str, subscribe: Subscribe) -> None:
        bus.publish(topic, events(0, 20))
        subscription = subscribe("group")

        assert len(eventually(lambda: subscription.poll(timeout_s=0.5, max_messages=1))) == 1
        assert 1 <= len(eventually(lambda: subscription.poll(timeout_s=0.5, max_messages=7))) <= 7

    def test_publishing_to_an_unknown_topic_is_not_found(self, bus: EventBus) -> None:
        with pytest.raises(NotFound, match="no-such-topic"):
            bus.publish("no-such-topic", [event(1)])

    def test_an_event_that_cannot_be_encoded_is_refused_and_nothing_is_published(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        bad = Event("bad", DATASET_BUILT, "/tunesmith/trainer", "s", TIME, {"loss": float("nan")})

        with pytest.raises(InvalidInput, match="bad"):
            bus.publish(topic, [event(1), bad])

        receive_nothing(subscribe("group"))

    def test_ensuring_topics_again_keeps_their_messages(self, bus: EventBus, topic: str, subscribe: Subscribe) -> None:
        bus.publish(topic, [event(1)])

        bus.ensure_topics([topic])

        assert numbers(receive(subscribe("group"), 1)) == [1]
        assert bus.dead_letters(topic) == []

    def test_every_group_gets_everything_from_the_oldest_message_on(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        bus.publish(topic, events(0, 10))

        assert sorted(numbers(receive(subscribe("one"), 10))) == list(range(10))
        assert sorted(numbers(receive(subscribe("another"), 10))) == list(range(10))

    def test_one_subscription_can_take_several_topics(self, bus: EventBus, topic: str) -> None:
        bus.ensure_topics([f"{topic}-b"])
        bus.publish(topic, [event(1)])
        bus.publish(f"{topic}-b", [event(2)])

        with closing(bus.subscribe("group", [topic, f"{topic}-b"])) as subscription:
            messages = receive(subscription, 2)

        assert sorted((m.topic, *numbers([m])) for m in messages) == [(topic, 1), (f"{topic}-b", 2)]

    def test_an_empty_topic_gives_nothing(self, subscribe: Subscribe) -> None:
        subscription = subscribe("group")

        assert subscription.poll(timeout_s=0.0) == []
        assert subscription.poll(timeout_s=0.1) == []

    def test_a_waiting_poll_wakes_for_an_event_of_this_process(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        subscription = subscribe("group")
        receive_nothing(subscription)

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(subscription.poll, timeout_s=60.0)
            bus.publish(topic, [event(1)])

        assert numbers(waiting.result()) == [1]

    def test_a_waiting_poll_wakes_for_an_event_of_another_process(
        self, opener: Opener, topic: str, subscribe: Subscribe
    ) -> None:
        subscription = subscribe("group")
        receive_nothing(subscription)

        with running(_publish_on, opener, topic, 1) as publisher:
            messages = subscription.poll(timeout_s=60.0)
            publisher.join()

        assert numbers(messages) == [0]

    def test_what_was_committed_never_comes_again(self, bus: EventBus, topic: str, opener: Opener) -> None:
        bus.publish(topic, events(0, 10, subject="s"))
        with closing(bus.subscribe("group", [topic])) as subscription:
            messages = receive(subscription, 10)
            subscription.commit(messages[3])
            subscription.commit(messages[1])

        with closing(opener()) as later, closing(later.subscribe("group", [topic])) as subscription:
            assert numbers(receive(subscription, 6)) == [4, 5, 6, 7, 8, 9]
            receive_nothing(subscription)

    def test_members_share_the_partitions_without_overlap(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        members = [subscribe("group"), subscribe("group")]
        turn = iter(range(1, 10_000))

        def everyone_gets_some() -> list[list[Message]]:
            start = 8 * next(turn)
            bus.publish(topic, events(start, start + 8))
            got: list[list[Message]] = [[], []]

            def all_came() -> bool:
                for member, messages in zip(members, got, strict=True):
                    messages += member.poll(timeout_s=0.05)
                    for message in messages:
                        _commit_if_mine(member, message)
                return set(numbers(got[0] + got[1])) >= set(range(start, start + 8))

            eventually(all_came)
            return got if all(got) else []

        eventually(everyone_gets_some)
        bus.publish(topic, events(0, 8) * 10)
        got: list[list[Message]] = [[], []]

        def all_came() -> bool:
            for member, messages in zip(members, got, strict=True):
                new = member.poll(timeout_s=0.05)
                messages += new
                for message in new:
                    member.commit(message)
            return sum(map(len, got)) >= 80

        eventually(all_came)
        receive_nothing(*members)
        assert Counter(numbers(got[0] + got[1])) == Counter(list(range(8)) * 10)
        assert not {m.partition for m in got[0]} & {m.partition for m in got[1]}
        assert all(got)

    def test_a_member_that_leaves_hands_over_what_it_did_not_commit(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        bus.publish(topic, events(0, 10, subject="s"))
        leaver = subscribe("group")
        leaver.commit(receive(leaver, 10)[5])

        leaver.close()
        leaver.close()

        assert numbers(receive(subscribe("group"), 4)) == [6, 7, 8, 9]

    def test_a_member_that_stops_polling_loses_its_partitions(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        bus.publish(topic, events(0, 6, subject="s"))
        silent = subscribe("group")
        messages = receive(silent, 6)
        silent.commit(messages[1])

        other = subscribe("group")

        assert numbers(receive(other, 4)) == [2, 3, 4, 5]
        eventually(lambda: not silent.holds(messages[3]))
        with pytest.raises(Conflict):
            silent.commit(messages[3])
        with pytest.raises(Conflict):
            silent.dead_letter(messages[3], error="too late")
        silent.note_failure(messages[3])
        silent.retry_later(messages[3], delay_s=0.0)
        assert bus.dead_letters(topic) == []

    def test_a_killed_member_loses_its_partitions(
        self, bus: EventBus, topic: str, opener: Opener, subscribe: Subscribe
    ) -> None:
        bus.publish(topic, events(0, 6, subject="s"))
        with running(_take, opener, topic, 6, 2) as member:
            assert member.report() == [0, 1, 2, 3, 4, 5]
            member.kill()

        assert numbers(receive(subscribe("group"), 3)) == [3, 4, 5]

    def test_a_member_that_comes_back_starts_from_what_is_committed(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        bus.publish(topic, events(0, 6, subject="s"))
        silent = subscribe("group")
        before = receive(silent, 6)
        other = subscribe("group")
        other.commit(receive(other, 6)[3])
        other.close()

        assert numbers(receive(silent, 2))[-2:] == [4, 5]
        assert [silent.holds(message) for message in before] == [False] * 4 + [True] * 2
        receive_nothing(silent)

    def test_a_message_to_retry_comes_again_with_those_after_it(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        bus.publish(topic, events(0, 5, subject="s"))
        subscription = subscribe("group")
        messages = receive(subscription, 5)
        subscription.commit(messages[1])

        before_s = time.monotonic()
        subscription.retry_later(messages[2], delay_s=0.2)
        subscription.retry_later(messages[4], delay_s=0.1)
        again = receive(subscription, 3)

        assert time.monotonic() - before_s >= 0.2
        assert numbers(again) == [2, 3, 4]

    def test_an_attempt_counts_where_its_failure_was_noted_and_for_no_other_message(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        bus.publish(topic, events(0, 3, subject="s"))
        subscription = subscribe("group")
        messages = receive(subscription, 3)

        second = subscription.note_failure(messages[1])
        assert (second, second.attempt) == (replace(messages[1], attempt=2), 2)
        subscription.retry_later(messages[0], delay_s=0.0)
        again = receive(subscription, 3)
        assert [m.attempt for m in again] == [1, 2, 1]

        subscription.note_failure(subscription.note_failure(again[1]))
        subscription.commit(again[0])
        subscription.retry_later(again[1], delay_s=0.0)
        assert [(m.offset, m.attempt) for m in receive(subscription, 2)] == [
            (messages[1].offset, 4),
            (messages[2].offset, 1),
        ]

    def test_a_member_knows_which_messages_are_still_its_own(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        bus.publish(topic, events(0, 4, subject="s"))
        subscription = subscribe("group")
        messages = receive(subscription, 4)

        def held() -> list[int]:
            return [n for n in range(4) if subscription.holds(messages[n])]

        assert held() == [0, 1, 2, 3]
        subscription.commit(messages[0])
        assert held() == [1, 2, 3]
        subscription.dead_letter(messages[3], error="no")
        assert held() == [1, 2, 3]
        subscription.retry_later(messages[2], delay_s=0.0)
        assert held() == [1]
        receive(subscription, 2)
        assert held() == [1, 2, 3]

    def test_a_paused_partition_does_not_hold_up_the_others(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        bus.publish(topic, events(0, 8))
        subscription = subscribe("group")
        messages = receive(subscription, 8)
        paused = messages[0].partition
        subscription.retry_later(messages[0], delay_s=3600.0)

        bus.publish(topic, events(8, 40))

        elsewhere = sum(m.partition != paused for m in messages) * 4
        assert elsewhere
        assert all(m.partition != paused for m in receive(subscription, elsewhere))
        receive_nothing(subscription)

    def test_a_backlog_with_many_messages_to_retry_ends(self, bus: EventBus, topic: str, subscribe: Subscribe) -> None:
        bus.publish(topic, events(0, 300))
        subscription = subscribe("group")
        done: set[int] = set()
        deadline_s = time.monotonic() + 30

        while len(done) < 300 and time.monotonic() < deadline_s:
            put_off: set[int] = set()
            for message in subscription.poll(timeout_s=0.5, max_messages=7):
                assert message.event is not None
                if message.partition in put_off:
                    continue
                if message.offset % 10 == 3 and message.attempt < 3:
                    put_off.add(message.partition)
                    subscription.retry_later(subscription.note_failure(message), delay_s=0.05)
                else:
                    subscription.commit(message)
                    done.add(message.event.data["number"])

        assert len(done) == 300

    def test_a_committed_message_is_not_retried(self, bus: EventBus, topic: str, subscribe: Subscribe) -> None:
        bus.publish(topic, events(0, 3, subject="s"))
        subscription = subscribe("group")
        messages = receive(subscription, 3)

        subscription.retry_later(messages[0], delay_s=0.0)
        subscription.commit(messages[1])

        assert numbers(receive(subscription, 1)) == [2]
        subscription.commit(messages[2])
        subscription.retry_later(messages[0], delay_s=0.0)
        receive_nothing(subscription)

    def test_a_dead_letter_keeps_its_origin(self, bus: EventBus, topic: str, subscribe: Subscribe) -> None:
        bus.publish(topic, events(0, 3, subject="s"))
        subscription = subscribe("group")
        messages = receive(subscription, 3)
        first = subscription.note_failure(messages[0])

        subscription.dead_letter(first, error="ValueError: wörse\nthan that")
        subscription.dead_letter(messages[1], error="second")
        subscription.commit(messages[1])
        subscription.close()

        one, two = bus.dead_letters(topic)
        assert (one.topic, one.partition, one.offset) == (topic, first.partition, first.offset)
        assert (one.group, one.attempt, one.error) == ("group", 2, "ValueError: wörse\nthan that")
        assert one.message == first
        assert (two.message.event, two.error) == (messages[1].event, "second")
        assert bus.dead_letters(topic, limit=1) == [one]
        assert numbers(receive(subscribe("group"), 1)) == [2]

    def test_a_dead_letter_leaves_the_messages_before_it_to_be_done(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        bus.publish(topic, events(0, 3, subject="s"))
        subscription = subscribe("group")
        messages = receive(subscription, 3)

        subscription.commit(messages[0])
        subscription.dead_letter(messages[2], error="no")
        subscription.close()

        assert numbers([letter.message for letter in bus.dead_letters(topic)]) == [2]
        assert numbers(receive(subscribe("group"), 2)) == [1, 2]

    def test_replayed_dead_letters_come_again_as_they_were_and_only_once(
        self, bus: EventBus, topic: str, subscribe: Subscribe, append_bytes: AppendBytes
    ) -> None:
        bus.publish(topic, events(0, 3, subject="s"))
        append_bytes([("ce_id", b"\xff")], b"s", b"poison")
        subscription = subscribe("group")
        messages = receive(subscription, 4)
        for message in messages:
            subscription.dead_letter(message, error="too early")
            subscription.commit(message)
        letters = bus.dead_letters(topic)

        one = bus.replay_dead_letters(topic, positions=[letters[1].position])
        rest = bus.replay_dead_letters(topic)

        assert [letter.message for letter in (*one, *rest)] == [messages[n] for n in (1, 0, 2, 3)]
        assert bus.dead_letters(topic) == []
        assert bus.replay_dead_letters(topic) == []
        again = receive(subscription, 4)
        assert [(m.event, m.key, m.decode_error) for m in again] == [
            (messages[n].event, messages[n].key, messages[n].decode_error) for n in (1, 0, 2, 3)
        ]
        receive_nothing(subscription)
        subscription.dead_letter(again[0], error="still")
        assert [(m.error, m.message.event) for m in bus.dead_letters(topic)] == [("still", messages[1].event)]

    def test_a_dead_letter_that_does_not_wait_cannot_be_replayed(
        self, bus: EventBus, topic: str, subscribe: Subscribe
    ) -> None:
        bus.publish(topic, [event(0)])
        subscription = subscribe("group")
        subscription.dead_letter(receive(subscription, 1)[0], error="no")
        (letter,) = bus.dead_letters(topic)

        with pytest.raises(NotFound, match="77"):
            bus.replay_dead_letters(topic, positions=[letter.position, 77])
        assert bus.dead_letters(topic) == [letter]
        bus.replay_dead_letters(topic, positions=[letter.position])
        with pytest.raises(NotFound, match=str(letter.position)):
            bus.replay_dead_letters(topic, positions=[letter.position])

    def test_ensuring_topics_tells_what_is_new(self, bus: EventBus, topic: str) -> None:
        assert sorted(bus.ensure_topics([topic, f"{topic}-x"])) == [f"{topic}-x", f"{topic}-x.dead-letter"]
        assert list(bus.ensure_topics([topic, f"{topic}-x"])) == []

    @pytest.mark.parametrize(
        ("headers", "key", "value"),
        [
            pytest.param([], b"", b"", id="nothing"),
            pytest.param(HEADERS, b"s", b"{", id="broken JSON"),
            pytest.param(HEADERS, b"s", b"[1]", id="not an object"),
            pytest.param(HEADERS, b"s", b'{"a": NaN}', id="NaN"),
            pytest.param(HEADERS, b"s", b"[" * 100_000, id="deep"),
            pytest.param(HEADERS, b"s", b"\xff\xfe", id="not text"),
            pytest.param(HEADERS, b"\xff", b"{}", id="key not text"),
            pytest.param([*HEADERS[1:], ("ce_specversion", b"9.9")], b"s", b"{}", id="version"),
            pytest.param([*HEADERS[1:], ("ce_specversion", b"\xff")], b"s", b"{}", id="header not text"),
            pytest.param([h for h in HEADERS if h[0] != "ce_type"], b"s", b"{}", id="no type"),
            pytest.param(
                [h if h[0] != "ce_type" else ("ce_type", b"tunesmith.Unheard.v7") for h in HEADERS],
                b"s",
                b"{}",
                id="unknown type",
            ),
        ],
    )
    def test_a_message_that_is_not_an_event_surfaces_and_can_be_given_up(
        self,
        bus: EventBus,
        topic: str,
        subscribe: Subscribe,
        append_bytes: AppendBytes,
        headers: Sequence[tuple[str, bytes]],
        key: bytes,
        value: bytes,
    ) -> None:
        append_bytes(headers, key, value)
        subscription = subscribe("group")

        (poison,) = receive(subscription, 1)
        subscription.dead_letter(poison, error="undecodable")
        subscription.commit(poison)

        assert poison.event is None
        assert poison.decode_error
        (letter,) = bus.dead_letters(topic)
        assert letter.message == poison
        bus.publish(topic, events(0, 8))
        assert sorted(numbers(receive(subscription, 8))) == list(range(8))

    def test_threads_publishing_at_once_lose_nothing(self, bus: EventBus, topic: str, subscribe: Subscribe) -> None:
        def publish(thread: int) -> None:
            for n in range(10):
                bus.publish(topic, [event(100 * thread + n, subject=f"thread-{thread}")])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(publish, range(8)))

        messages = receive(subscribe("group"), 80)
        for key, sequence in _grouped(messages, lambda m: m.key).items():
            thread = int(key.removeprefix("thread-"))
            assert numbers(sequence) == [100 * thread + n for n in range(10)]

    def test_what_a_killed_publisher_had_published_is_kept(
        self, bus: EventBus, topic: str, opener: Opener, subscribe: Subscribe
    ) -> None:
        acknowledged: list[int] = []
        for _ in range(4):
            start = len(acknowledged)
            with running(_publish_on, opener, topic, 1_000_000, start) as publisher:
                for _ in range(3 + start % 5):
                    acknowledged.append(publisher.report())
                publisher.kill()
                acknowledged += publisher.reports()

        messages = receive(subscribe("group"), len(acknowledged))

        assert acknowledged == list(range(len(acknowledged)))
        assert set(numbers(messages)) >= set(acknowledged)
        for sequence in _grouped(messages, lambda m: m.key).values():
            assert numbers(sequence) == sorted(numbers(sequence))

    def test_processes_publishing_and_consuming_at_once_lose_nothing(
        self, bus: EventBus, topic: str, opener: Opener
    ) -> None:
        with ExitStack() as stack:
            consumers = [stack.enter_context(running(_consume, opener, topic)) for _ in range(2)]
            publishers = [
                stack.enter_context(running(_publish_on, opener, topic, 40, start)) for start in (0, 1000, 2000)
            ]
            for publisher in publishers:
                publisher.join()
            done: set[int] = set()

            def all_done() -> bool:
                for consumer in consumers:
                    done.update(*consumer.reports_so_far())
                return len(done) >= 120

            eventually(all_done)

        assert done == {start + n for start in (0, 1000, 2000) for n in range(40)}


def _grouped(messages: Sequence[Message], by: Callable[[Message], T]) -> dict[T, list[Message]]:
    groups: dict[T, list[Message]] = defaultdict(list)
    for message in messages:
        groups[by(message)].append(message)
    return groups


def _commit_if_mine(subscription: Subscription, message: Message) -> None:
    with suppress(Conflict):
        subscription.commit(message)


def _publish_on(report: Reporter, opener: Opener, topic: str, count: int, start: int = 0) -> None:
    with closing(opener()) as bus:
        for n in range(start, start + count):
            bus.publish(topic, [event(n)])
            report(n)


def _take(report: Reporter, opener: Opener, topic: str, count: int, commit: int) -> None:
    subscription = opener().subscribe("group", [topic])
    messages = receive(subscription, count)
    subscription.commit(messages[commit])
    report(numbers(messages))
    while True:
        subscription.poll(timeout_s=0.1)


def _consume(report: Reporter, opener: Opener, topic: str) -> None:
    subscription = opener().subscribe("group", [topic])
    while True:
        messages = subscription.poll(timeout_s=0.5)
        for message in messages:
            _commit_if_mine(subscription, message)
        if messages:
            report(numbers(messages))
