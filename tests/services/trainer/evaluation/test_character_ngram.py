"""The character n-gram is a probability distribution, and a sensible one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_models import FIVE_GRAM, TEST, TRAIN

from tunesmith_trainer.evaluation.ngram import END, CharacterNgram, num_scored_chars


def bits_per_char(model: CharacterNgram, texts: list[str]) -> float:
    return sum(map(model.bits, texts)) / sum(map(num_scored_chars, texts))


def test_a_unigram_follows_the_formula_by_hand() -> None:
    model = CharacterNgram.fit(["aab"], order=1)

    # Four symbols seen (a, a, b, end), three different; below stands 1/4 for a, b, end and one unseen.
    a, b, end = (2 + 3 / 4) / 7, (1 + 3 / 4) / 7, (1 + 3 / 4) / 7
    assert model.bits("ab") == pytest.approx(-math.log2(a) - math.log2(b) - math.log2(end))


@settings(deadline=None)
@given(
    texts=st.lists(st.text("abc", max_size=6), max_size=8),
    context=st.text("abcx", max_size=6),
    order=st.integers(1, 5),
)
def test_the_next_character_has_total_probability_one(texts: list[str], context: str, order: int) -> None:
    model = CharacterNgram.fit(texts, order=order)
    symbols = {END, *"".join(texts)}

    def probability(symbol: str) -> float:
        padded = "\ufdd0" * (order - 1) + context + symbol
        return model._probability(padded, len(padded) - 1)

    assert sum(map(probability, symbols)) + probability("☃") == pytest.approx(1.0)


def test_it_reads_held_out_names_better_than_gibberish_and_than_a_unigram() -> None:
    held_out = bits_per_char(FIVE_GRAM, TEST)

    assert held_out < bits_per_char(CharacterNgram.fit(TRAIN, order=1), TEST) / 1.5
    assert held_out < bits_per_char(FIVE_GRAM, ["".join(reversed(name)) for name in TEST])


def test_an_unknown_character_costs_bits_but_not_infinitely_many() -> None:
    assert 5 < FIVE_GRAM.bits("☃") < 60


def test_fitting_stops_at_its_bound() -> None:
    assert CharacterNgram.fit(["aaaa", "bbbb"], order=2, max_chars=4) == CharacterNgram.fit(["aaaa"], order=2)
