"""Intervals against known values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tunesmith_trainer.evaluation.confidence import (
    Ratio,
    jackknifed,
    paired_difference,
    ratio_measure,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # 41 of 60 votes: the figures published with the lyrics project.
        (41, 60, 0.558, 0.786),
        # Newcombe 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    measure = wilson(successes, n)

    assert (measure.low, measure.high) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))
    assert (measure.value, measure.n) == (successes / n, n)


def test_no_observation_gives_no_number() -> None:
    measures = [wilson(0, 0), ratio_measure(Ratio.of([]), seed=1), jackknifed([], len)]

    assert all(math.isnan(m.value) and math.isnan(m.low) and m.n == 0 for m in measures)


def test_the_bootstrap_of_a_mean_is_near_the_interval_of_the_normal_law() -> None:
    rows = np.random.default_rng(3).normal(5, 2, size=400)

    measure = ratio_measure(Ratio.of(rows.tolist()), seed=1)

    reach = 1.96 * rows.std(ddof=1) / math.sqrt(400)
    assert measure.low == pytest.approx(rows.mean() - reach, abs=0.03)
    assert measure.high == pytest.approx(rows.mean() + reach, abs=0.03)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for seed in range(100):
        length = rng.integers(5, 30, size=80)
        bits = length * 3.0 + rng.normal(0, 4, size=80)
        measure = ratio_measure(Ratio.of(bits.tolist(), length.tolist()), seed=seed)
        covered += measure.low <= 3.0 <= measure.high

    # 95 of 100, less what a binomial of 100 allows at one in a thousand.
    assert covered >= 88


def test_the_same_seed_gives_the_same_interval() -> None:
    ratio = Ratio.of([1.0, 2.0, 4.0, 8.0])

    assert ratio_measure(ratio, seed=5) == ratio_measure(ratio, seed=5)


def test_a_constant_has_an_interval_of_no_width() -> None:
    measure = ratio_measure(Ratio.of([2.0] * 30), seed=1)

    assert (measure.value, measure.low, measure.high) == (2.0, 2.0, 2.0)


def test_rows_that_do_not_count_do_not_change_a_ratio() -> None:
    alone = ratio_measure(Ratio.of([1, 0, 1, 1], [1, 1, 1, 1]), seed=1)
    among_others = ratio_measure(Ratio.of([1, 0, 0, 1, 0, 1], [1, 0, 1, 1, 0, 1]), seed=1)

    assert (alone.value, alone.n) == (among_others.value, among_others.n) == (0.75, 4)


def test_pairing_removes_what_both_sides_share() -> None:
    rng = np.random.default_rng(6)
    shared = rng.normal(0, 10, size=200)
    one, other = shared + rng.normal(0.5, 0.1, size=200), shared

    difference = paired_difference(Ratio.of(one.tolist()), Ratio.of(other.tolist()), seed=1)

    assert difference is not None
    assert 0.45 < difference.low < difference.value < difference.high < 0.55


def test_a_difference_of_too_few_answers_is_not_reported() -> None:
    few = Ratio.of([1.0] * 9 + [0.0] * 91, [1.0] * 9 + [0.0] * 91)

    assert paired_difference(few, Ratio.of([1.0] * 100), seed=1) is None


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    rows = np.random.default_rng(7).normal(0, 1, size=2000).tolist()

    measure = jackknifed(rows, lambda part: sum(part) / len(part))

    reach = 2.093 / math.sqrt(2000)
    assert measure.high - measure.low == pytest.approx(2 * reach, rel=0.35)


def test_the_jackknife_keeps_to_its_bounds() -> None:
    measure = jackknifed([1.0, 0.0] * 5, lambda part: sum(part) / len(part), bounds=(0.45, 0.55))

    assert (measure.low, measure.high) == (0.45, 0.55)
