"""Recipes of people's own: loaded from a file or an entry point, guarded, and never the end of a process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith.domain.errors import InvalidInput, RecipeFailed, UnknownRecipe
from tunesmith.domain.examples import Dropped
from tunesmith.recipes import all_recipes, check_code, failed_plugins, recipe_named, with_code
from tunesmith.recipes.base import Against, Recipe
from tunesmith.recipes.contract import check_recipe, record_of
from tunesmith.recipes.plugins import SETTING, recipe_of_file
from tunesmith_trainer.evaluation.metrics import METRIC_DESCRIPTIONS

EXAMPLE = Path(__file__).parents[2] / "examples" / "recipes" / "song_titles.py"
SOURCE = EXAMPLE.read_text("utf-8")

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Writes a plug-in, the example with some text replaced, and names it in the setting."""
    files: list[Path] = []

    def write(*changes: tuple[str, str], source: str = SOURCE, file: str = "song_titles.py") -> Path:
        for old, new in changes:
            assert old in source, f"the example has no {old!r}"
            source = source.replace(old, new)
        path = tmp_path / file
        path.write_text(source, "utf-8")
        files.append(path)
        monkeypatch.setenv(SETTING, os.pathsep.join(str(path) for path in dict.fromkeys(files)))
        return path

    return write


def line_of(path: Path, text: str) -> int:
    return next(i for i, line in enumerate(path.read_text("utf-8").splitlines(), start=1) if text in line)


def test_a_file_adds_a_recipe_beside_the_shipped_ones(install: Install) -> None:
    install()

    assert list(all_recipes()) == [
        "micro_genre",
        *sorted(set(all_recipes()) - {"micro_genre", "song_titles"}),
        "song_titles",
    ]
    assert recipe_named("song_titles").prompt({"mood": "Calm"}) == "mood: calm\ntitle: "


def test_it_is_executed_once_a_process(install: Install, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    count = f"import pathlib\nwith pathlib.Path({str(counter)!r}).open('a') as file:\n    file.write('x')\n"
    install(("MAX_TITLE_CHARS = 60\n", f"MAX_TITLE_CHARS = 60\n{count}"))

    for _ in range(3):
        recipe_named("song_titles")

    assert counter.read_text() == "x"


def test_what_a_plug_in_gives_is_still_its_own_recipe(install: Install) -> None:
    install()
    recipe = recipe_named("song_titles")

    assert isinstance(recipe, Recipe)
    assert replace(recipe, max_retries_known=3).prompt({"mood": "calm"}) == recipe.prompt({"mood": "calm"})
    with pytest.raises(InvalidInput, match="known moods"):
        recipe.prompt({"mood": "hungry"})


def test_an_entry_point_adds_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "titles_package.py").write_text(SOURCE.replace('name="song_titles"', 'name="titles_by_package"'))
    info = tmp_path / "titles_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: titles-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tunesmith.recipes]\ntitles = titles_package:RECIPE\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(SETTING, f"{tmp_path}/no-such-file.py")  # another setting, so that loading is not remembered

    assert recipe_named("titles_by_package").code_hash
    del sys.modules["titles_package"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("MAX_TITLE_CHARS = 60", "MAX_TITLE_CHARS = 60 / 0"), "ZeroDivisionError: division by zero"),
        (("MAX_TITLE_CHARS = 60", "MAX_TITLE_CHARS = = 60"), "SyntaxError"),
        (("MAX_TITLE_CHARS = 60", "import no_such_package"), "No module named 'no_such_package'"),
        (("MAX_TITLE_CHARS = 60", "raise SystemExit(3)"), "SystemExit"),
    ],
)
def test_a_file_that_raises_is_told_with_its_line_to_whoever_asks(install: Install, change: tuple[str, str], told: str):
    path = install(change)

    with pytest.raises(RecipeFailed) as caught:
        recipe_named("song_titles")

    assert told in caught.value.message
    assert f"{path}, line {line_of(path, change[1])}" in caught.value.message
    assert "micro_genre" in all_recipes()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            ("RECIPE = SongTitles(", "OTHER = SongTitles("),
            "RECIPE must be an instance of tunesmith.recipes.base.Recipe",
        ),
        (('name="song_titles"', 'name="Song Titles"'), "name='Song Titles' must be 1 to 41 lower-case letters"),
        (('name="song_titles"', 'name="micro_genre"'), "its name is that of a recipe that ships with Tunesmith"),
        (('record_fields=("mood", "title")', "record_fields=()"), "record_fields is empty"),
        (('record_fields=("mood", "title")', 'record_fields="mood"'), "record_fields must be a tuple of str"),
        (("max_length=96", "max_length=1"), "max_length=1 is out of range"),
        (("def identity(", "def identify("), "abstract"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_with_what_is_wrong(install: Install, change: tuple[str, str], told: str):
    install(change)

    assert [told in error.message for error in failed_plugins()] == [True]
    with pytest.raises(RecipeFailed):
        recipe_named("song_titles")
    assert recipe_named("micro_genre").code_hash == ""


def test_two_files_with_one_name_are_told_apart(install: Install) -> None:
    first = install()
    install(("Invent a song", "Make a song"), file="again.py")

    assert recipe_named("song_titles").title.startswith("Invent")
    [error] = failed_plugins()
    assert str(first) in error.message
    assert "a name of its own" in error.message


def test_an_unknown_name_says_which_plug_ins_are_not_there(install: Install) -> None:
    path = install(("MAX_TITLE_CHARS = 60", "MAX_TITLE_CHARS = 60 / 0"), file="broken.py")

    with pytest.raises(UnknownRecipe, match=r"known recipes: .*micro_genre.*not loaded: .*broken.py, line") as caught:
        recipe_named("song_titles")

    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("change", "method", "told"),
    [
        (('return " ".join(re', 'return len(answer) / 0 or " ".join(re'), "identity", "ZeroDivisionError"),
        (('return " ".join(re.findall(r"\\w+", answer.casefold()))', "return None"), "identity", "must give text"),
        (('return {"word": words, ', "return {3: 4, "), "attributes", "a list of texts by attribute"),
        (('return Dropped("no_title", title[:80])', 'return Dropped("no title")'), "example", "snake_case"),
        (("completion=f\"{title}{END}\"", "completion=None"), "example", "completion must be text"),
        (("Parsed(text, valid=False", "(text, False"), "parse", "must give a Parsed"),
        (('return {"title_words": [', 'return {"title_words": "x", "y": ['), "measures", "a list of numbers"),
    ],
)  # fmt: skip
def test_a_method_that_fails_names_file_line_recipe_and_method(
    install: Install, change, method: str, told: str
) -> None:
    if method == "parse":
        change = ('return Parsed(text, valid=False, reason="no_title" if text.strip() else "empty")', "return text")
    path = install(change)
    recipe = recipe_named("song_titles")
    work = {
        "identity": lambda: recipe.identity("a"),
        "attributes": lambda: recipe.attributes("a"),
        "example": lambda: recipe.example(
            record_of({"mood": "calm", "title": "x" * 70 if "Dropped" in change[0] else "x"}), index=0
        ),
        "parse": lambda: recipe.parse("a"),
        "measures": lambda: recipe.measures([], Against((), frozenset())),
    }

    with pytest.raises(RecipeFailed) as caught:
        work[method]()

    assert told in caught.value.message
    assert f"failed in {method}" in caught.value.message
    assert caught.value.metadata["recipe"] == "song_titles"
    assert caught.value.metadata["file"] == str(path)
    assert int(caught.value.metadata["line"]) >= line_of(path, f"def {method}(")


def test_a_job_asked_for_with_other_code_is_refused(install: Install) -> None:
    install()
    request = with_code({"recipe": "song_titles"})
    check_code(request)

    install(("MAX_TITLE_CHARS = 60", "MAX_TITLE_CHARS = 50"), file="edited.py")
    os.environ[SETTING] = os.environ[SETTING].split(os.pathsep)[1]

    assert with_code({"recipe": "song_titles"}) != request
    with pytest.raises(RecipeFailed, match="changed after the server loaded it"):
        check_code(request)
    assert with_code({"recipe": "micro_genre"}) == {"recipe": "micro_genre"}


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ('completion=f"{title}{END}"', "completion=title", "what it renders it can read"),
        ('"no_title" if text.strip() else "empty"', '""', "any text is read, and bad text has a reason"),
        ('return " ".join(re.findall', 'return "x" + " ".join(re.findall', "an identity is its own identity"),
        (
            'id=content_id("ex"',
            'id=str(__import__("random").random()) + content_id("ex"',
            "the same record and text give the same",
        ),
        (
            "if mood.lower() not in MOODS:\n            return D",
            "if True:\n            return D",
            "records give examples",
        ),
        ("MOODS[seed % len(MOODS)]", "str(seed)", "prompts follow from inputs, and bad inputs are refused"),
        ('charts=("words",)', 'charts=("colour",)', "attributes are texts, and charts are of attributes"),
        ('return {"title_words": [', 'return {"length": [', "measures are one an answer, and described"),
        ('"valid_share"', '"valid_sare"', "gates are on metrics that are measured"),
        ("max_new_tokens=40", "max_new_tokens=41", ""),
        (
            "words = re",
            "open(__file__ + 'c0').close(); words = re",
            "attributes are texts, and charts are of attributes",
        ),
        ("words = re", "__import__('socket').gethostbyname('localhost'); words = re", "attributes are texts"),
    ],
)
def test_the_check_finds_what_is_wrong(install: Install, old: str, new: str, rule: str) -> None:
    path = install((old, new))
    rows = [{"mood": "calm", "title": f"Song {i}"} for i in range(9)]

    results = check_recipe(recipe_of_file(path), rows=rows, shared_metrics=METRIC_DESCRIPTIONS)

    broken = [result.name for result in results if result.problems]
    assert [name.startswith(rule) for name in broken[:1]] == ([True] if rule else [])


def test_rows_that_are_not_for_it_are_dropped_by_name(install: Install) -> None:
    install()
    recipe = recipe_named("song_titles")

    assert recipe.example(record_of({"mood": "hungry", "title": "x"}), index=0) == Dropped("unknown_mood", "hungry")
