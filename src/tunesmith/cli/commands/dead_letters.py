"""`tunesmith dead-letters`: the events that a service gave up.

They are read from the bus itself, not through a service: a poisonous event is most of all a matter for an operator
whose service does not run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import click

from tunesmith.cli.options import Globals, SuggestingGroup, global_options
from tunesmith.cli.render import Output, table
from tunesmith.domain.events import topic_of
from tunesmith.platform import Platform
from tunesmith.ports.bus import DeadLetter, EventBus
from tunesmith.settings import Settings


@click.group("dead-letters", cls=SuggestingGroup)
@global_options()
def dead_letters() -> None:
    """List and replay the events that a service gave up.

    Needs no server: the bus is that of TUNESMITH_BUS and TUNESMITH_KAFKA_*, or of the data folder. TOPIC is a topic, or
    the service that publishes to it: trainer stands for tunesmith.trainer.
    """


@dead_letters.command("list")
@click.argument("topic")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Oldest first.")
@global_options()
@click.pass_obj
def list_letters(options: Globals, topic: str, limit: int) -> None:
    """Show the dead letters of TOPIC that were not replayed: where each stood, why it was given up."""
    with _bus(options) as bus:
        _show(options, bus.dead_letters(_full(topic), limit=limit))


@dead_letters.command("replay")
@click.argument("topic")
@click.option("--offset", type=click.IntRange(0), multiple=True, help="Of the letter, as listed; may be repeated.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="The oldest so many.")
@global_options()
@click.pass_obj
def replay(options: Globals, topic: str, offset: tuple[int, ...], limit: int) -> None:
    """Publish dead letters of TOPIC again, as they came (all by default), and take them off the list.

    Every service that reads TOPIC gets them; one that has done the work drops the repeated event.
    """
    with _bus(options) as bus:
        _show(options, bus.replay_dead_letters(_full(topic), positions=offset or None, limit=max(limit, len(offset))))


@contextlib.contextmanager
def _bus(options: Globals) -> Iterator[EventBus]:
    with contextlib.closing(Platform.open(Settings.read(data=options.data))) as platform:
        yield platform.bus


def _full(topic: str) -> str:
    return topic if "." in topic else topic_of(topic)


def _show(options: Globals, letters: Sequence[DeadLetter]) -> None:
    rows = [
        [
            letter.position,
            f"{letter.topic}/{letter.partition}/{letter.offset}",
            letter.group,
            letter.attempt,
            letter.message.event.type if letter.message.event else "not an event",
            letter.message.key,
            letter.error,
        ]
        for letter in letters
    ]
    columns = ["offset", "came from", "group", "attempt", "event", "subject", "error"]
    Output(json=options.json).result(
        {"dead_letters": [_plain(letter) for letter in letters]},
        table("", columns, rows) if rows else "no dead letters",
    )


def _plain(letter: DeadLetter) -> dict[str, Any]:
    event = letter.message.event
    return {
        "offset": letter.position,
        "origin": {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset},
        "group": letter.group,
        "attempt": letter.attempt,
        "error": letter.error,
        "key": letter.message.key,
        "event": event.to_json() if event else None,
        "decode_error": letter.message.decode_error,
    }
