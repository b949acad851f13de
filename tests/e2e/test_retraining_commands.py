"""`tunesmith policy`, `watch`, `watches`, `unwatch` and `follow` against a real server; nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from contract.deadline import eventually
from fixtures_places import Place, variables
from tunesmith.cli import root
from tunesmith.cli.commands.follow import Followed
from tunesmith.cli.connection import Channels, Connection, address_at
from tunesmith.cli.options import Globals
from tunesmith.cli.progress import Silent
from tunesmith.domain import keys
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.jobs import Job, JobError
from tunesmith.domain.models import GateResult, Report
from tunesmith.embedded import session
from tunesmith.jobs.state import JobStore
from tunesmith.platform import Platform
from tunesmith.settings import Settings

RECIPE = "micro_genre"
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lists")


@pytest.fixture(scope="module")
def server(place: Place, tmp_path_factory: pytest.TempPathFactory, lists: Path) -> Iterator[tuple[str, Path]]:
    data = tmp_path_factory.mktemp("server") / "data"
    place.store(data)
    with variables(place.environment(data)), pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNESMITH_SCRAPER_FILE_ROOTS", str(lists))
        with session(data) as address:
            yield address, data


@pytest.fixture
def tunesmith(server: tuple[str, Path]) -> Run:
    """Runs a command and reads its JSON document, or gives the error it ended with."""

    def run(*arguments: object) -> Any:
        done = CliRunner().invoke(
            root, ["--json", "--server", server[0], *map(str, arguments)], standalone_mode=False, obj=Globals()
        )
        return done.exception or json.loads(done.output)

    return run


@pytest.fixture
def connection(server: tuple[str, Path]) -> Iterator[Connection]:
    channels = Channels(address_at(server[0], "test"))
    yield Connection(channels, timeout_s=None)
    channels.close()


@pytest.fixture
def jobs(server: tuple[str, Path]) -> Iterator[JobStore]:
    platform = Platform.open(Settings.read(data=server[1]))
    yield platform.jobs
    platform.close()


def test_a_policy_is_changed_by_name_and_keeps_what_is_not_named(tunesmith: Run) -> None:
    first = tunesmith("policy", RECIPE, "--min-new", 7, "--cool-down", "1h", "--set", "epochs=2", "--set", "seed=3")
    second = tunesmith("policy", RECIPE, "--min-growth", 0.1, "--every", "1d", "--set", "epochs=", "--then", "judge")

    assert first["policy"]["enabled"] is second["policy"]["enabled"] is False
    assert second["policy"] == {
        **first["policy"],
        "min_growth_share": 0.1,
        "every_s": 86_400,
        "settings": {"seed": 3},
        "follow_up": "FOLLOW_UP_JUDGE",
        "rev": first["policy"]["rev"] + 1,
    }
    assert (second["policy"]["cool_down_s"], second["policy"]["min_new_examples"]) == (3600, 7)
    assert tunesmith("policy", RECIPE)["policy"] == second["policy"]


def test_every_recipe_has_a_policy_and_those_that_nobody_set_are_off(tunesmith: Run) -> None:
    found = {entry["policy"]["recipe"]: entry for entry in tunesmith("policy")["policies"]}

    assert {recipe["name"] for recipe in tunesmith("recipes")["recipes"]} == set(found)
    assert found["playlist"]["policy"]["enabled"] is False
    assert found["playlist"]["standing"]["reason"] == "disabled"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((RECIPE, "--set", "adapter_size=9999"), "between 1 and 256"),
        ((RECIPE, "--cool-down", "9999d"), "cool_down_s=8.63914e"),
        (("polka", "--enable"), "polka"),
        ((RECIPE, "--every", "soon"), "90s, 10m, 6h or 1d"),
        (("--enable",), "name the RECIPE"),
        ((RECIPE, "--priority", 101), "101"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_range(tunesmith: Run, arguments: tuple[str, ...], said: str) -> None:
    assert said in str(tunesmith("policy", *arguments)).replace("8639136", "8.63914e")


def test_a_watched_file_is_collected_and_a_removed_watch_is_gone(tunesmith: Run, lists: Path) -> None:
    path = lists / "names.csv"
    path.write_text("Genre\nska\ndub\n")

    watch = tunesmith("watch", RECIPE, path, "--column", "name=Genre", "--licence", "CC0-1.0")
    listed = eventually(lambda: (w := tunesmith("watches", RECIPE)["watches"])[0]["seen"] and w)
    (job_id,) = (seen["job_id"] for seen in listed[0]["seen"])
    collected = eventually(lambda: (job := tunesmith("jobs", "show", job_id))["phase"] == "JOB_PHASE_SUCCEEDED" and job)

    assert (watch["source"]["url"], watch["source"]["columns"]) == (path.as_uri(), {"name": "Genre"})
    assert collected["result"]["collection"]["num_records"] == 2
    tunesmith("unwatch", watch["id"])
    assert tunesmith("watches")["watches"] == []
    assert "there is no watch" in str(tunesmith("unwatch", watch["id"]))


def test_a_path_that_the_server_may_not_read_is_refused_with_the_setting(tunesmith: Run, tmp_path: Path) -> None:
    assert "TUNESMITH_SCRAPER_FILE_ROOTS" in str(tunesmith("watch", RECIPE, tmp_path))
    assert "between 60 and" in str(tunesmith("watch", RECIPE, "https://lists.test/a", "--every", "5s"))


def test_follow_tells_of_promotion_refusal_and_failure(
    connection: Connection, jobs: JobStore, server: tuple[str, Path]
) -> None:
    """Jobs that wait for ever, so that the test ends them itself."""
    followed = Followed(connection, RECIPE, Silent())
    list(followed.look())
    endings: dict[str, dict[str, Any]] = {
        "good": {"phase": "succeeded", "result": {"version": {"id": "mv-1"}, "promoted": True, "passed": True}},
        "bad": {"phase": "succeeded", "result": {"version": {"id": "mv-2"}, "promoted": False, "passed": False}},
        "broken": {"phase": "failed", "error": JobError("INTERNAL", "X", "no such base")},
    }
    report = Report(
        "rep-2", RECIPE, "run", "ds", "mv-2", "", {}, {}, {}, {},
        (GateResult("novelty", "novel_share", False, 0.1, ">=", 0.5, "recites"),), False, "2026-11-21T10:00:00.000000Z",
    )  # fmt: skip
    store = Platform.open(Settings.read(data=server[1])).store
    store.put(keys.report(RECIPE, "rep-2"), canonical_json(report.to_json()))
    version = {
        "id": "mv-2", "recipe": RECIPE, "run_id": "run", "dataset_id": "ds", "base_model": "b", "base_fingerprint": "f",
        "adapter_key": "a/", "adapter_hash": "h", "report_id": "rep-2", "passed": False,
        "created_at": "2026-11-21T10:00:00.000000Z",
    }  # fmt: skip
    store.put(keys.model_version(RECIPE, "mv-2"), canonical_json(version))
    for job_id, ending in endings.items():
        now = "2026-11-21T10:00:00.000000Z"
        # Not to be launched before the end of time.
        job = Job(job_id, "judge", "trainer", "queued", 1, 0, 0, "w", {"recipe": RECIPE}, now, now, not_before="2999")
        store.put(keys.job_state(job_id), canonical_json(job.to_json()))
        store.put(keys.active_job(job_id), b"{}")
        seen = [step.name for step in followed.look()]
        assert seen[0] == "queued"
        jobs.change(job_id, lambda job, ending=ending: jobs.step(job, **ending))  # type: ignore[misc]
        jobs.settle(job_id)
        (ended,) = (step for step in followed.look() if step.name != "policy")
        assert ended.job_id == job_id
        endings[job_id]["step"] = ended

    assert endings["good"]["step"].name == "promoted"
    assert (endings["bad"]["step"].name, endings["bad"]["step"].text) == (
        "refused",
        "model mv-2, gates not passed: novelty",
    )
    assert (endings["broken"]["step"].name, endings["broken"]["step"].text) == (
        "failed",
        "judge job broken: no such base",
    )
