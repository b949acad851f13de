"""Leaks: held-out rows that a training saw are found, whichever way they came in."""

from __future__ import annotations

from planted_models import RECIPE, TEST, TEST_EXAMPLES, TRAIN, example, good, judged

from tunesmith.domain.models import Report
from tunesmith_trainer.evaluation.leaks import trained_on


def failed(report: Report) -> set[str]:
    return {gate.name for gate in report.gates if not gate.passed}


def digests(examples) -> frozenset[str]:
    return frozenset(trained_on(RECIPE, examples).decode().split())


def test_a_run_that_was_given_held_out_rows_is_refused_for_just_that() -> None:
    report = judged(good(), trained_on=digests(TEST_EXAMPLES[:3]))

    assert failed(report) == {"leak"}
    assert report.metrics["candidate"]["leaked_share"].value == 3 / len(TEST)


def test_a_dataset_whose_training_rows_hold_a_near_twin_of_a_held_out_row_is_refused() -> None:
    twin = TEST[0].replace(" ", "-").upper()

    report = judged(good(), train_keys=[*map(RECIPE.identity, TRAIN), RECIPE.identity(twin)])

    assert failed(report) == {"leak"}


def test_what_a_clean_run_wrote_down_is_no_leak() -> None:
    train = [example(name, number) for number, name in enumerate(TRAIN)]

    report = judged(good(), trained_on=digests(train))

    assert failed(report) == set()
    assert report.metrics["candidate"]["leaked_share"].n == len(TEST)


def test_what_a_run_writes_down_does_not_depend_on_the_order_of_its_rows() -> None:
    assert trained_on(RECIPE, TEST_EXAMPLES) == trained_on(RECIPE, [*reversed(TEST_EXAMPLES), TEST_EXAMPLES[0]])
