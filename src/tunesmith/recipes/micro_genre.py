"""Micro-genres: a seed number in, one invented genre name out. Training text: `N->name|<stop>|`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.domain.datasets import CurationSettings
from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.examples import Dropped, Example
from tunesmith.domain.ids import content_id
from tunesmith.domain.models import Gate
from tunesmith.domain.records import Record
from tunesmith.domain.runs import TrainingSettings
from tunesmith.ports.language_model import GenerationParameters
from tunesmith.recipes.base import JudgeSettings, Parsed, Recipe

STOP = "|<stop>|"
ARROW = "->"

MAX_NAME_CHARS = 60
"""Longer list items are sentences or page furniture; the longest of MusicBrainz' 1,950 genre names has 38."""

NUM_PROMPT_SEEDS = 1000
"""Seed numbers are taken modulo this, so that every number a user types has been seen in training."""

_VALID = re.compile(r"\d+->(?P<name>(?:(?!->)[^|\n])*[^|\s])")
_END_STOPS = re.compile(r"(?:\|<stop>\|\s*)+$")
_WORD = re.compile(r"[\w'’&]+")
_MARKUP = re.compile(r"<[^>]+>|&\w+;|https?://|[{}\[\]|\\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def normal_name(text: str) -> str:
    """NFC, outer space stripped, inner space single."""
    return " ".join(unicodedata.normalize("NFC", text).split())


@dataclass(frozen=True, slots=True)
class MicroGenre(Recipe):
    """The micro-genre recipe."""

    def example(self, record: Record, *, index: int) -> Example | Dropped:
        raw = record.fields.get("name", "")
        if _CONTROL.search(raw.strip()):
            return Dropped("control_characters", raw[:80])
        name = normal_name(raw).casefold()
        if not name:
            return Dropped("empty")
        if len(name) > MAX_NAME_CHARS:
            return Dropped("too_long", f"{len(name)} characters, limit {MAX_NAME_CHARS}")
        if _MARKUP.search(name) or ARROW in name:
            return Dropped("markup", name)
        if not any(c.isalpha() for c in name):
            return Dropped("no_letters", name)
        attributes = {k: v for k, v in record.fields.items() if k != "name" and v}
        return Example(
            id=content_id("ex", [self.name, name]),
            prompt=self.prompt({"seed": str(index)}),
            completion=f"{name}{STOP}",
            answer=name,
            record_ids=(record.id,),
            attributes=attributes,
        )

    def prompt(self, inputs: Mapping[str, str]) -> str:
        seed = inputs.get("seed", "")
        if not seed.isascii() or not seed.isdigit() or len(seed) > 19:
            raise InvalidInput(
                f"input seed={seed[:40]!r} is not a whole number of at most 19 digits; send for example seed=7",
                metadata={"field": "seed", "value": seed[:40]},
            )
        return f"{int(seed) % NUM_PROMPT_SEEDS}{ARROW}"

    def inputs_of_seed(self, seed: int) -> Mapping[str, str]:
        return {"seed": str(seed)}

    def parse(self, text: str) -> Parsed:
        """After `->`, else after `,`, else as is; stops at the end are stripped, however often repeated.

        `4->musical genre|<stop>|` and `1->genre` are valid; `1- genre`, `1. genre` and `genre` come back unchanged and
        are not. Whether a text was cut off is the generation's finish reason, not a matter of format.
        """
        body = _END_STOPS.sub("", text).strip()
        if match := _VALID.fullmatch(body):
            return Parsed(normal_name(match["name"]), valid=True)
        if ARROW in body:
            return Parsed(body.split(ARROW, 1)[1].strip(), valid=False, reason="bad_format")
        if "," in body:
            return Parsed(body.split(",", 1)[1].strip(), valid=False, reason="no_arrow")
        return Parsed(body, valid=False, reason="no_arrow" if body else "empty")

    def identity(self, answer: str) -> str:
        return normal_name(unicodedata.normalize("NFKC", answer)).casefold()

    def attributes(self, answer: str) -> Mapping[str, Sequence[str]]:
        return {"word": [w.casefold() for w in _WORD.findall(answer)]}


RECIPE = MicroGenre(
    name="micro_genre",
    title="Invent micro-genre names from a seed number",
    default_source="sample:genres",
    record_fields=("name",),
    curation=CurationSettings(near_duplicate_similarity=0.85),
    # Measured on 2 CPU cores with builtin:tiny; larger bases want a smaller learning rate.
    training=TrainingSettings(
        adapter_size=32,
        adapter_alpha=64.0,
        adapter_dropout=0.1,
        learning_rate=5e-3,
        batch_size=8,
        max_length=128,
        eval_every_steps=50,
        save_every_steps=50,
    ),
    generation=GenerationParameters(max_new_tokens=48, temperature=0.9, do_sample=True, stop=(STOP,)),
    judge=JudgeSettings(batch_size=250),
    gates=(
        Gate("format", "valid_share", ">=", 0.90, "the answers do not have the trained format", bound="low"),
        Gate("novelty", "novel_share", ">=", 0.50, "the model recites names it was trained on", bound="low"),
        Gate("distinct", "distinct_share", ">=", 0.85, "the model repeats itself (mode collapse)"),
        Gate("skew", "top_word_share", "<=", 0.25, "one word dominates the answers"),
        Gate(
            "better_than_base",
            "bits_per_char",
            "<=",
            -0.05,
            "held-out names are no likelier than under the base",
            relative_to="base",
        ),
        Gate(
            "no_worse_than_champion",
            "bits_per_char",
            "<=",
            0.10,
            "held-out names are less likely than under the champion",
            relative_to="champion",
        ),
        Gate(
            "language_like",
            "bits_per_char_over_five_gram",
            "<=",
            0.35,
            "held-out names are much less likely than under a character 5-gram: novelty of gibberish",
        ),
    ),
    examples_shown=6_400,
    max_retries_known=10,
)
