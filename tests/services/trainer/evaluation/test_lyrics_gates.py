"""Planted candidates for lyrics: each fault is refused by the gate that is there for it."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources

import pytest
from planted_models import RUN, judged

from tunesmith.domain.examples import Example
from tunesmith.domain.models import Report
from tunesmith.ports.language_model import GenerationParameters
from tunesmith.recipes.contract import record_of
from tunesmith.recipes.lyrics import RECIPE
from tunesmith_trainer.evaluation.judged_model import Sampled
from tunesmith_trainer.evaluation.ngram import CharacterNgram

COLUMNS = {"title": "SName", "lyrics": "Lyric", "artist": "ALink", "language": "language"}


def sample_songs() -> list[Example]:
    table = resources.files("tunesmith_scraper").joinpath("samples/lyrics.csv").read_text(encoding="utf-8")
    rows = [row for row in csv.DictReader(table.splitlines(keepends=True)) if row["language"] == "en"]
    made = [
        RECIPE.example(record_of({field: row[column] for field, column in COLUMNS.items()}), index=0) for row in rows
    ]
    return [one for one in made if isinstance(one, Example)]


SONGS = sample_songs()
TRAIN, TEST, UNUSED = SONGS[::3], SONGS[1::3][:30], SONGS[2::3]
FIVE_GRAM = CharacterNgram.fit([song.answer for song in TRAIN], order=5)
JUDGED = replace(RECIPE, judge=replace(RECIPE.judge, num_samples=30, batch_size=30, max_heldout_rows=20))


@dataclass
class Writer:
    """Answers the n-th prompt with `write(n)`; a held-out song costs it the 5-gram's bits plus `extra` a character."""

    write: Callable[[int], str]
    extra: float = 0.0

    def sample(self, prompts: Sequence[str], parameters: GenerationParameters, *, seed: int) -> list[Sampled]:
        assert parameters == RECIPE.generation
        return [Sampled(self.write(n), "eos_token", 200) for n in range(len(prompts))]

    def completion_log_probs(self, rows: Sequence[tuple[str, str]]) -> list[float]:
        return [-(FIVE_GRAM.bits(text) + self.extra * len(text)) * math.log(2) for _, text in rows]


def judgement(candidate: Writer) -> Report:
    return judged(
        candidate,
        base_model=Writer(lambda _: "the the", extra=2.0),
        recipe=JUDGED,
        train_answers=[song.answer for song in TRAIN],
        train_keys=[RECIPE.duplicate_key(song) for song in TRAIN],
        test_examples=TEST,
        catalogue=[],
        run=replace(RUN, recipe="lyrics"),
    )


def failed(report: Report) -> set[str]:
    return {gate.name for gate in report.gates if not gate.passed}


def looped(song: str) -> str:
    lines = song.split("\n")
    return "\n".join([*lines, *lines[1:3] * 15])


@pytest.mark.parametrize(
    ("write", "gates"),
    [
        (lambda n: UNUSED[n].answer, set()),
        (lambda n: TRAIN[n].answer, {"memorisation", "long_copies"}),
        (lambda _: UNUSED[0].answer, {"distinct"}),
        (lambda n: looped(UNUSED[n].answer), {"repetition"}),
        (lambda n: f"<p>{UNUSED[n].answer}</p>", {"format"}),
    ],
    ids=["good", "memoriser", "collapsed", "in circles", "markup"],
)
def test_each_planted_writer_is_refused_by_its_own_gate(write: Callable[[int], str], gates: set[str]) -> None:
    found = failed(judgement(Writer(write)))

    assert (found >= gates and "format" in found) if "format" in gates else found == gates


def test_a_candidate_that_finds_held_out_songs_no_likelier_than_the_base_is_refused() -> None:
    assert failed(judgement(Writer(lambda n: UNUSED[n].answer, extra=2.0))) == {"better_than_base"}


def test_the_report_measures_lyrics_and_shows_what_held_out_songs_have() -> None:
    report = judgement(Writer(lambda n: UNUSED[n].answer))

    assert {*RECIPE.metrics} <= report.metrics["candidate"].keys()
    assert 0.2 < report.anchors["five_gram_coverage_of_heldout"] < 0.5
    assert report.anchors["rhyme_share_of_heldout"] > 0.5
    assert report.distributions["candidate"]["section"]["verse"] > 20
