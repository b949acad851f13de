"""Measuring the cells of a sweep: the loss of each training, and the answers of each cell, on the validation rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from tunesmith.domain.examples import Example
from tunesmith.domain.models import Measure, MetricInfo
from tunesmith.ports.language_model import GenerationParameters
from tunesmith.recipes.base import Against, Answered, Recipe
from tunesmith_trainer.evaluation.answers import KNOWN, Answer, KnownAnswers
from tunesmith_trainer.evaluation.confidence import Ratio, wilson
from tunesmith_trainer.evaluation.judge import answers_of, is_number, log_probs_of
from tunesmith_trainer.evaluation.judged_model import JudgedModel
from tunesmith_trainer.evaluation.measures import (
    Measured,
    TrainingText,
    measure_answers,
    measure_loss,
    measure_own,
)
from tunesmith_trainer.evaluation.metrics import described
from tunesmith_trainer.evaluation.ngram import CharacterNgram, num_scored_chars

FIRST_SEED = 50_000
"""Seed number of the first prompt: far from the judge's, which begin at 10,000."""

USEFUL = "useful_share"
"""The metric that sweeps over generation parameters compete by."""

LOSS = "bits_per_char"
"""The metric that sweeps over trainings alone compete by."""

PLAUSIBLE_SHARE = 0.95
"""An answer is plausible when it is no less likely, by the character, than this share of the held-out answers are."""

SWEEP_METRICS: Mapping[str, MetricInfo] = {
    USEFUL: MetricInfo(
        "Useful answers",
        "share",
        "higher",
        "Answers that are valid, no training answer, not given before in the sample, and plausible: by a character "
        "5-gram of the training answers no less likely than 95 % of the held-out ones. Reciting, repeating and "
        "gibberish all lower it.",
    )
}

MAX_KEPT_SAMPLES = 24
"""Answers kept of each cell."""


def sweep_metrics(recipe: Recipe) -> Mapping[str, MetricInfo]:
    """Every metric of a sweep's cells."""
    return {**SWEEP_METRICS, **described(recipe)}


@dataclass(frozen=True, slots=True)
class Part:
    """What was measured of a training or of a cell, as it is kept: a sweep that was killed goes on from these."""

    measures: Mapping[str, Measure]
    ratios: Mapping[str, Ratio]
    samples: tuple[str, ...] = ()

    @staticmethod
    def of(measured: Measured, samples: Sequence[str] = ()) -> Part:
        """The numbers among the measures; the others say nothing."""
        ratios = {k: r for k, r in measured.ratios.items() if np.isfinite([r.numerator, r.denominator]).all()}
        return Part({k: m for k, m in measured.measures.items() if is_number(m)}, ratios, tuple(samples))

    def to_json(self) -> dict[str, Any]:
        """The part as its object in the store."""
        return {
            "measures": {name: asdict(measure) for name, measure in self.measures.items()},
            "ratios": {name: [r.numerator.tolist(), r.denominator.tolist()] for name, r in self.ratios.items()},
            "samples": list(self.samples),
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Part:
        """The inverse of `to_json`."""
        return Part(
            {name: Measure(**measure) for name, measure in row["measures"].items()},
            {name: Ratio.of(top, bottom) for name, (top, bottom) in row["ratios"].items()},
            tuple(row["samples"]),
        )


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What all cells of a sweep are measured against; made once."""

    recipe: Recipe
    questions: Sequence[tuple[str, Example | None]]
    heldout: Sequence[Example]
    known: KnownAnswers
    training: TrainingText
    against: Against
    five_gram: CharacterNgram
    heldout_bits: Sequence[float]
    """Of each held-out answer, by the five-gram."""
    most_bits_per_char: float
    """Of a plausible answer."""

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        questions: Sequence[tuple[str, Example | None]],
        heldout: Sequence[Example],
        train_answers: Sequence[str],
        catalogue: Sequence[str] = (),
    ) -> Self:
        """Index the training answers and score the held-out ones."""
        known = KnownAnswers.of(recipe, train_answers, catalogue)
        five_gram = CharacterNgram.fit(train_answers, order=5)
        bits = [five_gram.bits(example.answer) for example in heldout]
        rates = sorted(b / num_scored_chars(example.answer) for b, example in zip(bits, heldout, strict=True))
        limit = rates[math.ceil(PLAUSIBLE_SHARE * len(rates)) - 1] if rates else math.inf
        return cls(
            recipe,
            questions,
            heldout,
            known,
            TrainingText.of(recipe, train_answers, known),
            Against(train_answers, known.catalogue),
            five_gram,
            bits,
            limit,
        )

    def is_plausible(self, text: str) -> bool:
        """Whether a text is as likely as nearly all held-out answers."""
        return self.five_gram.bits(text) / num_scored_chars(text) <= self.most_bits_per_char


def measure_training(model: JudgedModel, yardstick: Yardstick, *, advance: Callable[[int], None]) -> Part:
    """The loss of a training on the held-out rows."""
    rows = yardstick.heldout
    log_probs = log_probs_of(model, yardstick.recipe, [(e.prompt, e.completion) for e in rows], advance=advance)
    bare = log_probs_of(model, yardstick.recipe, [(e.prompt, e.answer) for e in rows], advance=advance)
    texts = [example.answer for example in rows]
    return Part.of(measure_loss(texts, log_probs, bare, yardstick.heldout_bits, seed=FIRST_SEED))


def measure_cell(
    model: JudgedModel, yardstick: Yardstick, parameters: GenerationParameters, *, advance: Callable[[int], None]
) -> Part:
    """The answers of a cell: the same prompts and seeds for every one."""
    recipe, asked = yardstick.recipe, yardstick.questions
    prompts = [prompt for prompt, _ in asked]
    answers = answers_of(model, recipe, prompts, yardstick.known, parameters, advance=advance, first_seed=FIRST_SEED)
    answered = [
        Answered(prompt, answer.text, reference) if answer.valid else Answered(prompt, None, reference, answer.verdict)
        for (prompt, reference), answer in zip(asked, answers, strict=True)
    ]
    shared = measure_answers(answers, yardstick.training, seed=FIRST_SEED)
    measured = shared.joined(measure_own(recipe, answered, yardstick.against, seed=FIRST_SEED))
    return Part.of(measured.joined(_useful(answers, yardstick)), [a.sample for a in answers[:MAX_KEPT_SAMPLES]])


def _useful(answers: Sequence[Answer], yardstick: Yardstick) -> Measured:
    seen: set[str] = set()
    useful = []
    for answer in answers:
        new = answer.valid and answer.verdict != KNOWN and answer.identity not in seen
        useful.append(new and yardstick.is_plausible(answer.text))
        seen.add(answer.identity)
    ratio = Ratio.of(useful)
    return Measured({USEFUL: wilson(sum(useful), len(useful))}, {USEFUL: ratio})
