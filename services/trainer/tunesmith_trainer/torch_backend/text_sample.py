"""What decides `builtin:tiny-text`: its sample text, its settings and a code version. Free of PyTorch."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from tunesmith.domain.examples import Example, Split, split_bucket
from tunesmith.domain.records import Licence, Provenance, Record
from tunesmith.recipes import SHIPPED
from tunesmith.recipes.base import Recipe
from tunesmith_trainer.torch_backend.fingerprint import PretrainingSettings, default_sample_text, package_file

CODE_VERSION = 1
"""Raise when the way the base is built changes: bases cached under another version are then not used."""


@dataclass(frozen=True, slots=True)
class TextBaseSettings(PretrainingSettings):
    """Shape and schedule of `builtin:tiny-text`. The defaults were measured on 2 CPU cores."""

    max_length: int = 1024
    num_steps: int = 200
    batch_tokens: int = 2048
    vocabulary_size: int = 2048
    """Tokens in all: bytes, merges and marks."""


@dataclass(frozen=True, slots=True)
class TextSample:
    """The project's own text that the base learns from. Only what no dataset holds out."""

    names: tuple[str, ...]
    phrases: tuple[str, ...]
    prose: tuple[str, ...]
    """Paragraphs of one to three sentences; no recipe has them as answers."""
    songs: tuple[str, ...] = ()
    """Lyrics with their line breaks."""
    replies: tuple[str, ...] = ()
    """Playlists as the recipe writes them; the base sees their parts, never the whole."""

    @property
    def seen(self) -> tuple[str, ...]:
        """Every text that a recipe could have as an answer."""
        return (*self.names, *self.phrases, *self.songs, *self.replies)


@functools.cache
def default_text_sample() -> TextSample:
    """The sample text that ships with the project. Raises NotFound when a file is missing.

    Songs and playlists are those of the scraper's samples that their recipes, with their own settings, train on.
    """
    short = default_sample_text()
    prose = package_file("tunesmith_trainer", "samples/prose.txt").read_text("utf-8").splitlines()
    return TextSample(
        names=short.names,
        phrases=short.phrases,
        prose=tuple(line for line in prose if line),
        songs=_trained_on("lyrics", {"title": "SName", "lyrics": "Lyric", "artist": "ALink"}),
        replies=_trained_on("playlist", {name: name for name in ("title", "prompt", "reply")}),
    )


_FILES = {"lyrics": "samples/lyrics.csv", "playlist": "samples/playlists.csv"}
_NOWHERE = Provenance("sample", "sample:", "sample:", Licence("Apache-2.0"), "1970-01-01T00:00:00Z", "0" * 64)


def _trained_on(recipe_name: str, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The answers of a recipe's sample that its datasets put on the training side, each once, in the file's order."""
    recipe = SHIPPED.get(recipe_name)
    if recipe is None:
        return ()
    answers: dict[str, None] = {}
    with package_file("tunesmith_scraper", _FILES[recipe_name]).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            record = Record.make({field: row[column] for field, column in columns.items()}, _NOWHERE)
            made = recipe.example(record, index=0)
            if isinstance(made, Example) and _side(recipe, made) == "train":
                answers[made.answer] = None
    return tuple(answers)


def _side(recipe: Recipe, example: Example) -> Split:
    shares = recipe.curation
    return split_bucket(
        recipe.duplicate_key(example), validation_share=shares.validation_share, test_share=shares.test_share
    )


def text_base_fingerprint(sample: TextSample, settings: TextBaseSettings) -> str:
    """Hex SHA-256 of sample text, settings and code version: the cache key of the built base."""
    content = json.dumps(
        {"code_version": CODE_VERSION, "settings": asdict(settings), "sample": asdict(sample)},
        sort_keys=True,
        ensure_ascii=False,
    )
    return hashlib.sha256(content.encode()).hexdigest()
