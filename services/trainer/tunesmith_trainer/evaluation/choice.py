"""Choosing among many: which cell of a grid is best, and whether it is clearly so.

Comparing many cells finds a "best" one in pure noise. So all pairs of competing cells are tested together: paired
bootstrap over the common prompts or rows (one resampling for all cells), two-sided p-values from its standard errors,
corrected by Holm's method (Holm 1979, Scandinavian Journal of Statistics 6), which keeps the chance of calling any two
equal cells different at 5 %, whatever is compared afterwards, the best one included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import stats

from tunesmith.domain.models import Measure
from tunesmith_trainer.evaluation.confidence import MIN_UNITS, Array, Ratio

ALPHA = 0.05
NUM_RESAMPLES = 4_000
"""For a standard error: its Monte Carlo error is then about 1 %."""
_CHUNK = 500
"""Resamples drawn at once, to bound memory: 500 x rows counts."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome among competing cells, by their position."""

    best: int
    second: int | None
    differences: dict[int, Measure]
    """The best one's value minus that of each other one, with simultaneous intervals."""
    p_values: dict[int, float]
    """Of each other one against the best, corrected."""

    def beats(self, other: int) -> bool:
        """Whether the best one is clearly better."""
        return self.p_values.get(other, 1.0) < ALPHA


def choose(
    ratios: Sequence[Ratio],
    *,
    better: Literal["higher", "lower"],
    default: int | None,
    losses: Sequence[float],
    seed: int,
) -> Choice:
    """The best of `ratios`, paired by position; equal values go to `default`, then to the lowest of `losses`.

    Cells with fewer than MIN_UNITS observations come last and are told apart from none.
    """
    assert ratios, "there is something to choose among"
    sign = 1.0 if better == "higher" else -1.0
    usable = [ratio.num_units >= MIN_UNITS for ratio in ratios]
    order = sorted(
        range(len(ratios)),
        key=lambda i: (not usable[i], -sign * ratios[i].value if usable[i] else 0.0, i != default, losses[i], i),
    )
    best = order[0]
    pairs = [(i, j) for i, j in combinations(range(len(ratios)), 2) if usable[i] and usable[j]]
    if not pairs:
        return Choice(best, order[1] if len(order) > 1 else None, {}, {})
    errors = standard_errors(ratios, pairs, seed=seed)
    gaps = np.asarray([ratios[i].value - ratios[j].value for i, j in pairs])
    corrected = holm(p_values(gaps, errors))
    reach = float(stats.norm.ppf(1 - ALPHA / (2 * len(pairs))))
    differences, corrected_of = {}, {}
    for (i, j), gap, error, p in zip(pairs, gaps, errors, corrected, strict=True):
        if best not in (i, j):
            continue
        other = j if i == best else i
        value = float(gap if i == best else -gap)
        n = min(ratios[i].num_units, ratios[j].num_units)
        differences[other] = Measure(value, value - reach * float(error), value + reach * float(error), n)
        corrected_of[other] = float(p)
    return Choice(best, order[1], differences, corrected_of)


def standard_errors(ratios: Sequence[Ratio], pairs: Sequence[tuple[int, int]], *, seed: int) -> Array:
    """Bootstrap standard error of the difference of each pair; all resampled by the same prompts or rows."""
    tops = np.stack([ratio.numerator for ratio in ratios], axis=1)
    bottoms = np.stack([ratio.denominator for ratio in ratios], axis=1)
    num_rows = tops.shape[0]
    rng = np.random.default_rng(seed)
    values = []
    for start in range(0, NUM_RESAMPLES, _CHUNK):
        size = min(_CHUNK, NUM_RESAMPLES - start)
        counts = rng.multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=size).astype(np.float64)
        below = counts @ bottoms
        values.append(np.divide(counts @ tops, below, out=np.full_like(below, np.nan), where=below != 0))
    resampled = np.concatenate(values)
    left, right = (np.asarray(side) for side in zip(*pairs, strict=True))
    errors: Array = np.nanstd(resampled[:, left] - resampled[:, right], axis=0, ddof=1)
    return errors


def p_values(gaps: Array, errors: Array) -> Array:
    """Two-sided p-values of no difference. Without any spread, equal values have 1 and different ones 0."""
    spread = errors > 1e-12
    scores = np.divide(np.abs(gaps), errors, out=np.zeros_like(gaps), where=spread)
    found: Array = np.where(spread, 2 * stats.norm.sf(scores), np.where(np.abs(gaps) > 1e-12, 0.0, 1.0))
    return found


def holm(values: Array) -> Array:
    """p-values corrected by Holm's step-down method: below alpha with a family-wise error of at most alpha."""
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected
