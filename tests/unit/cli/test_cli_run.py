"""`tunesmith run`: the chain, what it reuses, refusal, interruption and continuation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_results import Tunesmith
from fake_services import NEW, OLD, REFUSED, FakeServices, status
from google.rpc import code_pb2

from tunesmith_proto.captioner.v1 import captioner_pb2
from tunesmith_proto.common.v1 import jobs_pb2
from tunesmith_proto.generator.v1 import generator_pb2
from tunesmith_proto.scraper.v1 import scraper_pb2
from tunesmith_proto.trainer.v1 import models_pb2, trainer_pb2

OWN_SERVICES = """
    import contextlib, sys, threading, types
    fake = types.ModuleType("tunesmith.embedded")
    @contextlib.contextmanager
    def session(data, listen="127.0.0.1:0"):
        try:
            yield sys.argv.pop(1)
        finally:
            print("leaving the services", file=sys.stderr, flush=True)
            {leaving}
    fake.session = session
    sys.modules["tunesmith.embedded"] = fake
    address, sys.argv = sys.argv[1], [sys.argv[0], *sys.argv[1:]]
    from tunesmith.cli import main
    sys.exit(main(sys.argv[2:]))
"""


Spawn = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts the command in a process of its own, whose own services are the scripted ones."""
    started: list[subprocess.Popen[str]] = []

    def start(address: str, *arguments: str, leaving: str = "pass") -> subprocess.Popen[str]:
        script = textwrap.dedent(OWN_SERVICES).format(leaving=leaving)
        process = subprocess.Popen(
            [sys.executable, "-c", script, address, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def sessions(data: Path) -> list[Path]:
    return list((data / "run-sessions").glob("*.json"))


def test_a_run_goes_from_source_to_champion_and_answers(tunesmith: Tunesmith, fake: FakeServices, data: Path) -> None:
    ended = tunesmith("run", "micro_genre", "--samples", "4")

    assert ended.code == 0
    assert "collected: collection co-1, 1950 records (CC0-1.0 1950)" in ended.out
    assert "curated: dataset ds-1, train 1560" in ended.out
    assert "tuned: run ru-1, 120 steps" in ended.out
    assert f"champion: {NEW} (before: {OLD})" in ended.out
    assert "valid_share" in ended.out
    assert "bits_per_char" not in ended.out, "what no gate decides by is left to `tunesmith report`"
    assert "champion before" in ended.out
    assert (data / "reports" / f"{NEW}.html").read_bytes() == b"<html></html>"
    assert f"report: {data / 'reports' / f'{NEW}.html'}" in ended.out
    assert fake.of(scraper_pb2.CollectRequest)[0].source.url == "sample:genres"
    assert fake.of(trainer_pb2.BuildDatasetRequest)[0].collection_ids == ["co-1"]
    started = fake.of(trainer_pb2.StartRunRequest)[0]
    assert (started.dataset_id, started.follow_up) == ("ds-1", trainer_pb2.FOLLOW_UP_PROMOTE)
    assert {request.model for request in fake.of(generator_pb2.GenerateRequest)} == {NEW}
    assert sessions(data) == []


def test_what_a_recipe_needs_is_added_between_collecting_and_curating(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.needs = "captions"

    ended = tunesmith("run", "micro_genre", "--samples", "0")

    assert "captioned: collection co-2, 23 of 25 records of co-1 (lp-music-caps 1)" in ended.out
    assert [request.collection_id for request in fake.of(captioner_pb2.CaptionClipsRequest)] == ["co-1"]
    assert fake.of(trainer_pb2.BuildDatasetRequest)[0].collection_ids == ["co-2"]


def test_captions_that_are_there_are_said_to_be_reused(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.needs = "captions"
    fake.ready.add("caption")

    ended = tunesmith("run", "micro_genre", "--samples", "0")

    assert "reused: collection co-2 captioned just now" in ended.out


def test_an_interrupted_captioning_is_continued_under_its_request_id(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.needs = "captions"
    fake.failures["CaptionClips"] = [status(code_pb2.UNAVAILABLE, "store does not answer", "UNAVAILABLE")] * 5

    first = tunesmith("run", "micro_genre", "--samples", "0")
    second = tunesmith("run", "micro_genre", "--samples", "0")

    assert (first.code, second.code) == (69, 0)
    asked = [request.request_id for request in fake.of(captioner_pb2.CaptionClipsRequest)]
    assert len(asked) > 1
    assert len(set(asked)) == 1


def test_a_need_that_the_client_does_not_know_is_refused_by_name(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.needs = "odours"

    ended = tunesmith("run", "micro_genre")

    assert ended.code == 1
    assert "needs odours" in ended.err


def test_a_recipe_without_seeds_is_asked_its_held_out_prompts_at_the_end(
    tunesmith: Tunesmith, fake: FakeServices
) -> None:
    fake.report.prompts.extend(["a calm lake", "a fast train"])

    tunesmith("run", "micro_genre", "--samples", "2")

    asked = [(request.prompt, request.parameters.seed) for request in fake.of(generator_pb2.GenerateRequest)]
    assert sorted(asked) == [("a calm lake", 1), ("a fast train", 2)]


def test_answers_that_come_twice_are_replaced_by_those_of_further_seeds(tunesmith: Tunesmith) -> None:
    answers = tunesmith("run", "micro_genre", "--samples", "4", "--json").document["answers"]

    assert [(answer["seed"], answer["text"]) for answer in answers] == [
        (1, "genre 1"),
        (2, "genre 2"),
        (4, "genre 4"),
        (5, "genre 5"),
    ]


def test_a_run_as_json_is_one_document_and_nothing_else(tunesmith: Tunesmith) -> None:
    ended = tunesmith("run", "micro_genre", "--samples", "2", "--json")

    assert ended.err == ""
    assert ended.document["champion"] == NEW
    assert ended.document["collection"]["num_records"] == 1950
    assert ended.document["passed"] is True
    assert ended.document["report"]["metrics"]["base"]["measures"]["bits_per_char"]["value"] == 4.0


def test_steps_whose_results_are_ready_say_so(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.ready |= {"collect", "curate"}

    ended = tunesmith("run", "micro_genre", "--samples", "0")

    assert "reused: collection co-1 collected just now" in ended.out
    assert "reused: dataset ds-1 built 2 minutes ago" in ended.out
    assert "reused: run" not in ended.out


def test_a_result_that_says_it_is_reused_is_shown_so_although_its_job_is_new(
    tunesmith: Tunesmith, fake: FakeServices
) -> None:
    fake.results["curate"].reused = True  # type: ignore[attr-defined]

    ended = tunesmith("run", "micro_genre", "--samples", "0")

    assert "reused: dataset ds-1 built 2 minutes ago" in ended.out


def test_a_refused_candidate_exits_3_with_its_gates_and_the_older_champion_answers(
    tunesmith: Tunesmith, fake: FakeServices, data: Path
) -> None:
    fake.refuse()
    fake.champion = OLD

    ended = tunesmith("run", "micro_genre", "--samples", "2")

    assert ended.code == 3
    assert f"refused: model {REFUSED} did not pass 1 of 2 gates" in ended.out
    assert "novelty: novel_share is 0.41, the rule is >= 0.5" in ended.out
    assert "the model recites names it was trained on" in ended.out
    assert f"champion: still {OLD}; the answers are from that older champion" in ended.out
    assert {request.model for request in fake.of(generator_pb2.GenerateRequest)} == {OLD}
    assert sessions(data) == []


def test_a_first_candidate_that_is_refused_leaves_no_champion_and_no_answers(
    tunesmith: Tunesmith, fake: FakeServices
) -> None:
    fake.refuse()
    fake.champion = ""

    ended = tunesmith("run", "micro_genre")

    assert ended.code == 3
    assert "champion: none yet" in ended.out
    assert fake.of(generator_pb2.GenerateRequest) == []


def test_a_passed_candidate_that_is_not_served_is_named_with_the_command_that_serves_it(
    tunesmith: Tunesmith, fake: FakeServices
) -> None:
    fake.champion = OLD

    ended = tunesmith("run", "micro_genre", "--samples", "0")

    assert ended.code == 0
    assert f"`tunesmith promote micro_genre {NEW}` makes it the champion" in ended.out


def test_settings_go_to_the_step_that_knows_them(tunesmith: Tunesmith, fake: FakeServices) -> None:
    settings = ("epochs=5", "max_word_share=0.1", "seed=7", "curation.seed=8")

    tunesmith("run", "micro_genre", "--samples", "0", *(f"--set={setting}" for setting in settings))

    assert dict(fake.of(trainer_pb2.StartRunRequest)[0].settings) == {"epochs": 5.0, "seed": 7.0}
    assert dict(fake.of(trainer_pb2.BuildDatasetRequest)[0].settings) == {"max_word_share": 0.1, "seed": 8.0}


def test_a_mistyped_setting_is_refused_before_any_job_with_the_nearest_one(
    tunesmith: Tunesmith, fake: FakeServices, data: Path
) -> None:
    ended = tunesmith("run", "micro_genre", "--set", "epoch=5")

    assert ended.code == 2
    assert "did you mean epochs?" in ended.err
    assert fake.of(scraper_pb2.CollectRequest) == []
    assert sessions(data) == []


def test_a_local_file_is_sent_in_pieces_and_collected_from(
    tunesmith: Tunesmith, fake: FakeServices, tmp_path: Path
) -> None:
    file = tmp_path / "genres.csv"
    content = b"name\n" + b"dub wave\n" * 300_000
    file.write_bytes(content)

    tunesmith("run", "micro_genre", "--source", file, "--column", "name=Genre", "--samples", "0")

    assert b"".join(fake.uploaded) == content
    assert max(map(len, fake.uploaded)) == 2**20
    source = fake.of(scraper_pb2.CollectRequest)[0].source
    assert (source.url, source.format) == ("upload:abc", scraper_pb2.SOURCE_FORMAT_CSV)
    assert (source.display_name, dict(source.columns)) == ("genres.csv", {"name": "Genre"})


def test_a_missing_file_is_an_error_before_anything_starts(tunesmith: Tunesmith, fake: FakeServices) -> None:
    ended = tunesmith("run", "micro_genre", "--source", "missing.csv")

    assert ended.code == 2
    assert "'missing.csv' does not exist" in ended.err
    assert fake.requests == []


def test_a_folder_is_named_to_the_server_which_reads_it_itself(
    tunesmith: Tunesmith, fake: FakeServices, tmp_path: Path
) -> None:
    tunesmith("run", "micro_genre", "--source", tmp_path, "--samples", "0")

    assert fake.of(scraper_pb2.CollectRequest)[0].source.url == tmp_path.as_uri()
    assert fake.uploaded == []


def test_a_url_is_passed_on_as_it_is(tunesmith: Tunesmith, fake: FakeServices) -> None:
    tunesmith("run", "micro_genre", "--source", "https://lists.example/genres", "--selector", "li a", "--samples", "0")

    source = fake.of(scraper_pb2.CollectRequest)[0].source
    assert (source.url, source.css_selector) == ("https://lists.example/genres", "li a")


def test_a_judging_that_failed_before_is_done_again_for_a_reused_run(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.ready.add("tune")
    fake.failed_jobs["judge"] = jobs_pb2.JobError(code="DATA_LOSS", reason="LOST", message="gone")

    ended = tunesmith("run", "micro_genre", "--samples", "0")

    assert ended.code == 0
    judged = fake.of(trainer_pb2.JudgeRunRequest)[0]
    assert (judged.run_id, judged.promote) == ("ru-1", True)


def test_a_failed_job_ends_the_run_with_its_reason_and_the_next_run_is_a_new_one(
    tunesmith: Tunesmith, fake: FakeServices, data: Path
) -> None:
    fake.failed_jobs["curate"] = jobs_pb2.JobError(
        code="FAILED_PRECONDITION", reason="NO_USABLE_ROWS", message="nothing is left", metadata={"empty": "7"}
    )

    first = tunesmith("run", "micro_genre", "--json")
    tunesmith("run", "micro_genre", "--json")

    assert first.code == 1
    assert first.out == ""
    assert first.problem == {
        "code": "FAILED_PRECONDITION",
        "reason": "NO_USABLE_ROWS",
        "message": "curate job job-curate failed: nothing is left",
        "metadata": {"empty": "7", "job_id": "job-curate"},
    }
    assert sessions(data) == []
    ids = [request.request_id for request in fake.of(scraper_pb2.CollectRequest)]
    assert len(set(ids)) == 2


def test_a_run_that_loses_the_server_keeps_its_session_and_continues_with_the_same_request_ids(
    tunesmith: Tunesmith, fake: FakeServices, data: Path
) -> None:
    lost = status(code_pb2.UNAVAILABLE, "store does not answer", "UNAVAILABLE")
    fake.failures["BuildDataset"] = [lost] * 5

    first = tunesmith("run", "micro_genre", "--samples", "0")
    kept = sessions(data)
    second = tunesmith("run", "micro_genre", "--samples", "0")

    assert (first.code, second.code) == (69, 0)
    assert len(kept) == 1
    assert "continuing the interrupted run" in second.err
    collected = [request.request_id for request in fake.of(scraper_pb2.CollectRequest)]
    curated = {request.request_id for request in fake.of(trainer_pb2.BuildDatasetRequest)}
    assert len(collected) == 2
    assert len(set(collected)) == 1
    assert len(curated) == 1
    assert uuid.UUID(collected[0]).version == 4
    assert sessions(data) == []


def test_a_run_with_other_options_or_fresh_does_not_continue_an_interrupted_one(
    tunesmith: Tunesmith, fake: FakeServices
) -> None:
    fake.failures["BuildDataset"] = [status(code_pb2.DEADLINE_EXCEEDED, "slow", "DEADLINE_EXCEEDED")] * 3

    for options in (["--set", "epochs=1"], ["--set", "epochs=2"], ["--set", "epochs=2", "--fresh"]):
        tunesmith("run", "micro_genre", *options)

    assert len({request.request_id for request in fake.of(scraper_pb2.CollectRequest)}) == 3


def test_a_finished_run_starts_anew(tunesmith: Tunesmith, fake: FakeServices) -> None:
    tunesmith("run", "micro_genre", "--samples", "0")
    tunesmith("run", "micro_genre", "--samples", "0")

    assert len({request.request_id for request in fake.of(scraper_pb2.CollectRequest)}) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_the_session_leaves_the_services_cleanly_and_the_same_command_continues(
    address: str, fake: FakeServices, data: Path, spawn: Spawn, number: signal.Signals
) -> None:
    fake.held.add("tune")
    command = ("run", "micro_genre", "--samples", "0", f"--data={data}")
    process = spawn(address, *command)
    assert fake.watched["tune"].wait(60)
    [session] = sessions(data)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "saved: collection co-1, dataset ds-1, the work of job job-tune so far; the same command continues" in err
    assert "leaving the services" in err
    assert "Traceback" not in err
    assert "champion" not in out
    assert json.loads(session.read_text())["request_ids"]["tune"] == fake.of(trainer_pb2.StartRunRequest)[0].request_id

    fake.release.set()
    continued = spawn(address, *command)
    out, err = continued.communicate(timeout=60)

    assert continued.returncode == 0, err
    assert f"champion: {NEW}" in out
    for kind in (scraper_pb2.CollectRequest, trainer_pb2.BuildDatasetRequest, trainer_pb2.StartRunRequest):
        first, second = fake.of(kind)
        assert first.request_id == second.request_id
    assert sessions(data) == []


def test_a_second_ctrl_c_forces_the_end(address: str, fake: FakeServices, data: Path, spawn: Spawn) -> None:
    fake.held.add("tune")
    # In short waits: a signal that comes just before a wait begins is seen after it.
    leaving = "while True: threading.Event().wait(0.1)"
    process = spawn(address, "run", "micro_genre", f"--data={data}", leaving=leaving)
    assert fake.watched["tune"].wait(60)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while process.stderr.readline().strip() != "leaving the services":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode == 130
    assert len(sessions(data)) == 1


def test_ctrl_c_beside_a_running_server_says_how_to_stop_the_job(
    address: str, fake: FakeServices, data: Path, spawn: Spawn
) -> None:
    fake.held.add("tune")
    process = spawn(address, "run", "micro_genre", f"--data={data}", f"--server={address}", "--json")
    assert fake.watched["tune"].wait(60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (130, "")
    # grpcio may add a traceback of a call that was cut off while it was being made (`__del__` of a half-made object).
    problem = json.loads(err.splitlines()[0])
    assert problem["reason"] == "INTERRUPTED"
    assert "`tunesmith jobs cancel job-tune` stops it" in problem["message"]


def test_an_unknown_recipe_is_refused_before_own_services_start(bare: Tunesmith, data: Path) -> None:
    ended = bare("run", "micro_gener", f"--data={data}")

    assert ended.code == 1
    assert "Did you mean micro_genre?" in ended.err
    assert not data.exists()


def test_services_that_are_not_installed_are_named_with_the_extra(
    bare: Tunesmith, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tunesmith.embedded", None)

    ended = bare("run", "micro_genre", f"--data={data}")

    assert ended.code == 1
    assert "pip install 'tunesmith[embedded]'" in ended.err


def test_a_report_is_asked_for_the_judged_version(tunesmith: Tunesmith, fake: FakeServices) -> None:
    tunesmith("run", "micro_genre", "--samples", "0")

    assert [request.version for request in fake.of(models_pb2.GetReportRequest)] == [NEW]
