"""Song titles from a mood: a recipe of one's own, whole.

    tunesmith recipe check examples/recipes/song_titles.py --records examples/recipes/song_titles.csv
    export TUNESMITH_RECIPES=examples/recipes/song_titles.py
    tunesmith run song_titles --source examples/recipes/song_titles.csv

A row `mood,title` becomes the training text `mood: wistful\ntitle: Letters to the Tide<end>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.examples import Dropped, Example
from tunesmith.domain.ids import content_id
from tunesmith.domain.models import Gate, MetricInfo
from tunesmith.domain.records import Record
from tunesmith.domain.runs import TrainingSettings
from tunesmith.ports.language_model import GenerationParameters
from tunesmith.recipes.base import Against, Answered, Observation, Parsed, Recipe

END = "<end>"
MOODS = ("angry", "calm", "dreamy", "happy", "lonely", "restless", "tender", "wistful")
MAX_TITLE_CHARS = 60

_TEXT = re.compile(r"(?:mood: \w+\ntitle: )?(?P<title>[^\n<>]+)<end>")


@dataclass(frozen=True, slots=True)
class SongTitles(Recipe):
    """One row of a table in, one training pair out; one mood in, one title out."""

    def example(self, record: Record, *, index: int) -> Example | Dropped:
        mood, title = (" ".join(record.fields.get(name, "").split()) for name in ("mood", "title"))
        if mood.lower() not in MOODS:
            return Dropped("unknown_mood", mood[:80])
        if not title or len(title) > MAX_TITLE_CHARS or any(c in title for c in "<>"):
            return Dropped("no_title", title[:80])
        return Example(
            id=content_id("ex", [self.name, mood.lower(), title]),
            prompt=self.prompt({"mood": mood}),
            completion=f"{title}{END}",
            answer=title,
            record_ids=(record.id,),
            attributes={"mood": mood.lower()},
        )

    def prompt(self, inputs: Mapping[str, str]) -> str:
        mood = inputs.get("mood", "").strip().lower()
        if mood not in MOODS:
            raise InvalidInput(
                f"input mood={mood[:40]!r} is unknown; known moods: {', '.join(MOODS)}",
                metadata={"field": "mood", "value": mood[:40]},
            )
        return f"mood: {mood}\ntitle: "

    def inputs_of_seed(self, seed: int) -> Mapping[str, str]:
        return {"mood": MOODS[seed % len(MOODS)]}

    def parse(self, text: str) -> Parsed:
        """A title, with its prompt or without, up to its end."""
        if match := _TEXT.fullmatch(text):
            title = " ".join(match["title"].split())
            if title:
                return Parsed(title, valid=True)
        return Parsed(text, valid=False, reason="no_title" if text.strip() else "empty")

    def identity(self, answer: str) -> str:
        """Titles that differ only in case, spaces and marks are one title."""
        return " ".join(re.findall(r"\w+", answer.casefold()))

    def attributes(self, answer: str) -> Mapping[str, Sequence[str]]:
        words = re.findall(r"[\w'’]+", answer.casefold())
        return {"word": words, "words": [str(len(words))]}

    def measures(self, answers: Sequence[Answered], against: Against) -> Mapping[str, Sequence[Observation]]:
        """Words of each title; the judge makes the mean and its interval."""
        return {"title_words": [None if one.answer is None else float(len(one.answer.split())) for one in answers]}


RECIPE = SongTitles(
    name="song_titles",
    title="Invent a song title for a mood",
    default_source="",
    record_fields=("mood", "title"),
    training=TrainingSettings(adapter_size=32, adapter_alpha=64.0, learning_rate=5e-3, batch_size=8, max_length=96),
    generation=GenerationParameters(max_new_tokens=40, temperature=0.9, do_sample=True, stop=(END,)),
    gates=(
        Gate("format", "valid_share", ">=", 0.80, "the answers do not have the trained format", bound="low"),
        Gate("novelty", "novel_share", ">=", 0.30, "the model recites titles it was trained on"),
        Gate("short", "title_words", "<=", 8.0, "the titles are sentences"),
    ),
    metrics={"title_words": MetricInfo("Words a title", "count", "lower", "Mean number of words of a valid title.")},
    charts=("words",),
)
