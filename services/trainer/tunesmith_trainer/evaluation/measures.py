"""Measures of one subject: of the answers it gives, and of the loss it has on held-out answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.models import Measure
from tunesmith.recipes.base import CUT_OFF, Against, Answered, Recipe
from tunesmith_trainer.evaluation.answers import KNOWN, NEAR_TWIN, Answer, KnownAnswers, words_of
from tunesmith_trainer.evaluation.confidence import (
    Ratio,
    jackknifed,
    jackknifed_all,
    not_measured,
    paired_difference,
    ratio_measure,
    shifted,
    wilson,
)
from tunesmith_trainer.evaluation.copying import longest_copied_spans
from tunesmith_trainer.evaluation.metrics import difference_name
from tunesmith_trainer.evaluation.ngram import num_scored_chars
from tunesmith_trainer.evaluation.words import (
    compression_ratio,
    content_words,
    distinct_words,
    num_repeated,
    self_repeating,
    top_word,
    word_entropy,
)

LONG_COPY_CHARS = 160
"""The longest verbatim quotation that the German UrhDaG presumes to be permitted (arXiv 2405.18492)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One subject's measures, and those of them that pair with another subject's by prompt or row."""

    measures: dict[str, Measure]
    ratios: dict[str, Ratio]

    def joined(self, other: Measured) -> Measured:
        """Both together."""
        return Measured({**self.measures, **other.measures}, {**self.ratios, **other.ratios})


@dataclass(frozen=True, slots=True)
class TrainingText:
    """What answers are measured against."""

    known: KnownAnswers
    words: tuple[tuple[str, ...], ...]
    """Words of each training answer."""
    vocabulary_size: int
    top_word_share: float

    @classmethod
    def of(cls, recipe: Recipe, train_answers: Sequence[str], known: KnownAnswers) -> Self:
        """Read the training answers once for all subjects."""
        words = tuple(words_of(recipe, answer) for answer in train_answers)
        _, count = top_word(words)
        return cls(known, words, len({w for row in words for w in row}), count / len(words) if words else math.nan)


def measure_answers(
    answers: Sequence[Answer], training: TrainingText, *, seed: int, check: Callable[[], None] = lambda: None
) -> Measured:
    """Format, novelty, distinctness, repetition, skew and copying of a subject's answers, in prompt order."""
    valid = [a.valid for a in answers]
    ratios = {
        "valid_share": Ratio.of(valid),
        "cut_off_share": Ratio.of([a.verdict == CUT_OFF for a in answers]),
        "novel_share": Ratio.of([a.valid and a.verdict != KNOWN for a in answers], valid),
        "fuzzy_novel_share": Ratio.of([a.valid and a.verdict not in (KNOWN, NEAR_TWIN) for a in answers], valid),
        "distinct_share": Ratio.of(_firsts(answers), valid),
        "self_repetition_share": _spread(answers, self_repeating([a.words for a in answers if a.valid])),
    }
    if training.known.catalogue:
        ratios["catalogue_novel_share"] = Ratio.of([a.valid and not a.in_catalogue for a in answers], valid)
    spans = longest_copied_spans([a.identity for a in answers if a.valid], training.known.training, check=check)
    ratios["long_copy_share"] = _spread(answers, [span >= LONG_COPY_CHARS for span in spans])
    measures = {name: wilson(int(ratio.numerator.sum()), ratio.num_units) for name, ratio in ratios.items()}
    lengths = [len(a.identity) for a in answers if a.valid]
    means = {
        "repeated_word_share": Ratio.of(
            [num_repeated(a.words) for a in answers], [len(content_words(a.words)) for a in answers]
        ),
        "copied_chars": _spread(answers, spans),
        "copied_share": _spread(answers, [span / length for span, length in zip(spans, lengths, strict=True)]),
    }
    measures |= {name: ratio_measure(ratio, seed=seed) for name, ratio in means.items()}
    # Distinctness depends on the whole sample: resampling prompts would make repeats of its own.
    whole_sample = ("distinct_share", "self_repetition_share")
    paired = {name: ratio for name, ratio in (ratios | means).items() if name not in whole_sample}
    return Measured(measures | _word_measures([a for a in answers if a.valid], training), paired)


def measure_own(recipe: Recipe, answers: Sequence[Answered], against: Against, *, seed: int) -> Measured:
    """The recipe's own measures of a subject's answers, in prompt order.

    InvalidInput when the recipe gives another number of observations than there are answers, or a name that its
    `metrics` do not describe: a fault of a plug-in recipe, which it names.
    """
    ratios = {}
    for name, observations in recipe.measures(answers, against).items():
        _check_described(recipe, name)
        if len(observations) != len(answers):
            raise InvalidInput(
                f"recipe {recipe.name!r} gives {len(observations)} observations of {name} for {len(answers)} answers; "
                "its `measures` must give one for each, None where it does not count",
                metadata={"recipe": recipe.name, "metric": name},
            )
        pairs = [(0.0, 0.0) if o is None else o if isinstance(o, tuple) else (float(o), 1.0) for o in observations]
        ratios[name] = Ratio.of([top for top, _ in pairs], [bottom for _, bottom in pairs])
    measures = {name: ratio_measure(ratio, seed=seed) for name, ratio in ratios.items()}
    bounds = {name: (0.0, 1.0) for name, info in recipe.metrics.items() if info.unit == "share"}
    whole = jackknifed_all(answers, lambda rows: recipe.sample_measures(rows, against), bounds=bounds)
    for name in whole:
        _check_described(recipe, name)
    return Measured(measures | whole, ratios)


def _check_described(recipe: Recipe, name: str) -> None:
    if name not in recipe.metrics:
        raise InvalidInput(
            f"recipe {recipe.name!r} measures {name!r} without describing it; add it to the recipe's `metrics`",
            metadata={"recipe": recipe.name, "metric": name},
        )


def measure_loss(
    answers: Sequence[str],
    log_probs: Sequence[float],
    bare_log_probs: Sequence[float],
    five_gram_bits: Sequence[float],
    *,
    seed: int,
) -> Measured:
    """Bits per character on held-out answers, from natural log-probabilities with (and bare: without) their end.

    Bits of an answer with its end are divided by its characters plus one, those of a bare answer by its characters;
    both as sums over all rows.
    """
    ratios = {
        "bits_per_char": Ratio.of(_bits(log_probs), [num_scored_chars(a) for a in answers]),
        "answer_bits_per_char": Ratio.of(_bits(bare_log_probs), [len(a) for a in answers]),
    }
    measures = {name: ratio_measure(ratio, seed=seed) for name, ratio in ratios.items()}
    anchor = Ratio.of(five_gram_bits, [num_scored_chars(a) for a in answers])
    over = paired_difference(ratios["bits_per_char"], anchor, seed=seed)
    measures["bits_per_char_over_five_gram"] = over or shifted(measures["bits_per_char"], anchor.value)
    return Measured(measures, ratios)


def differences(candidate: Measured, other: Measured, *, name: str, seed: int) -> dict[str, Measure]:
    """The candidate's paired differences from the subject called `name`, under their own metric names."""
    found = {
        metric: paired_difference(ratio, other.ratios[metric], seed=seed)
        for metric, ratio in candidate.ratios.items()
        if metric in other.ratios
    }
    return {difference_name(metric, name): measure for metric, measure in found.items() if measure is not None}


def _word_measures(valid: Sequence[Answer], training: TrainingText) -> dict[str, Measure]:
    words = [a.words for a in valid]
    _, count = top_word(words)
    top = wilson(count, len(words)) if any(words) else not_measured()
    share = training.top_word_share or math.nan
    return {
        "top_word_share": top,
        "top_word_share_over_data": Measure(top.value / share, top.low / share, top.high / share, top.n),
        "word_entropy": jackknifed(words, word_entropy, bounds=(0, 1)),
        "distinct_words": jackknifed(
            words, lambda rows: distinct_words(rows, vocabulary_size=training.vocabulary_size), bounds=(0, math.inf)
        ),
        "compression_ratio": jackknifed([a.text for a in valid], compression_ratio, bounds=(0, math.inf)),
    }


def _firsts(answers: Sequence[Answer]) -> list[bool]:
    seen: set[str] = set()
    firsts = []
    for answer in answers:
        firsts.append(answer.valid and answer.identity not in seen)
        seen.add(answer.identity)
    return firsts


def _spread(answers: Sequence[Answer], of_valid: Sequence[float]) -> Ratio:
    """Values of the valid answers, put back to the positions of their prompts."""
    values = iter(of_valid)
    numerator = [next(values) if a.valid else 0.0 for a in answers]
    return Ratio.of(numerator, [a.valid for a in answers])


def _bits(log_probs: Sequence[float]) -> list[float]:
    return [-lp / math.log(2) for lp in log_probs]
