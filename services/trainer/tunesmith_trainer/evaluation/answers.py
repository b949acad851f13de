"""Answers read from samples: what each says, whether it is valid, and whether it was known before."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

from tunesmith.recipes.base import Recipe
from tunesmith_trainer.evaluation.judged_model import Sampled
from tunesmith_trainer.evaluation.twins import TwinIndex

NOVEL, KNOWN, NEAR_TWIN, IN_CATALOGUE = "novel", "known", "near_twin", "in_catalogue"
"""Verdicts on one answer. One that is not valid has the recipe's reason as its verdict."""

VALID_VERDICTS = frozenset({NOVEL, KNOWN, NEAR_TWIN, IN_CATALOGUE})

MAX_SAMPLE_CHARS = 4_000
"""Of one answer in a report, which must stay a small object."""

_INVALID_SAMPLE = re.compile(r"✗ (?P<reason>\w+): (?P<text>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class KnownAnswers:
    """What an answer may be known from: the training set and a reference catalogue."""

    training: tuple[str, ...]
    """Identities of the training answers, each once, in the order of the training set."""
    training_set: frozenset[str]
    twins: TwinIndex
    catalogue: frozenset[str]

    @classmethod
    def of(cls, recipe: Recipe, train_answers: Sequence[str], catalogue: Collection[str]) -> Self:
        """Index the training answers and the catalogue by the recipe's identity."""
        training = tuple(dict.fromkeys(recipe.identity(answer) for answer in train_answers))
        return cls(
            training,
            frozenset(training),
            TwinIndex.build(training, similarity=recipe.curation.near_duplicate_similarity),
            frozenset(recipe.identity(name) for name in catalogue),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """One sample, read. `text` is the parsed answer; for an invalid one it is the completion as generated."""

    text: str
    identity: str
    verdict: str
    words: tuple[str, ...]
    in_catalogue: bool

    @property
    def valid(self) -> bool:
        """Whether it has the recipe's format and reached its end."""
        return self.verdict in VALID_VERDICTS

    @property
    def sample(self) -> str:
        """The answer as a report keeps it; an invalid one is marked: `✗ cut_off: the text`."""
        text = self.text[:MAX_SAMPLE_CHARS]
        return text if self.valid else f"✗ {self.verdict}: {text}"


def read_sample(sample: str) -> tuple[str, str]:
    """The text of a sample in a report, and why it is not valid (empty when it is)."""
    found = _INVALID_SAMPLE.fullmatch(sample)
    return (found["text"], found["reason"]) if found else (sample, "")


def read_answer(recipe: Recipe, prompt: str, sampled: Sampled, known: KnownAnswers) -> Answer:
    """Parse one sample and look it up."""
    parsed = recipe.read(prompt, sampled.text, sampled.finish_reason)
    if not parsed.valid:
        return Answer(sampled.text, "", parsed.reason or "invalid", (), in_catalogue=False)
    identity = recipe.identity(parsed.answer)
    in_catalogue = identity in known.catalogue
    return Answer(
        parsed.answer, identity, _verdict(identity, known, in_catalogue), words_of(recipe, parsed.answer), in_catalogue
    )


def words_of(recipe: Recipe, answer: str) -> tuple[str, ...]:
    """The words that an answer counts under."""
    return tuple(recipe.attributes(answer).get("word", ()))


def _verdict(identity: str, known: KnownAnswers, in_catalogue: bool) -> str:
    if identity in known.training_set:
        return KNOWN
    if known.twins.twin(identity) is not None:
        return NEAR_TWIN
    return IN_CATALOGUE if in_catalogue else NOVEL
