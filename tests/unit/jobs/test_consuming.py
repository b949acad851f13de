"""The consumer loop on a real bus: done, tried again, given up."""

from __future__ import annotations

import pytest

from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.events import Event
from tunesmith.jobs.consuming import MAX_ATTEMPTS, ConsumerLoop

TOPIC = "tunesmith.trainer"


def event(number: int, subject: str = "j1", kind: str = "tunesmith.RunSucceeded.v1") -> Event:
    return Event(f"e{number}", kind, "/tunesmith/trainer", subject, "2026-01-01T00:00:00Z", {"n": number})


def loop(workshop, handler) -> ConsumerLoop:
    handlers = {"tunesmith.RunSucceeded.v1": handler}
    return ConsumerLoop(bus=workshop.bus, clock=workshop.clock, group="g", topics=(TOPIC,), handlers=handlers)


def drain(workshop, consumer, rounds=3 * MAX_ATTEMPTS) -> None:
    subscription = workshop.bus.subscribe("g", [TOPIC])
    try:
        consumer.handle_batch(subscription, timeout_s=workshop.place.join_s)
        for _ in range(rounds):
            workshop.clock.advance(5)
            consumer.handle_batch(subscription, timeout_s=workshop.place.silence_s)
    finally:
        subscription.close()


def test_events_are_handled_once_and_in_order(workshop):
    workshop.bus.publish(TOPIC, [event(n) for n in range(5)])
    handled = []

    for _ in range(2):
        drain(workshop, loop(workshop, lambda e: handled.append(e.id)))

    assert handled == ["e0", "e1", "e2", "e3", "e4"]


def test_a_type_without_handler_is_passed_over(workshop):
    workshop.bus.publish(TOPIC, [event(0, kind="tunesmith.ModelJudged.v1"), event(1)])
    handled = []

    drain(workshop, loop(workshop, lambda e: handled.append(e.id)))

    assert handled == ["e1"]


def test_a_failing_event_is_tried_again_before_those_behind_it(workshop):
    workshop.bus.publish(TOPIC, [event(n) for n in range(3)])
    handled, failures = [], iter([True, True, False])

    def handler(e):
        if e.id == "e0" and next(failures):
            raise RuntimeError("store is busy")
        handled.append(e.id)

    drain(workshop, loop(workshop, handler))

    assert handled == ["e0", "e1", "e2"]


def test_an_event_that_always_fails_becomes_a_dead_letter_and_the_rest_goes_on(workshop):
    workshop.bus.publish(TOPIC, [event(0), event(1)])
    handled = []

    def handler(e):
        if e.id == "e0":
            raise RuntimeError("poison")
        handled.append(e.id)

    drain(workshop, loop(workshop, handler))

    (letter,) = workshop.bus.dead_letters(TOPIC)
    assert handled == ["e1"]
    assert (letter.group, letter.attempt, letter.error) == ("g", MAX_ATTEMPTS, "RuntimeError: poison")
    assert letter.message.event.id == "e0"


@pytest.mark.parametrize("error", [InvalidInput("no such base"), KeyError("recipe"), ValueError("not a number")])
def test_an_event_that_is_wrong_in_itself_becomes_a_dead_letter_at_once(workshop, error):
    workshop.bus.publish(TOPIC, [event(0), event(1)])
    handled = []

    def handler(e):
        if e.id == "e0":
            raise error
        handled.append(e.id)

    drain(workshop, loop(workshop, handler), rounds=0)

    (letter,) = workshop.bus.dead_letters(TOPIC)
    assert handled == ["e1"]
    assert (letter.message.event.id, letter.attempt) == ("e0", 1)
    assert letter.error.startswith(type(error).__name__)
