"""Choosing among many cells: a planted best one is found, and noise finds none."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith_trainer.evaluation.choice import ALPHA, choose, holm, p_values, standard_errors
from tunesmith_trainer.evaluation.confidence import Ratio

NUM_CELLS = 8
NUM_PROMPTS = 200


def cells(*shares: float, seed: int, shared: float = 0.5) -> list[Ratio]:
    """Answers that count with these probabilities; prompts that are hard for one cell tend to be hard for all."""
    rng = np.random.default_rng(seed)
    common = rng.random(NUM_PROMPTS)
    draws = [np.where(rng.random(NUM_PROMPTS) < shared, common, rng.random(NUM_PROMPTS)) for _ in shares]
    return [Ratio.of((draw < share).astype(float)) for draw, share in zip(draws, shares, strict=True)]


def chosen(ratios: list[Ratio], *, better="higher", default=None, losses=None, seed=1):
    return choose(ratios, better=better, default=default, losses=losses or [0.0] * len(ratios), seed=seed)


def test_equal_cells_have_no_winner() -> None:
    """A/A: the chance of telling any cell from the best one must not exceed 5 %, with some room for 100 rounds."""
    rounds = 100
    found = 0
    for number in range(rounds):
        choice = chosen(cells(*[0.6] * NUM_CELLS, seed=number))
        found += any(choice.beats(other) for other in range(NUM_CELLS) if other != choice.best)

    assert found <= rounds * ALPHA * 2


def test_without_correction_equal_cells_would_have_many_winners() -> None:
    """What the correction is for: the same rounds, each best cell against each other one at 5 %."""
    rounds = 100
    found = 0
    for number in range(rounds):
        ratios = cells(*[0.6] * NUM_CELLS, seed=number)
        best = max(range(NUM_CELLS), key=lambda i: ratios[i].value)
        pairs = [(best, other) for other in range(NUM_CELLS) if other != best]
        gaps = np.asarray([ratios[i].value - ratios[j].value for i, j in pairs])
        found += bool((p_values(gaps, standard_errors(ratios, pairs, seed=1)) < ALPHA).any())

    assert found > rounds * 0.3


def test_a_planted_best_cell_is_clearly_better_than_all_others() -> None:
    choice = chosen(cells(0.5, 0.55, 0.9, 0.5, 0.6, seed=3))

    assert choice.best == 2
    assert all(choice.beats(other) for other in (0, 1, 3, 4))
    assert all(choice.differences[other].low > 0 for other in (0, 1, 3, 4))


def test_lower_is_better_where_the_metric_says_so() -> None:
    choice = chosen(cells(0.5, 0.1, 0.6, seed=3), better="lower")

    assert choice.best == 1
    assert choice.beats(0)
    assert choice.differences[0].high < 0


def test_two_good_cells_are_not_told_apart_but_both_from_the_bad_ones() -> None:
    choice = chosen(cells(0.9, 0.89, 0.3, 0.3, seed=4))

    assert {choice.best, choice.second} == {0, 1}
    assert not choice.beats(choice.second)
    assert choice.beats(2)
    assert choice.beats(3)


def test_equal_values_go_to_the_default_then_to_the_lower_loss() -> None:
    same = Ratio.of([1.0, 0.0] * 30)

    assert chosen([same] * 3, default=2).best == 2
    assert chosen([same] * 3, losses=[2.0, 1.0, 3.0]).best == 1
    assert chosen([same] * 3).p_values == {1: 1.0, 2: 1.0}


def test_pairing_sees_what_intervals_of_each_cell_would_not() -> None:
    rng = np.random.default_rng(1)
    level = rng.normal(3, 1, NUM_PROMPTS)
    one, other = Ratio.of(level), Ratio.of(level - 0.05 + rng.normal(0, 0.05, NUM_PROMPTS))

    choice = chosen([one, other], better="lower")

    assert choice.best == 1
    assert choice.beats(0)


def test_cells_with_too_few_answers_come_last_and_are_told_apart_from_none() -> None:
    few = Ratio.of([1.0] * 5 + [0.0] * 95, [1.0] * 5 + [0.0] * 95)

    choice = chosen([few, Ratio.of([0.0, 1.0] * 50)])

    assert choice.best == 1
    assert choice.differences == {}
    assert not choice.beats(0)


def test_a_single_cell_is_the_best_of_itself() -> None:
    choice = chosen(cells(0.5, seed=1))

    assert (choice.best, choice.second, choice.p_values) == (0, None, {})


def test_the_same_cells_give_the_same_numbers() -> None:
    ratios = cells(0.5, 0.6, 0.7, seed=9)

    assert chosen(ratios) == chosen(ratios)


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        # The example of the method's description: each times the number of hypotheses left, never falling.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02], [0.02]),
    ],
)
def test_holm_multiplies_by_what_is_left_and_never_falls(given: list[float], corrected: list[float]) -> None:
    assert holm(np.asarray(given)) == pytest.approx(corrected)


def test_the_standard_error_is_that_of_paired_differences() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(0, 1, 400), rng.normal(0, 2, 400)

    [error] = standard_errors([Ratio.of(a), Ratio.of(b)], [(0, 1)], seed=1)

    assert error == pytest.approx((a - b).std(ddof=1) / 20, rel=0.05)
