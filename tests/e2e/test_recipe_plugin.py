"""The worked example of CONTRIBUTING, through the whole chain: a recipe in one file outside of the project."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from e2e.conftest import MICRO_SETTINGS, CommandLine
from tunesmith.recipes.plugins import SETTING

EXAMPLES = Path(__file__).parents[2] / "examples" / "recipes"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the example in a folder of its own, named to all processes."""
    path = tmp_path / "recipes" / "song_titles.py"
    path.parent.mkdir()
    # Fewer answers, so that judging a model of random weights takes seconds.
    source = (EXAMPLES / "song_titles.py").read_text("utf-8")
    source = source.replace("import Against,", "import JudgeSettings, Against,").replace(
        "    gates=(\n", "    judge=JudgeSettings(num_samples=40, batch_size=40),\n    gates=(\n"
    )
    path.write_text(source, "utf-8")
    monkeypatch.setenv(SETTING, str(path))
    return path


def arguments(micro_base: Path) -> list[str]:
    settings = [part for setting in (*MICRO_SETTINGS, "epochs=0.2") for part in ("--set", setting)]
    source = str(EXAMPLES / "song_titles.csv")
    return ["run", "song_titles", "--source", source, "--base-model", str(micro_base), *settings[2:]]


def test_the_example_keeps_every_rule(command_line: CommandLine) -> None:
    checked = command_line.json(
        "recipe", "check", str(EXAMPLES / "song_titles.py"), "--records", str(EXAMPLES / "song_titles.csv")
    )

    assert (checked["recipe"], checked["passed"]) == ("song_titles", True)
    assert all(check["num_tried"] > 0 for check in checked["checks"])


def test_a_broken_rule_is_shown_and_ends_with_1(command_line: CommandLine, plugin: Path) -> None:
    plugin.write_text(plugin.read_text("utf-8").replace('completion=f"{title}{END}"', "completion=title"), "utf-8")

    checked = command_line.run("recipe", "check", str(plugin), "--records", str(EXAMPLES / "song_titles.csv"))

    assert checked.returncode == 1
    assert "✗ what it renders it can read: prompt 'mood: " in checked.stdout


# One place is enough: a plug-in meets neither store nor bus, and this makes three models.
@pytest.mark.heavy
@pytest.mark.parametrize("place", ["embedded"], indirect=True, scope="session")
def test_it_goes_from_rows_to_a_judged_model_an_edit_is_judged_anew_and_what_passes_is_served_as_judged(
    command_line: CommandLine, plugin: Path, micro_base: Path
) -> None:
    made = command_line.json(*arguments(micro_base))

    with (EXAMPLES / "song_titles.csv").open(encoding="utf-8") as file:
        num_rows = len(list(csv.DictReader(file)))
    assert made["collection"]["num_records"] == num_rows
    assert sum(made["dataset"]["num_examples"].values()) == num_rows
    assert made["report"]["recipe"] == "song_titles"
    own, shared = ["format", "novelty", "short"], ["leak", "regressed"]
    assert [gate["name"] for gate in made["report"]["gates"]] == [*own, *shared]
    page = Path(made["report_page"]).read_text("utf-8")
    assert "Words a title" in page
    assert "recipe code SHA-256" in page

    source = plugin.read_text("utf-8")
    plugin.write_text(
        source.replace('Gate("short", "title_words", "<=", 8.0', 'Gate("short", "title_words", "<=", 9.0')
    )
    edited = command_line.json(*arguments(micro_base))

    assert edited["run"]["id"] == made["run"]["id"]
    assert edited["report"]["id"] != made["report"]["id"]
    assert [gate["limit"] for gate in edited["report"]["gates"]][: len(own)] == [0.8, 0.3, 9.0]

    # Without gates of its own it passes, and is champion once the generator has answered as the judge did.
    lenient = re.sub(r"    gates=\(\n.*?\n    \),\n", "    gates=(),\n", source, count=1, flags=re.DOTALL)
    plugin.write_text(lenient, "utf-8")
    promoted = command_line.json(*arguments(micro_base))

    assert promoted["champion"] == promoted["model"]["id"]
    parity = promoted["report"]["parity"]
    assert (parity["checked"], parity["agrees"]) == (True, True)
    assert parity["num_agreeing"] == parity["num_prompts"] == 8
    assert "served = judged: 8 of 8 prompts" in Path(promoted["report_page"]).read_text("utf-8")


@pytest.mark.heavy
def test_a_recipe_that_raises_fails_the_job_with_its_line_and_leaves_no_dataset(
    command_line: CommandLine, plugin: Path, micro_base: Path
) -> None:
    source = plugin.read_text("utf-8").replace(
        "        words = re.findall", "        assert len(answer) < 20\n        words = re.findall"
    )
    plugin.write_text(source, "utf-8")
    line = source[: source.index("assert len(answer)")].count("\n") + 1

    done = command_line.run("--json", *arguments(micro_base))

    assert done.returncode == 1
    problem = json.loads(done.stderr.splitlines()[-1])
    assert (problem["code"], problem["reason"]) == ("FAILED_PRECONDITION", "RECIPE_FAILED")
    assert f"{plugin}, line {line}) failed in attributes: AssertionError" in problem["message"]
    assert not command_line.rows("datasets/*/manifest.json")
