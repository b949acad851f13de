"""Judging a candidate: the same prompts and seeds for every subject, measured, gated, and kept as a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from tunesmith.domain.errors import Interrupted, Unsupported
from tunesmith.domain.examples import Example
from tunesmith.domain.ids import content_id
from tunesmith.domain.jobs import Progress, ProgressReporter
from tunesmith.domain.models import MAX_PROMPT_CHARS, Measure, Report, Subject
from tunesmith.domain.runs import Run
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.language_model import GenerationParameters
from tunesmith.recipes.base import Against, Answered, Recipe
from tunesmith_trainer.curation.distributions import length_band
from tunesmith_trainer.evaluation.answers import Answer, KnownAnswers, read_answer, words_of
from tunesmith_trainer.evaluation.confidence import wilson
from tunesmith_trainer.evaluation.copying import longest_copied_spans
from tunesmith_trainer.evaluation.judged_model import JudgedModel
from tunesmith_trainer.evaluation.leaks import leaked_rows
from tunesmith_trainer.evaluation.measures import (
    Measured,
    TrainingText,
    differences,
    measure_answers,
    measure_loss,
    measure_own,
)
from tunesmith_trainer.evaluation.metrics import described, heldout_anchor
from tunesmith_trainer.evaluation.ngram import CharacterNgram, num_scored_chars
from tunesmith_trainer.evaluation.twins import TwinIndex
from tunesmith_trainer.evaluation.words import compression_ratio, distinct_words, word_entropy
from tunesmith_trainer.gates import SHARED_GATES, decide

FIRST_SEED = 10_000
"""Seed number of the first prompt, and the sampling seed of the first batch."""

MAX_KEPT_SAMPLES = 500
"""Answers that a report keeps of each subject."""

MAX_VALUES = 100
"""Values an attribute of a distribution has at most, the commonest."""

DATA = "data"
"""Key of `Report.distributions` that holds those of the training answers."""


def report_id(recipe: Recipe, run_id: str, champion_version: str, catalogue_hash: str = "") -> str:
    """The id of the report that `judge` would make: the same question has the same report."""
    settings: dict[str, Any] = {
        "judge": asdict(recipe.judge),
        "generation": asdict(recipe.generation),
        "gates": [asdict(gate) for gate in (*recipe.gates, *SHARED_GATES)],
        # Reports have kept answers to compare serving with since this stands here.
        "probes": 1,
    }
    if recipe.code_hash:
        settings["code"] = recipe.code_hash
    if catalogue_hash:
        settings["catalogue"] = {"hash": catalogue_hash}
    return content_id("rep", [recipe.name, run_id, champion_version, settings])


def judge_prompts(recipe: Recipe, test_examples: Sequence[Example]) -> list[str]:
    """The prompts that every subject answers.

    Seed numbers from FIRST_SEED on; for a recipe whose `inputs_of_seed` raises Unsupported, the held-out prompts, from
    the first again when they do not suffice.
    """
    return [prompt for prompt, _ in questions(recipe, test_examples)]


def questions(
    recipe: Recipe, heldout: Sequence[Example], *, num_samples: int = 0, first_seed: int = FIRST_SEED
) -> list[tuple[str, Example | None]]:
    """The prompts, as many as `num_samples` (0: as the recipe's judge has), with the held-out examples they are of."""
    num_samples = num_samples or recipe.judge.num_samples
    try:
        return [(recipe.prompt(recipe.inputs_of_seed(first_seed + i)), None) for i in range(num_samples)]
    except Unsupported:
        if not heldout:
            return []
        chosen = [heldout[i % len(heldout)] for i in range(num_samples)]
        return [(example.prompt, example) for example in chosen]


def judge(
    recipe: Recipe,
    *,
    subjects: Mapping[Subject, JudgedModel],
    train_answers: Sequence[str],
    train_keys: Sequence[str],
    trained_on: Collection[str],
    test_examples: Sequence[Example],
    catalogue: Collection[str],
    base_seen: Collection[str],
    run: Run,
    model_version: str,
    champion_version: str,
    clock: Clock,
    report: ProgressReporter,
    should_stop: Callable[[], bool],
    catalogue_hash: str = "",
) -> Report:
    """Measure every subject on the same prompts, seeds and held-out rows, and decide the gates.

    `train_answers` and `train_keys` are of the dataset's training rows; `trained_on` is what the run wrote down of the
    rows that it was given (see `leaks`).
    `base_seen` are answers that the base model's own pretraining text holds: held-out rows among them, or near-twins
    of them, are left out of the loss, and the anchor `heldout_rows_seen_by_base` states their number. `catalogue` may
    be empty; then novelty against it is not measured. Its hash is part of the report's id. A measure that is not a
    number is left out of the report. Samples that are not valid say so: see `answers.Answer.sample`.

    All but `created_at` follows from the arguments. Raises Interrupted when `should_stop` says so; nothing is stored
    here, so the next attempt begins anew.
    """
    assert {"base", "candidate"} <= subjects.keys(), "a candidate is judged beside its base"
    assert ("champion" in subjects) == bool(champion_version), "the champion is judged if and only if there is one"

    def check() -> None:
        if should_stop():
            raise Interrupted("judging was asked to stop; the next attempt begins anew")

    asked = questions(recipe, test_examples)
    prompts = [prompt for prompt, _ in asked]
    heldout = held_out(recipe, test_examples, base_seen)
    steps = _Steps(report, check, total=len(subjects) * (len(prompts) + 2 * len(heldout.examples)))

    known = KnownAnswers.of(recipe, train_answers, catalogue)
    training = TrainingText.of(recipe, train_answers, known)
    against = Against(train_answers, known.catalogue)
    five_gram = CharacterNgram.fit(train_answers, order=5)
    texts = [example.answer for example in heldout.examples]
    five_gram_bits = [five_gram.bits(text) for text in texts]

    answers: dict[Subject, list[Answer]] = {}
    measured: dict[Subject, Measured] = {}
    for subject, model in subjects.items():
        told = partial(steps.advance, f"the {subject} answers")
        read = partial(steps.advance, f"the {subject} reads held-out answers")
        answers[subject] = answers_of(model, recipe, prompts, known, recipe.generation, advance=told)
        log_probs = log_probs_of(model, recipe, [(e.prompt, e.completion) for e in heldout.examples], advance=read)
        bare = log_probs_of(model, recipe, [(e.prompt, e.answer) for e in heldout.examples], advance=read)
        loss = measure_loss(texts, log_probs, bare, five_gram_bits, seed=FIRST_SEED)
        shared = measure_answers(answers[subject], training, seed=FIRST_SEED, check=check)
        answered = [
            Answered(prompt, answer.text, reference)
            if answer.valid
            else Answered(prompt, None, reference, answer.verdict)
            for (prompt, reference), answer in zip(asked, answers[subject], strict=True)
        ]
        measured[subject] = shared.joined(measure_own(recipe, answered, against, seed=FIRST_SEED)).joined(loss)

    leaked = leaked_rows(recipe, test_examples, train_keys=train_keys, known=known, trained_on=trained_on)
    metrics: dict[str, dict[str, Measure]] = {subject: dict(row.measures) for subject, row in measured.items()}
    for subject, row in measured.items():
        if subject != "candidate":
            metrics["candidate"] |= differences(measured["candidate"], row, name=subject, seed=FIRST_SEED)
    metrics["candidate"]["leaked_share"] = wilson(sum(leaked), len(leaked))
    metrics = {subject: {k: m for k, m in row.items() if is_number(m)} for subject, row in metrics.items()}

    anchors = {
        "five_gram_bits_per_char": sum(five_gram_bits) / max(1, sum(map(num_scored_chars, texts))),
        "heldout_rows": float(len(texts)),
        "heldout_rows_seen_by_base": float(heldout.num_seen),
        "copied_share_of_heldout": _copied_share(recipe, texts, known),
        "top_word_share_of_data": training.top_word_share,
        **_anchors_of_data(training, train_answers, num_answers=sum(a.valid for a in answers["candidate"])),
        **_own_anchors(recipe, test_examples, against),
    }
    gates = decide((*recipe.gates, *SHARED_GATES), metrics, described(recipe))
    return Report(
        id=report_id(recipe, run.id, champion_version, catalogue_hash),
        recipe=recipe.name,
        run_id=run.id,
        dataset_id=run.dataset_id,
        model_version=model_version,
        champion_version=champion_version,
        metrics=metrics,
        anchors={name: value for name, value in anchors.items() if math.isfinite(value)},
        samples={subject: tuple(a.sample for a in rows[:MAX_KEPT_SAMPLES]) for subject, rows in answers.items()},
        distributions=_distributions(recipe, answers, train_answers),
        gates=gates,
        passed=all(gate.passed for gate in gates),
        created_at=rfc3339(clock.now()),
        prompts=tuple(
            prompt[:MAX_PROMPT_CHARS] for prompt, reference in asked[:MAX_KEPT_SAMPLES] if reference is not None
        ),
    )


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out rows to read, and how many were left out because the base has seen them."""

    examples: list[Example]
    num_seen: int


@dataclass(slots=True)
class _Steps:
    """Progress over all subjects; also where a request to stop is noticed."""

    report: ProgressReporter
    check: Callable[[], None]
    total: int
    done: int = 0

    def advance(self, message: str, by: int) -> None:
        self.done += by
        self.report(Progress("judge", self.done, self.total, "answers", message))
        self.check()


def held_out(recipe: Recipe, test_examples: Sequence[Example], base_seen: Collection[str]) -> HeldOut:
    """The rows that are read for the loss: none that the base's own text holds, nor near-twins of those."""
    seen = TwinIndex.build(
        [recipe.identity(text) for text in base_seen], similarity=recipe.curation.near_duplicate_similarity
    )
    unseen = [example for example in test_examples if seen.twin(recipe.identity(example.answer)) is None]
    return HeldOut(unseen[: recipe.judge.max_heldout_rows], len(test_examples) - len(unseen))


def answers_of(
    model: JudgedModel,
    recipe: Recipe,
    prompts: Sequence[str],
    known: KnownAnswers,
    parameters: GenerationParameters,
    *,
    advance: Callable[[int], None],
    first_seed: int = FIRST_SEED,
) -> list[Answer]:
    """A model's answers, read, in prompt order; `advance` is told of each batch, and may raise."""
    answers: list[Answer] = []
    for start in range(0, len(prompts), recipe.judge.batch_size):
        batch = prompts[start : start + recipe.judge.batch_size]
        sampled = model.sample(batch, parameters, seed=first_seed + start)
        answers += [read_answer(recipe, prompt, one, known) for prompt, one in zip(batch, sampled, strict=True)]
        advance(len(batch))
    return answers


def log_probs_of(
    model: JudgedModel, recipe: Recipe, rows: Sequence[tuple[str, str]], *, advance: Callable[[int], None]
) -> list[float]:
    """Natural log-probabilities of the rows' completions, in order; `advance` is told of each batch, and may raise."""
    log_probs: list[float] = []
    for start in range(0, len(rows), recipe.judge.batch_size):
        batch = rows[start : start + recipe.judge.batch_size]
        found = model.completion_log_probs(batch)
        assert len(found) == len(batch), f"{len(found)} log-probabilities for {len(batch)} rows"
        log_probs += found
        advance(len(batch))
    return log_probs


def is_number(measure: Measure) -> bool:
    """Whether a measure and its interval are numbers."""
    return all(math.isfinite(x) for x in (measure.value, measure.low, measure.high))


def _copied_share(recipe: Recipe, texts: Sequence[str], known: KnownAnswers) -> float:
    identities = [recipe.identity(text) for text in texts]
    spans = longest_copied_spans(identities, known.training)
    shares = [span / len(text) for span, text in zip(spans, identities, strict=True) if text]
    return sum(shares) / len(shares) if shares else math.nan


def _anchors_of_data(training: TrainingText, train_answers: Sequence[str], *, num_answers: int) -> dict[str, float]:
    """Diversity of as many training answers as there are valid answers, taken evenly from the whole set."""
    num_rows = min(num_answers, len(train_answers))
    rows = [i * len(train_answers) // num_rows for i in range(num_rows)]
    words = [training.words[i] for i in rows]
    return {
        "word_entropy_of_data": word_entropy(words),
        "distinct_words_of_data": distinct_words(words, vocabulary_size=training.vocabulary_size),
        "compression_ratio_of_data": compression_ratio([train_answers[i] for i in rows]),
    }


def _own_anchors(recipe: Recipe, test_examples: Sequence[Example], against: Against) -> dict[str, float]:
    """The recipe's own measures of the held-out answers themselves: what a perfect imitation would reach."""
    answered = [Answered(example.prompt, example.answer, example) for example in test_examples]
    measured = measure_own(recipe, answered, against, seed=FIRST_SEED).measures
    return {heldout_anchor(name): measure.value for name, measure in measured.items()}


def _distributions(
    recipe: Recipe, answers: Mapping[Subject, Sequence[Answer]], train_answers: Sequence[str]
) -> dict[str, dict[str, dict[str, int]]]:
    texts = {str(subject): [a.text for a in rows if a.valid] for subject, rows in answers.items()}
    texts[DATA] = list(train_answers)
    found: dict[str, dict[str, dict[str, int]]] = {}
    for name, rows in texts.items():
        counts = {"length": dict(Counter(length_band(length) for length in sorted(map(len, rows))))}
        for attribute in ("word", *_attributes(recipe, rows)):
            counts[attribute] = _commonest(Counter(v for text in rows for v in _values(recipe, text, attribute)))
        found[name] = counts
    for subject, row in answers.items():
        found[subject]["verdict"] = _commonest(Counter(a.verdict for a in row))
    return found


def _attributes(recipe: Recipe, texts: Sequence[str]) -> list[str]:
    """Names of attributes other than words that the answers count under."""
    return sorted({name for text in texts for name in recipe.attributes(text)} - {"word"})


def _values(recipe: Recipe, text: str, attribute: str) -> set[str]:
    values = words_of(recipe, text) if attribute == "word" else recipe.attributes(text).get(attribute, ())
    return set(values)


def _commonest(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_VALUES])
