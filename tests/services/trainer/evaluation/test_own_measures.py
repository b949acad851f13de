"""Measures that a recipe brings itself: measured with intervals, paired, gated, and anchored on held-out answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import pytest
from planted_models import TEST, TEST_EXAMPLES, good, judged

from tunesmith.domain.errors import InvalidInput, Unsupported
from tunesmith.domain.models import Gate, MetricInfo
from tunesmith.recipes.base import Against, Answered, Observation
from tunesmith.recipes.micro_genre import RECIPE, MicroGenre

LETTERS = MetricInfo("Letters", "characters", "lower", "Mean length of an answer.")
VARIETY = MetricInfo("First letters", "share", "higher", "Different first letters over the answers.")


@dataclass(frozen=True, slots=True)
class Counting(MicroGenre):
    """Micro-genres with two measures of their own."""

    def measures(self, answers: Sequence[Answered], against: Against) -> Mapping[str, Sequence[Observation]]:
        return {"letters": [None if a.answer is None else float(len(a.answer)) for a in answers]}

    def sample_measures(self, answers: Sequence[Answered], against: Against) -> Mapping[str, float]:
        firsts = Counter(a.answer[0] for a in answers if a.answer)
        return {"variety": len(firsts) / max(1, firsts.total())}


def recipe_of(kind: type[MicroGenre] = Counting, **changes: object) -> MicroGenre:
    values = {f.name: getattr(RECIPE, f.name) for f in fields(RECIPE)}
    return kind(**(values | {"metrics": {"letters": LETTERS, "variety": VARIETY}} | changes))


def test_own_measures_stand_in_the_report_with_intervals_and_paired_differences():
    report = judged(good(), recipe=recipe_of(), champion=good())

    assert report.metrics["candidate"]["letters_minus_champion"].value == 0.0
    letters, variety = (report.metrics["candidate"][name] for name in ("letters", "variety"))
    assert letters.low < letters.value < letters.high
    assert 0 <= variety.low <= variety.value <= variety.high <= 1
    assert report.metrics["base"].keys().isdisjoint({"letters"})
    assert report.anchors["letters_of_heldout"] == pytest.approx(sum(map(len, TEST)) / len(TEST))


def test_a_gate_on_an_own_measure_decides_and_speaks_its_name():
    gate = Gate("short", "letters", "<=", 3.0, "the answers are long")

    report = judged(good(), recipe=recipe_of(gates=(gate,)))

    assert not report.passed
    assert "Letters is" in report.gates[0].detail
    assert "must be at most 3.0 chars" in report.gates[0].detail


def test_a_wrong_number_of_observations_is_named():
    class Short(Counting):
        def measures(self, answers: Sequence[Answered], against: Against) -> Mapping[str, Sequence[Observation]]:
            return {"letters": [1.0]}

    with pytest.raises(InvalidInput, match="gives 1 observations of letters for 500 answers"):
        judged(good(), recipe=recipe_of(Short))


def test_a_measure_that_nobody_described_is_refused():
    with pytest.raises(InvalidInput, match="measures 'letters' without describing it"):
        judged(good(), recipe=recipe_of(metrics={"variety": VARIETY}))


def test_without_seed_numbers_the_held_out_prompts_are_asked_and_their_examples_are_the_references():
    seen: list[Answered] = []

    class Asking(Counting):
        def inputs_of_seed(self, seed: int) -> Mapping[str, str]:
            raise Unsupported("no seeds here")

        def measures(self, answers: Sequence[Answered], against: Against) -> Mapping[str, Sequence[Observation]]:
            seen.extend(answers)
            return {}

    report = judged(good(), recipe=recipe_of(Asking), test_examples=TEST_EXAMPLES[:20])

    assert report.prompts[:20] == tuple(example.prompt for example in TEST_EXAMPLES[:20])
    assert all(a.reference is not None and a.reference.prompt == a.prompt for a in seen)


def test_replacing_a_setting_keeps_the_measures():
    assert replace(recipe_of(), title="other").metrics["letters"] is LETTERS
