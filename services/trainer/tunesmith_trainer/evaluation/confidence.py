"""95 % confidence intervals: Wilson for shares, bootstrap for ratios and paired differences, jackknife for the rest."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tunesmith.domain.models import Measure

LEVEL = 0.95
NUM_RESAMPLES = 2000
"""Bootstrap resamples: the Monte Carlo error of a 2.5 % quantile is then about 0.35 percentage points of coverage."""
NUM_GROUPS = 20
"""Groups of the delete-a-group jackknife."""
MIN_UNITS = 10
"""Paired differences of fewer observations on either side are not reported: a resample might hold none of them."""

Array = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ratio:
    """Sum of `numerator` over sum of `denominator`, one entry of each per prompt or row; shape (n,).

    A prompt that does not count (an invalid answer in a share of the valid ones) has denominator 0. Two subjects'
    ratios over the same prompts are paired by position.
    """

    numerator: Array
    denominator: Array

    @staticmethod
    def of(numerator: Sequence[float], denominator: Sequence[float] | None = None) -> Ratio:
        """A ratio of plain numbers; without a denominator, their mean."""
        top = np.asarray(numerator, dtype=np.float64)
        return Ratio(top, np.ones_like(top) if denominator is None else np.asarray(denominator, dtype=np.float64))

    @property
    def value(self) -> float:
        """The ratio; nan where nothing counts."""
        total = float(self.denominator.sum())
        return float(self.numerator.sum()) / total if total else math.nan

    @property
    def num_units(self) -> int:
        """How many prompts or rows count."""
        return int(np.count_nonzero(self.denominator))


def not_measured() -> Measure:
    """What a measure of no observations is: not a number, with n = 0. It fails every gate."""
    return Measure(math.nan, math.nan, math.nan, 0)


def wilson(successes: int, n: int) -> Measure:
    """A share with its Wilson score interval (Wilson 1927)."""
    if n == 0:
        return not_measured()
    interval = stats.binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return Measure(successes / n, float(interval.low), float(interval.high), n)


def ratio_measure(ratio: Ratio, *, seed: int) -> Measure:
    """A ratio of sums with its bootstrap interval over prompts or rows (BCa, Efron 1987)."""
    if ratio.num_units == 0:
        return not_measured()
    counts = ratio.denominator != 0
    low, high = _bootstrap((ratio.numerator[counts], ratio.denominator[counts]), _ratio_of_sums, seed=seed)
    return Measure(ratio.value, low, high, ratio.num_units)


def paired_difference(one: Ratio, other: Ratio, *, seed: int) -> Measure | None:
    """`one` minus `other` with its paired bootstrap interval: both are resampled by the same prompts or rows.

    None where either side has fewer than MIN_UNITS observations.
    """
    if min(one.num_units, other.num_units) < MIN_UNITS:
        return None
    samples = (one.numerator, one.denominator, other.numerator, other.denominator)
    low, high = _bootstrap(samples, _difference_of_ratios, seed=seed)
    return Measure(one.value - other.value, low, high, min(one.num_units, other.num_units))


def shifted(measure: Measure, by: float) -> Measure:
    """The measure minus a constant."""
    return Measure(measure.value - by, measure.low - by, measure.high - by, measure.n)


def jackknifed(
    rows: Sequence[T], statistic: Callable[[Sequence[T]], float], *, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Measure:
    """A statistic of a whole set of answers, with a delete-a-group jackknife interval (Quenouille 1956) in `bounds`.

    Diversity shrinks when answers are drawn with replacement, so a bootstrap would measure its own repetitions.
    """
    if len(rows) < 2:
        return not_measured() if not rows else Measure(statistic(rows), math.nan, math.nan, len(rows))
    return _jackknife(statistic(rows), [statistic(part) for part in _parts(rows)], len(rows), bounds)


def jackknifed_all(
    rows: Sequence[T],
    statistics: Callable[[Sequence[T]], Mapping[str, float]],
    *,
    bounds: Mapping[str, tuple[float, float]],
) -> dict[str, Measure]:
    """The same for several statistics that are computed together, by name; one that some part lacks is left out."""
    if len(rows) < 2:
        return {}
    parts = [statistics(part) for part in _parts(rows)]
    return {
        name: _jackknife(value, [part[name] for part in parts], len(rows), bounds.get(name, (-math.inf, math.inf)))
        for name, value in statistics(rows).items()
        if all(name in part for part in parts)
    }


def _parts(rows: Sequence[T]) -> list[list[T]]:
    """The rows without each of the groups in turn."""
    num_groups = min(NUM_GROUPS, len(rows))
    return [[row for i, row in enumerate(rows) if i % num_groups != g] for g in range(num_groups)]


def _jackknife(value: float, without: Sequence[float], n: int, bounds: tuple[float, float]) -> Measure:
    num_groups = len(without)
    mean = sum(without) / num_groups
    error = math.sqrt((num_groups - 1) / num_groups * sum((w - mean) ** 2 for w in without))
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, num_groups - 1)) * error
    return Measure(value, max(value - reach, bounds[0]), min(value + reach, bounds[1]), n)


def _ratio_of_sums(numerator: Array, denominator: Array, axis: int = -1) -> Array:
    return _divide(numerator.sum(axis=axis), denominator.sum(axis=axis))


def _difference_of_ratios(a: Array, b: Array, c: Array, d: Array, axis: int = -1) -> Array:
    return _divide(a.sum(axis=axis), b.sum(axis=axis)) - _divide(c.sum(axis=axis), d.sum(axis=axis))


def _divide(top: Array, bottom: Array) -> Array:
    return top / np.maximum(bottom, np.finfo(np.float64).tiny)


def _bootstrap(samples: tuple[Array, ...], statistic: Callable[..., Array], *, seed: int) -> tuple[float, float]:
    """The BCa interval, or the percentile interval where BCa is undefined (every resample on one side)."""
    if len(samples[0]) < 2 or not all(np.isfinite(s).all() for s in samples):
        return math.nan, math.nan
    # Any: scipy ships no types.
    arguments: dict[str, Any] = {
        "data": samples,
        "statistic": statistic,
        "n_resamples": NUM_RESAMPLES,
        "confidence_level": LEVEL,
        "paired": True,
        "vectorized": True,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)
        result = stats.bootstrap(**arguments, method="BCa", rng=np.random.default_rng(seed))
    low, high = float(result.confidence_interval.low), float(result.confidence_interval.high)
    if math.isfinite(low) and math.isfinite(high):
        return low, high
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(result.bootstrap_distribution, [tail, 1 - tail])
    return float(low), float(high)
