"""Longest copied spans against the plain definition."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_models import NAMES

from tunesmith_trainer.evaluation.copying import ROWS_BETWEEN_CHECKS, longest_copied_spans

WORDS = st.text("ab\x00é", max_size=12)


def longest_by_definition(answer: str, rows: list[str]) -> int:
    spans = (answer[i:j] for i in range(len(answer)) for j in range(i + 1, len(answer) + 1))
    return max((len(span) for span in spans if any(span in row for row in rows)), default=0)


@settings(deadline=None)
@given(answers=st.lists(WORDS, max_size=5), rows=st.lists(WORDS, max_size=5))
def test_spans_are_those_of_the_definition(answers: list[str], rows: list[str]) -> None:
    assert longest_copied_spans(answers, rows) == [longest_by_definition(answer, rows) for answer in answers]


def test_a_span_does_not_run_from_one_row_into_the_next() -> None:
    assert longest_copied_spans(["deep house"], ["deep ", "house"]) == [5]


def test_a_hundred_thousand_rows_take_seconds() -> None:
    rows = [f"{NAMES[i % len(NAMES)]} {i}" for i in range(100_000)]

    started = time.process_time()
    longest_copied_spans(NAMES[:500], rows)

    assert time.process_time() - started < 10


def test_the_check_may_stop_the_search() -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        longest_copied_spans(["a"], ["b"] * (2 * ROWS_BETWEEN_CHECKS), check=check)
