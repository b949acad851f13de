"""What a recipe is: one task in one pure file. No I/O, no clock, no randomness beside the seeds it is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tunesmith.domain.datasets import CurationSettings
from tunesmith.domain.examples import Dropped, Example
from tunesmith.domain.models import Gate, MetricInfo
from tunesmith.domain.records import Record
from tunesmith.domain.runs import TrainingSettings
from tunesmith.ports.language_model import FinishReason, GenerationParameters
from tunesmith.recipes.pair_writing import PairWriter

CUT_OFF, NO_STOP = "cut_off", "no_stop"
"""Why a generation of the right format is still not valid."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A model's text, read. `valid` says whether the text had the recipe's format."""

    answer: str
    """The answer as people read it; for text out of format, the text itself."""
    valid: bool
    reason: str = ""
    """Why it is not valid: a short snake_case word; empty when it is."""


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How a candidate is measured."""

    num_samples: int = 500
    batch_size: int = 100
    """Samples generated at once; part of the settings because it bounds memory."""
    max_heldout_rows: int = 500
    """Held-out rows scored for loss, at most."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One prompt that was put to a model on trial, and what it said."""

    prompt: str
    answer: str | None
    """The parsed answer; None where the text was not valid."""
    reference: Example | None
    """The held-out example whose prompt it is; None for prompts made from seed numbers."""
    reason: str = ""
    """Why the text was not valid; empty where it was."""


@dataclass(frozen=True, slots=True)
class Against:
    """What answers are measured against."""

    train_answers: Sequence[str]
    catalogue: frozenset[str]
    """Identities that the reference catalogue lists; may be empty."""


Observation = float | tuple[float, float] | None
"""What one answer adds to a measure: a value, or a numerator and denominator; None where it does not count."""


@dataclass(frozen=True, slots=True)
class Recipe(ABC):
    """One task: what to collect, record -> example, prompt, parse and judge an answer, training defaults, gates.

    `parse(prompt + completion)` of any example gives back its answer, valid. All methods are pure.
    """

    name: str
    title: str
    """One line for people."""
    default_source: str
    """Source URL that ships with the project (`sample:…`)."""
    record_fields: tuple[str, ...]
    """Fields a record must have; the first is what a plain list fills."""
    optional_fields: tuple[str, ...] = ()
    """Fields that are read from a table too where it has columns of their names."""
    default_base_model: str = "builtin:tiny"
    curation: CurationSettings = field(default_factory=CurationSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    generation: GenerationParameters = field(default_factory=GenerationParameters)
    answer_schema: str = ""
    """JSON Schema, as JSON text, of a whole answer; empty where answers are no JSON. The generator holds its backend to
    it (`ports.json_schemas` has the limits); the judge does not, so `valid_share` measures the model alone."""
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    gates: tuple[Gate, ...] = ()
    examples_shown: int = 10_000
    """How many examples a training shows in all where `training.epochs` is 0: few rows are repeated, many are not."""
    min_train_examples: int = 20
    """A dataset with fewer training rows is refused."""
    max_retries_known: int = 0
    """How often `generate` tries the next seed when the answer is already known; 0 never."""
    pair_writer: PairWriter | None = None
    """Asks a language model for this recipe's training pairs; None where pairs are collected or not needed."""
    needs: str = ""
    """What must be added to collected records before they are curated: `captions`, `pairs`, or nothing. Only derived
    collections (`records.Collection.derived_from`) are then curated by default."""
    metrics: Mapping[str, MetricInfo] = field(default_factory=dict)
    """The recipe's own metrics, by name; what `measures` and `sample_measures` give."""
    charts: tuple[str, ...] = ()
    """Attributes (of `attributes`) that the report shows as plots: data, base and candidate side by side."""
    code_hash: str = ""
    """Hex SHA-256 of a plug-in's code, set when it is loaded; empty for the recipes that ship. It is part of what is
    asked of a job and of a report, so that an edited recipe is not answered with what the earlier one made."""

    @abstractmethod
    def example(self, record: Record, *, index: int) -> Example | Dropped:
        """The training pair of `record`, or why there is none. `index` numbers the records of the dataset from 0."""

    @abstractmethod
    def prompt(self, inputs: Mapping[str, str]) -> str:
        """The prompt for a request's inputs; InvalidInput names the field, the value and the fix."""

    @abstractmethod
    def inputs_of_seed(self, seed: int) -> Mapping[str, str]:
        """Inputs that differ by `seed`, for recipes whose input is a seed number."""

    @abstractmethod
    def parse(self, text: str) -> Parsed:
        """Read prompt and completion together, as one text."""

    def read(self, prompt: str, text: str, finish_reason: FinishReason) -> Parsed:
        """Read a generation: valid when its format is, and when it reached the end that the model was trained to write.

        A text that ran out of tokens is `cut_off`; one that ended by itself, where the recipe has stop sequences, is
        `no_stop`, unless the recipe's schema tells its end.
        """
        parsed = self.parse(prompt + text)
        if finish_reason == "length":
            return replace(parsed, valid=False, reason=CUT_OFF)
        ended = text.endswith(self.generation.stop) or (bool(self.answer_schema) and finish_reason == "eos_token")
        if parsed.valid and self.generation.stop and not ended:
            return replace(parsed, valid=False, reason=NO_STOP)
        return parsed

    @abstractmethod
    def identity(self, answer: str) -> str:
        """The normal form of an answer: two answers with one identity are the same answer."""

    def duplicate_key(self, example: Example) -> str:
        """What curation compares examples by: equal keys are duplicates, similar ones near-twins, and the key decides
        the split. The answer's identity, unless many prompts rightly share an answer.
        """
        return self.identity(example.answer)

    @abstractmethod
    def attributes(self, answer: str) -> Mapping[str, Sequence[str]]:
        """What an answer counts under in distributions and skew measures: attribute -> values (`word` -> its words)."""

    def measures(self, answers: Sequence[Answered], against: Against) -> Mapping[str, Sequence[Observation]]:  # noqa: ARG002
        """The recipe's own measures that are means over answers: by name one observation an answer, in order.

        Their intervals and paired differences are the judge's business.
        """
        return {}

    def sample_measures(self, answers: Sequence[Answered], against: Against) -> Mapping[str, float]:  # noqa: ARG002
        """The recipe's own measures that only a whole sample has (entropy, repetition across answers), by name.

        A value that cannot be measured is left out. Called on parts of the sample too, for a jackknife interval.
        """
        return {}
