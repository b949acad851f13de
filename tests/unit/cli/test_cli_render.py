"""Messages as JSON and as text."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from fake_services import moment
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from tunesmith.cli.render import ago, answers_table, clean, plain, progress_text
from tunesmith.recipes.chat import chat_prompt
from tunesmith_proto.common.v1 import jobs_pb2
from tunesmith_proto.generator.v1 import generator_pb2
from tunesmith_proto.trainer.v1 import models_pb2, trainer_pb2


def test_json_has_every_field_numbers_as_numbers_and_unset_ones_as_null() -> None:
    dataset = trainer_pb2.Dataset(id="ds-1", num_examples={"train": 2**53})
    dataset.settings.update({"seed": 42, "share": 0.5, "balance": True, "names": ["a", None]})

    row = json.loads(json.dumps(plain(dataset)))

    assert row["num_examples"] == {"train": 2**53}
    assert row["settings"] == {"seed": 42, "share": 0.5, "balance": True, "names": ["a", None]}
    assert (row["reused"], row["create_time"], row["collection_ids"], row["dropped"]) == (False, None, [], {})


def test_json_has_enums_by_name_and_times_as_rfc_3339() -> None:
    job = jobs_pb2.Job(phase=jobs_pb2.JOB_PHASE_RUNNING, create_time=Timestamp(seconds=1))

    row = plain(job)

    assert (row["phase"], row["create_time"]) == ("JOB_PHASE_RUNNING", "1970-01-01T00:00:01Z")


def test_json_tells_unset_from_zero_and_shows_only_the_set_member_of_a_oneof() -> None:
    gate = plain(models_pb2.GateResult(name="format", value=0))
    missing = plain(models_pb2.GateResult(name="format"))
    event = plain(generator_pb2.GenerateStreamResponse(restarted=generator_pb2.Restarted(attempt=2)))

    assert (gate["value"], missing["value"]) == (0.0, None)
    assert event == {"restarted": {"attempt": 2, "reason": ""}}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_nan_and_no_infinity(value: float) -> None:
    assert plain(models_pb2.Measure(value=value))["value"] is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "just now"),
        (1, "1 second ago"),
        (125, "2 minutes ago"),
        (3600, "1 hour ago"),
        (200_000, "2 days ago"),
        (-9, "just now"),
    ],
)
def test_times_are_told_in_the_largest_unit_that_fits(seconds: float, text: str) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    stamp = Timestamp()
    stamp.FromDatetime(now - timedelta(seconds=seconds))

    assert ago(stamp, now=now) == text


def test_a_time_that_is_not_set_is_unknown() -> None:
    assert ago(Timestamp()) == "at an unknown time"
    assert ago(moment(ago_s=61)) == "1 minute ago"


def test_control_characters_are_replaced_and_other_text_is_kept() -> None:
    assert clean("dub\x1b[31m wave\r\x9b ä 日本 [b]") == "dub\ufffd[31m wave\ufffd\ufffd ä 日本 [b]"


def test_progress_of_an_unknown_total_shows_what_is_done() -> None:
    assert progress_text(jobs_pb2.Progress(stage="fetch", done=7, unit="records")) == "fetch  7 records"


def test_answers_of_a_chat_stand_beside_what_was_asked() -> None:
    console = Console(width=100)
    answer = generator_pb2.Answer(text="calm, 80 bpm", valid=True, prompt=chat_prompt("You tag.", "A dark lake."))

    with console.capture() as capture:
        console.print(answers_table("", [answer]))

    heading, row = capture.get().splitlines()
    assert heading.split()[-2:] == ["asked", "answer"]
    assert row.rstrip().endswith("A dark lake.  calm, 80 bpm")
