"""`tunesmith setup` and `tunesmith dead-letters`, on the bus of a data folder and on Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from command_results import Tunesmith

from contract.bus_contract import event, receive, receive_nothing
from tunesmith.domain.events import TOPICS
from tunesmith.embedded import _builders
from tunesmith.platform import Platform
from tunesmith.ports.bus import EventBus
from tunesmith.rpc.jobs import JobBoard
from tunesmith.settings import Settings


@pytest.fixture(params=["sqlite", "kafka"])
def bus(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventBus]:
    monkeypatch.setenv("TUNESMITH_DATA", str(tmp_path))
    if request.param == "kafka":
        monkeypatch.setenv("TUNESMITH_BUS", f"kafka://{request.getfixturevalue('kafka_broker')}")
    with closing(Platform.open(Settings.read())) as platform:
        yield platform.bus


def test_setup_makes_the_topics_of_all_services_and_says_what_is_new(bare: Tunesmith, bus: EventBus) -> None:
    wanted = [name for topic in TOPICS for name in (topic, f"{topic}.dead-letter")]

    first, second = bare("setup", "--json").document["steps"], bare("setup", "--json").document["steps"]

    assert [step["name"] for step in first if step["part"] == "topic"] == wanted
    assert {step["outcome"] for step in first if step["part"] == "topic"} <= {"made", "there already"}
    assert {step["outcome"] for step in second if step["part"] == "topic"} == {"there already"}
    for topic in TOPICS:  # NotFound for one that does not exist
        bus.dead_letters(topic, limit=1)
        bus.publish(topic, [])


def test_setup_knows_every_topic_that_a_service_uses(tmp_path: Path) -> None:
    with closing(Platform.open(Settings.read(data=tmp_path))) as platform:
        board = JobBoard(platform.jobs)

        used = {topic for build in _builders() for topic in build(platform, board).topics}

    assert used == set(TOPICS)


def test_setup_gives_up_on_a_bus_that_does_not_answer(bare: Tunesmith, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_BUS", "kafka://127.0.0.1:1")
    monkeypatch.setenv("TUNESMITH_START_TIMEOUT_S", "0")

    ended = bare("setup", "--json")

    assert ended.code == 69
    assert ended.problem["reason"] == "KAFKA_UNREACHABLE"
    assert "127.0.0.1:1" in ended.problem["message"]


def test_dead_letters_are_listed_and_replayed(bare: Tunesmith, bus: EventBus) -> None:
    topic = f"operators.{uuid4().hex}"
    bus.ensure_topics([topic])
    bus.publish(topic, [event(n, subject="s") for n in range(3)])
    with closing(bus.subscribe("group", [topic])) as subscription:
        messages = receive(subscription, 3)
        for message in messages:
            subscription.dead_letter(message, error="ValueError: no such thing")

        listed = bare("dead-letters", "list", topic, "--json").document["dead_letters"]

        assert [row["event"]["data"]["number"] for row in listed] == [0, 1, 2]
        assert listed[0]["origin"] == {"topic": topic, "partition": messages[0].partition, "offset": messages[0].offset}
        assert {(row["group"], row["attempt"], row["error"]) for row in listed} == {
            ("group", 1, "ValueError: no such thing")
        }
        shown = bare("dead-letters", "list", topic).out
        assert "ValueError" in shown
        assert "tunesmith.DatasetBuilt.v1" in shown

        offset = str(listed[1]["offset"])
        replayed = bare("dead-letters", "replay", topic, "--offset", offset, "--json").document["dead_letters"]
        again = bare("dead-letters", "replay", topic, "--offset", offset, "--json")

        assert [row["event"]["id"] for row in replayed] == ["event-1"]
        assert again.problem["code"] == "NOT_FOUND"
        assert bare("dead-letters", "replay", topic).code == 0
        assert "no dead letters" in bare("dead-letters", "list", topic).out
        assert [m.event.id for m in receive(subscription, 3) if m.event] == ["event-1", "event-0", "event-2"]
        receive_nothing(subscription)
