"""Gates: what passes, what fails, and what they say."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.domain.models import Gate, GateResult, Measure
from tunesmith_trainer.evaluation.metrics import METRIC_DESCRIPTIONS
from tunesmith_trainer.gates import decide

FORMAT = Gate("format", "valid_share", ">=", 0.9, "the answers do not have the trained format", bound="low")
SKEW = Gate("skew", "top_word_share", "<=", 0.25, "one word dominates")
BETTER = Gate("better", "bits_per_char", "<=", -0.05, "no likelier than under the base", relative_to="base")
NO_WORSE = Gate("no_worse", "bits_per_char", "<=", 0.1, "less likely than under the champion", relative_to="champion")


def measure(value: float, low: float | None = None, high: float | None = None) -> Measure:
    return Measure(value, value if low is None else low, value if high is None else high, 500)


def verdict(gate: Gate, **metrics: dict[str, Measure]) -> GateResult:
    (result,) = decide([gate], metrics, METRIC_DESCRIPTIONS)
    return result


def test_the_named_end_of_the_interval_is_compared() -> None:
    assert verdict(FORMAT, candidate={"valid_share": measure(0.91, 0.90, 0.93)}).passed
    assert not verdict(FORMAT, candidate={"valid_share": measure(0.91, 0.89, 0.93)}).passed


def test_a_limit_itself_passes() -> None:
    assert verdict(SKEW, candidate={"top_word_share": measure(0.25)}).passed


@pytest.mark.parametrize(("value", "passed"), [(2.95, True), (2.96, False)])
def test_a_relative_gate_adds_its_limit_to_the_other_subject(value: float, passed: bool) -> None:
    result = verdict(BETTER, base={"bits_per_char": measure(3.0)}, candidate={"bits_per_char": measure(value)})

    assert result.passed is passed
    assert result.limit == pytest.approx(2.95)


def test_a_gate_against_a_champion_that_is_not_there_passes_and_says_so() -> None:
    result = verdict(NO_WORSE, base={}, candidate={"bits_per_char": measure(3.0)})

    assert result.passed
    assert "there is no champion to compare with" in result.detail


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("gate", [FORMAT, SKEW, BETTER, NO_WORSE])
def test_a_metric_that_is_missing_or_no_number_fails(gate: Gate, value: float) -> None:
    base = {"bits_per_char": measure(3.0)}
    for candidate in ({}, {gate.metric: measure(value)}):
        result = verdict(gate, base=base, candidate=candidate)

        assert not result.passed
        assert result.value is None
        assert gate.why in result.detail


def test_an_interval_end_that_is_no_number_fails() -> None:
    assert not verdict(FORMAT, candidate={"valid_share": measure(1.0, math.nan, math.nan)}).passed


def test_a_metric_missing_for_the_other_subject_fails() -> None:
    result = verdict(BETTER, base={}, candidate={"bits_per_char": measure(1.0)})

    assert not result.passed
    assert "could not be measured for the base" in result.detail


def test_no_candidate_at_all_fails() -> None:
    assert not verdict(SKEW).passed


def test_a_failure_names_value_interval_limit_and_meaning() -> None:
    detail = verdict(FORMAT, candidate={"valid_share": measure(0.14, 0.112, 0.173)}).detail

    assert detail == (
        "Valid format is 14.0 % (95 % interval 11.2 % to 17.3 %, n = 500); the lower end of its interval, 11.2 %, "
        "must be at least 90.0 %: the answers do not have the trained format."
    )


def test_a_relative_gate_tells_the_paired_difference() -> None:
    candidate = {"bits_per_char": measure(3.01, 2.9, 3.1), "bits_per_char_minus_base": measure(-0.42, -0.5, -0.35)}

    detail = verdict(BETTER, base={"bits_per_char": measure(3.43)}, candidate=candidate).detail

    assert detail == (
        "Loss on held-out answers is 3.01 bits (95 % interval 2.90 bits to 3.10 bits, n = 500), -0.42 bits from the "
        "base (95 % interval -0.50 bits to -0.35 bits); it is at most 3.38 bits (the base's 3.43 bits minus 0.05 bits)."
    )


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_better_value_never_turns_a_pass_into_a_failure(one: float, other: float, limit: float) -> None:
    worse, better = sorted((one, other))
    gate = Gate("g", "valid_share", ">=", limit, "why")

    passed = [verdict(gate, candidate={"valid_share": measure(value)}).passed for value in (worse, better)]

    assert passed in ([False, False], [False, True], [True, True])
