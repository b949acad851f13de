"""One command each: what it asks the services, and what it shows of the answer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from command_results import Tunesmith
from fake_services import NEW, OLD, FakeServices, status
from google.rpc import code_pb2

from tunesmith_proto.captioner.v1 import captioner_pb2
from tunesmith_proto.common.v1 import jobs_pb2
from tunesmith_proto.generator.v1 import generator_pb2
from tunesmith_proto.scraper.v1 import scraper_pb2
from tunesmith_proto.trainer.v1 import models_pb2, trainer_pb2

EVERY_PARAMETER = {
    "--max-new-tokens": "12",
    "--temperature": "0.7",
    "--top-k": "50",
    "--top-p": "0.9",
    "--typical-p": "0.95",
    "--repetition-penalty": "1.2",
    "--frequency-penalty": "0.5",
    "--seed": "7",
    "--truncate": "64",
}


@pytest.mark.parametrize("command", ["generate", "compare"])
def test_every_sampling_parameter_reaches_its_field(
    tunesmith: Tunesmith, fake: FakeServices, command: str, tmp_path: Path
) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    options = ["--schema", str(schema)]
    options += [word for pair in EVERY_PARAMETER.items() for word in pair]

    ended = tunesmith(command, "micro_genre", "-n", "1", *options, "--no-do-sample", "--stop", "a", "--stop", "b")

    assert ended.code == 0
    [request] = fake.of(generator_pb2.GenerateRequest) or fake.of(generator_pb2.CompareRequest)
    assert request.parameters == generator_pb2.GenerationParameters(
        max_new_tokens=12,
        temperature=0.7,
        top_k=50,
        top_p=0.9,
        typical_p=0.95,
        repetition_penalty=1.2,
        frequency_penalty=0.5,
        json_schema='{"type": "object"}',
        do_sample=False,
        seed=7,
        stop=["a", "b"],
        truncate=64,
    )
    assert {field.name for field in request.parameters.DESCRIPTOR.fields} == {
        field.name for field, _ in request.parameters.ListFields()
    }


def test_parameters_that_are_not_given_stay_unset(tunesmith: Tunesmith, fake: FakeServices) -> None:
    tunesmith("generate", "micro_genre", "--seed", "0")

    [request] = fake.of(generator_pb2.GenerateRequest)
    assert [field.name for field, _ in request.parameters.ListFields()] == ["seed"]
    assert (request.model, request.prompt, dict(request.inputs)) == ("champion", "", {})


def test_generate_asks_for_inputs_model_and_known_answers(tunesmith: Tunesmith, fake: FakeServices) -> None:
    tunesmith("generate", "micro_genre", "--input", "title=a=b", "--model", OLD, "--allow-known")

    [request] = fake.of(generator_pb2.GenerateRequest)
    assert dict(request.inputs) == {"title": "a=b"}
    assert (request.model, request.allow_known) == (OLD, True)


def test_generate_sends_a_raw_prompt_and_refuses_it_beside_inputs(tunesmith: Tunesmith, fake: FakeServices) -> None:
    raw = tunesmith("generate", "micro_genre", "--prompt", "7->")
    both = tunesmith("generate", "micro_genre", "--prompt", "7->", "--input", "seed=7")

    assert (raw.code, both.code) == (0, 2)
    assert fake.of(generator_pb2.GenerateRequest)[0].prompt == "7->"


def test_generate_shows_a_numbered_list_with_seeds(tunesmith: Tunesmith) -> None:
    ended = tunesmith("generate", "micro_genre", "-n", "2", "--seed", "1")

    assert [line.split() for line in ended.out.splitlines()] == [
        ["no.", "seed", "answer"],
        ["1", "1", "genre", "1"],
        ["2", "2", "genre", "2"],
        ["answered", "by", "champion"],
    ]


def test_generate_keeps_the_order_of_seeds_however_many_are_asked_at_once(tunesmith: Tunesmith) -> None:
    ended = tunesmith("generate", "micro_genre", "-n", "30", "--seed", "1", "--json")

    seeds = [answer["seed"] for answer in ended.document["answers"]]
    assert seeds == [seed for seed in range(1, 60) if seed % 3 != 0][:30]


def test_answers_that_only_repeat_fill_the_list_at_the_end(
    tunesmith: Tunesmith, fake: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = generator_pb2.Answer(text="same", valid=False, invalid_reason="no_arrow", seed=1, model_version="base")
    monkeypatch.setattr("fake_services.FakeGenerator.answer", lambda *_: same)

    ended = tunesmith("generate", "micro_genre", "-n", "3", "--json")
    shown = tunesmith("generate", "micro_genre", "-n", "3")

    assert len(ended.document["answers"]) == 3
    assert "not valid: no_arrow" in shown.out
    assert len(fake.of(generator_pb2.GenerateRequest)) == 12


def test_a_streamed_answer_is_shown_as_it_comes_without_control_characters(tunesmith: Tunesmith) -> None:
    ended = tunesmith("generate", "micro_genre", "--stream", "--seed", "1")

    assert ended.out == f"xx\n[void: known; attempt 2]\ndub wave\ufffd[31m\n= genre 1  [seed 1, {NEW}]\n"


def test_a_stream_as_json_is_a_line_an_event(tunesmith: Tunesmith) -> None:
    ended = tunesmith("generate", "micro_genre", "--stream", "--json")

    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [next(iter(row)) for row in rows] == ["token", "restarted", "token", "token", "token", "answer"]


def test_compare_puts_models_side_by_side(tunesmith: Tunesmith, fake: FakeServices) -> None:
    ended = tunesmith("compare", "micro_genre", "--model", "base", "--model", NEW, "-n", "2", "--seed", "4")

    assert [request.parameters.seed for request in fake.of(generator_pb2.CompareRequest)] == [4, 5]
    assert ended.out.splitlines()[0].split() == ["seed", "base", NEW]
    assert "genre 5" in ended.out


def test_compare_takes_base_and_champion_by_default_and_at_most_eight(tunesmith: Tunesmith, fake: FakeServices) -> None:
    default = tunesmith("compare", "micro_genre", "-n", "1", "--json")
    many = tunesmith("compare", "micro_genre", *["--model=base"] * 9)

    assert default.document["models"] == ["base", "champion"]
    assert len(default.document["comparisons"][0]["answers"]) == 2
    assert (many.code, len(fake.of(generator_pb2.CompareRequest))) == (2, 1)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (["collect", "micro_genre"], "collect"),
        (["caption", "micro_genre", "co-1"], "caption"),
        (["curate", "micro_genre"], "curate"),
        (["tune", "micro_genre"], "tune"),
        (["judge", "micro_genre", "ru-1"], "judge"),
    ],
)
def test_a_detached_command_prints_the_job_and_does_not_watch_it(
    tunesmith: Tunesmith, fake: FakeServices, command: list[str], kind: str
) -> None:
    for_people = tunesmith(*command, "--detach")
    for_programs = tunesmith(*command, "--detach", "--json")

    assert (for_people.code, for_people.out.strip()) == (0, f"job-{kind}")
    assert for_programs.document["job"]["id"] == f"job-{kind}"
    assert fake.of(jobs_pb2.WatchJobRequest) == []


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["collect", "micro_genre", "--source", "sample:genres"], "collected: collection co-1, 1950 records"),
        (["caption", "micro_genre", "co-1"], "captioned: collection co-2, 23 of 25 records of co-1 (lp-music-caps 1)"),
        (["curate", "micro_genre", "--set", "seed=1"], "curated: dataset ds-1"),
        (["tune", "micro_genre", "ds-1", "--then", "none"], "tuned: run ru-1"),
        (["judge", "micro_genre", "ru-1"], f"passed: model {NEW} passed all 1 gates"),
    ],
)
def test_a_long_command_follows_its_job_and_shows_what_it_made(
    tunesmith: Tunesmith, command: list[str], shown: str
) -> None:
    for_people = tunesmith(*command)
    for_programs = tunesmith(*command, "--json")

    assert shown in for_people.out
    assert for_programs.document
    assert for_programs.err == ""


@pytest.mark.parametrize(
    ("then", "follow_up"),
    [
        ("none", trainer_pb2.FOLLOW_UP_NONE),
        ("judge", trainer_pb2.FOLLOW_UP_JUDGE),
        ("promote", trainer_pb2.FOLLOW_UP_PROMOTE),
    ],
)
def test_tune_takes_the_newest_dataset_and_says_what_follows(
    tunesmith: Tunesmith, fake: FakeServices, then: str, follow_up: int
) -> None:
    tunesmith("tune", "micro_genre", "--then", then, "--base-model", "builtin:tiny", "--set", "dtype=float32")

    [request] = fake.of(trainer_pb2.StartRunRequest)
    assert (request.dataset_id, request.follow_up, request.base_model) == ("ds-1", follow_up, "builtin:tiny")
    assert dict(request.settings) == {"dtype": "float32"}


def test_tune_without_any_dataset_says_how_to_make_one(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.has_datasets = False

    ended = tunesmith("tune", "micro_genre")

    assert ended.code == 1
    assert "`tunesmith curate micro_genre`" in ended.err
    assert fake.of(trainer_pb2.StartRunRequest) == []


@pytest.mark.parametrize("command", [["tune", "micro_genre"], ["judge", "micro_genre", "ru-1", "--promote"]])
def test_a_candidate_that_its_gates_refuse_exits_3(
    tunesmith: Tunesmith, fake: FakeServices, command: list[str]
) -> None:
    fake.refuse()

    ended = tunesmith(*command)

    assert ended.code == 3
    assert "novelty: novel_share is 0.41, the rule is >= 0.5" in ended.out


def test_a_promotion_that_gates_refuse_exits_3_and_shows_them(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.refuse()
    fake.failures["PromoteModel"] = [status(code_pb2.FAILED_PRECONDITION, "refused", "GATES_FAILED")] * 2

    for_people = tunesmith("promote", "micro_genre", "mv-refused")
    for_programs = tunesmith("promote", "micro_genre", "mv-refused", "--json")

    assert (for_people.code, for_programs.code) == (3, 3)
    assert "novelty" in for_people.out
    assert for_programs.document["champion"] is None


def test_report_and_promotion_say_whether_it_is_served_as_judged(tunesmith: Tunesmith, fake: FakeServices) -> None:
    line = "served = judged: 8 of 8 prompts, largest difference 2e-05 (tolerance 0.001)"
    fake.report.parity.checked = fake.report.parity.agrees = True
    fake.report.parity.detail = line

    assert line in tunesmith("report", "micro_genre").out
    assert line in tunesmith("promote", "micro_genre", "mv-new").out


def test_a_promotion_without_a_comparison_says_so(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.report.parity.detail = "not checked: TUNESMITH_SERVING=none"

    assert "served = judged: not checked: TUNESMITH_SERVING=none" in tunesmith("report", "micro_genre").out


def test_a_promotion_that_is_refused_for_another_reason_is_an_error(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.failures["PromoteModel"] = [status(code_pb2.ABORTED, "another is champion", "CHAMPION_MOVED")]

    ended = tunesmith("promote", "micro_genre", NEW, "--expect", OLD)

    assert ended.code == 1
    assert "CHAMPION_MOVED" in ended.err
    assert fake.of(models_pb2.PromoteModelRequest)[0].expected_champion == OLD


def test_promote_and_rollback_say_who_is_champion(tunesmith: Tunesmith) -> None:
    assert f"{NEW} is now the champion of micro_genre" in tunesmith("promote", "micro_genre", NEW).out
    assert f"{OLD} is the champion of micro_genre again" in tunesmith("rollback", "micro_genre").out


def test_models_are_marked_as_champion_and_with_their_verdict(tunesmith: Tunesmith) -> None:
    lines = [line.split() for line in tunesmith("models", "micro_genre").out.splitlines()]

    assert lines[1][:3] == ["champion", NEW, "passed"]
    assert lines[2][:2] == ["mv-refused", "refused"]


def test_a_report_is_shown_and_its_page_written(tunesmith: Tunesmith, fake: FakeServices, tmp_path: Path) -> None:
    page = tmp_path / "out" / "report.html"
    fake.report.metrics["candidate"].measures["bits_per_char_minus_base"].value = -1.5

    ended = tunesmith("report", "micro_genre", "-o", page)

    assert page.read_bytes() == b"<html></html>"
    assert "bits_per_char" in ended.out
    assert "_minus_base" not in ended.out
    assert "for reference: five_gram_bits_per_char 2.4" in ended.out
    assert "dub wave" in ended.out
    assert fake.of(models_pb2.GetReportRequest)[0].version == ""


def test_a_page_that_cannot_be_written_is_an_error_that_names_the_file(tunesmith: Tunesmith, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    ended = tunesmith("report", "micro_genre", "-o", tmp_path / "file" / "report.html")

    assert ended.code == 1
    assert str(tmp_path / "file") in ended.err


def test_lineage_is_a_tree_down_to_the_rows(tunesmith: Tunesmith, fake: FakeServices) -> None:
    ended = tunesmith("lineage", "micro_genre", NEW, "--max-rows", "5")

    assert ended.out.splitlines()[:5] == [
        f"model {NEW}",
        "└── run ru-1",
        "    └── dataset ds-1",
        "        └── collection co-1",
        "            └── record rec-1",
    ]
    assert "--max-rows 50 shows more" in ended.out
    assert fake.of(models_pb2.TraceLineageRequest)[0].max_rows == 5


def test_lineage_of_a_thing_in_the_middle_shows_both_directions(tunesmith: Tunesmith) -> None:
    lines = [line.rstrip() for line in tunesmith("lineage", "micro_genre", "ds-1").out.splitlines()]

    assert lines[:4] == ["dataset ds-1", "├── came from", "│   └── collection co-1", "│       └── record rec-1"]
    assert lines[4:7] == ["└── became", "    └── run ru-1", "        └── model mv-new"]


def test_jobs_lists_every_page_up_to_the_limit(tunesmith: Tunesmith, fake: FakeServices) -> None:
    every = tunesmith("jobs", "--json")
    one = tunesmith("jobs", "list", "--limit", "1", "--active", "--kind", "tune", "--json")

    assert [job["kind"] for job in every.document["jobs"]] == ["tune", "collect"]
    assert len(one.document["jobs"]) == 1
    request = fake.of(jobs_pb2.ListJobsRequest)[-1]
    assert (request.active_only, request.kind, request.page_size) == (True, "tune", 1)


def test_jobs_show_and_cancel_say_how_a_job_is(tunesmith: Tunesmith) -> None:
    shown = tunesmith("jobs", "show", "job-tune")
    cancelled = tunesmith("jobs", "cancel", "job-tune")

    assert "tune  40/120 steps  train_loss 2.31" in shown.out
    assert "1 minute ago" in shown.out
    assert "job job-tune is asked to stop" in cancelled.out


def test_a_queued_job_is_shown_with_the_job_that_it_waits_for(tunesmith: Tunesmith) -> None:
    judging = tunesmith("judge", "micro_genre", "ru-1")
    collecting = tunesmith("collect", "micro_genre")

    assert "`tunesmith jobs cancel job-tune` stops it" in judging.err
    assert "jobs cancel" not in collecting.err


def test_ctrl_c_leaves_the_job_running_and_says_how_to_cancel_it(address: str, fake: FakeServices) -> None:
    fake.held.add("tune")
    command = [sys.executable, "-m", "tunesmith.cli", "tune", "micro_genre", "--server", address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert fake.watched["tune"].wait(60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert f"job job-tune goes on at {address}" in err
    assert "`tunesmith jobs cancel job-tune` stops it" in err
    assert "Traceback" not in err
    assert fake.of(jobs_pb2.CancelJobRequest) == []


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["recipes"], "sample:genres"),
        (["captioners"], "audio, video"),
        (["collections"], "CC0-1.0 1950"),
        (["collections", "micro_genre", "co-1"], "1950"),
        (["datasets", "micro_genre"], "train 1560"),
        (["datasets", "micro_genre", "ds-1"], "2 minutes ago"),
        (["runs", "micro_genre"], "ru-1"),
        (["runs", "micro_genre", "ru-1"], "120"),
    ],
)
def test_lists_are_tables_for_people_and_one_document_for_programs(
    tunesmith: Tunesmith, command: list[str], shown: str
) -> None:
    for_people = tunesmith(*command)
    for_programs = tunesmith(*command, "--json")

    assert shown in for_people.out
    assert isinstance(for_programs.document, dict)
    assert (for_people.err, for_programs.err) == ("", "")


def test_collect_passes_every_source_option_on(tunesmith: Tunesmith, fake: FakeServices) -> None:
    options = {
        "--source": "https://lists.example/genres",
        "--format": "html",
        "--column": "name=Genre",
        "--selector": "li a",
        "--attribute": "title",
        "--licence": "CC0-1.0",
        "--licence-url": "https://creativecommons.org/publicdomain/zero/1.0/",
        "--name": "A list",
    }

    tunesmith("collect", "micro_genre", *[word for pair in options.items() for word in pair])

    assert fake.of(scraper_pb2.CollectRequest)[0].source == scraper_pb2.Source(
        url="https://lists.example/genres",
        format=scraper_pb2.SOURCE_FORMAT_HTML,
        columns={"name": "Genre"},
        css_selector="li a",
        attribute="title",
        licence_id="CC0-1.0",
        licence_url="https://creativecommons.org/publicdomain/zero/1.0/",
        display_name="A list",
    )


def test_collect_sends_both_tables_of_a_join(tunesmith: Tunesmith, fake: FakeServices, tmp_path: Path) -> None:
    songs, artists = tmp_path / "songs.csv", tmp_path / "artists.tsv"
    songs.write_text("ALink,SName\n/a/,One\n")
    artists.write_text("Link\tArtist\n/a/\tThe As\n")

    tunesmith(
        *("collect", "micro_genre", "--source", str(songs), "--join", str(artists), "--join-on", "ALink=Link"),
        *("--join-column", "artist=Artist", "--preset", "lyrics-pair", "--skip-undecodable"),
    )

    [request] = fake.of(scraper_pb2.CollectRequest)
    source = request.source
    assert source.url.startswith("upload:")
    assert source.join == scraper_pb2.Join(
        url=source.join.url,
        format=scraper_pb2.SOURCE_FORMAT_CSV,
        key="ALink",
        other_key="Link",
        columns={"artist": "Artist"},
        display_name="artists.tsv",
    )
    assert source.join.url.startswith("upload:")
    assert (source.preset, source.skip_undecodable) == ("lyrics-pair", True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--join", "nowhere.csv"], "'nowhere.csv' does not exist"),
        (["--join-on", "A=B"], "go with --join"),
        (["--join", "sample:lyrics_artists", "--join-on", "A"], "not of the form NAME=VALUE"),
    ],
)
def test_join_options_that_cannot_work_are_usage_errors(tunesmith: Tunesmith, options: list[str], message: str) -> None:
    ended = tunesmith("collect", "micro_genre", *options)

    assert (ended.code, message in ended.err) == (2, True)


def test_caption_shows_why_clips_failed(tunesmith: Tunesmith) -> None:
    shown = tunesmith("caption", "micro_genre", "co-1").out

    assert [line.split() for line in shown.splitlines()[-2:]] == [["captioned", "23"], ["no_audio", "2"]]


def test_caption_names_the_captioners(tunesmith: Tunesmith, fake: FakeServices) -> None:
    tunesmith("caption", "micro_genre", "co-1", "--captioner", "lp-music-caps", "--captioner", "signal-video")

    [request] = fake.of(captioner_pb2.CaptionClipsRequest)
    assert (request.collection_id, list(request.captioners)) == ("co-1", ["lp-music-caps", "signal-video"])


@pytest.mark.parametrize("value", ["epochs", "=3", "epochs=1 --set epochs=2"])
def test_a_setting_that_is_no_pair_is_a_usage_error(tunesmith: Tunesmith, value: str) -> None:
    ended = tunesmith("curate", "micro_genre", *f"--set {value}".split())

    assert ended.code == 2


def test_up_serves_and_says_where(bare: Tunesmith, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[Path, str]] = []

    def serve(folder: Path, listen: str, on_ready: Callable[[str], None]) -> int:
        asked.append((folder, listen))
        on_ready("127.0.0.1:50499")
        return 0

    fake_module = types.ModuleType("tunesmith.embedded")
    fake_module.serve = serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tunesmith.embedded", fake_module)
    monkeypatch.setattr("tunesmith.cli.commands.up.configure_logging", lambda **_: None)

    for_people = bare("up", "--listen", "127.0.0.1:0", f"--data={data}")
    for_programs = bare("up", f"--data={data}", "--json")

    assert asked == [(data, "127.0.0.1:0"), (data, "127.0.0.1:50400")]
    assert "Tunesmith answers at 127.0.0.1:50499" in for_people.out
    assert for_programs.document == {"address": "127.0.0.1:50499", "data": str(data)}
