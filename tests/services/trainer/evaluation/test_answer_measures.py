"""Measures of answers, by hand on small samples."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.domain.models import Measure
from tunesmith.recipes.micro_genre import RECIPE, STOP
from tunesmith_trainer.evaluation.answers import Answer, KnownAnswers, read_answer
from tunesmith_trainer.evaluation.judged_model import Sampled
from tunesmith_trainer.evaluation.measures import TrainingText, measure_answers, measure_loss
from tunesmith_trainer.evaluation.words import (
    compression_ratio,
    distinct_words,
    self_repeating,
    top_word,
    word_entropy,
)

TRAIN = ["deep house", "synth-pop", "free jazz", "acid house", "la bamba rock"]
KNOWN = KnownAnswers.of(RECIPE, TRAIN, ["Vaporwave"])
TRAINING = TrainingText.of(RECIPE, TRAIN, KNOWN)


def read(text: str, *, prompt: str = "7->", cut_off: bool = False) -> Answer:
    return read_answer(RECIPE, prompt, Sampled(text, "length" if cut_off else "stop_sequence", 3), KNOWN)


def measured(*texts: str) -> dict[str, Measure]:
    return measure_answers([read(f"{text}{STOP}") for text in texts], TRAINING, seed=1).measures


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (f"slow house{STOP}", "novel"),
        ("slow house", "no_stop"),
        (f"Deep House{STOP}", "known"),
        (f"synthpop{STOP}", "near_twin"),
        (f"vaporwave{STOP}", "in_catalogue"),
        (f"a | b{STOP}", "bad_format"),
        ("", "bad_format"),
    ],
)
def test_an_answer_has_a_verdict(text: str, verdict: str) -> None:
    assert read(text).verdict == verdict


def test_an_answer_cut_off_by_the_token_limit_is_invalid_whatever_it_says() -> None:
    answer = read("slow house", cut_off=True)

    assert (answer.verdict, answer.valid, answer.text) == ("cut_off", False, "slow house")


def test_shares_are_over_the_valid_answers_only() -> None:
    rows = measured("deep house", "slow house", "slow house", "synthpop", "x | y")

    assert rows["valid_share"].value == pytest.approx(4 / 5)
    assert (rows["novel_share"].value, rows["novel_share"].n) == (pytest.approx(3 / 4), 4)
    assert rows["fuzzy_novel_share"].value == pytest.approx(2 / 4)
    assert rows["distinct_share"].value == pytest.approx(3 / 4)
    assert rows["top_word_share"].value == pytest.approx(3 / 4)
    assert rows["top_word_share_over_data"].value == pytest.approx((3 / 4) / (2 / 5))


def test_without_a_valid_answer_shares_are_not_numbers() -> None:
    rows = measured("x | y", "a | b")

    assert rows["valid_share"].value == 0
    for name in ("novel_share", "distinct_share", "top_word_share", "word_entropy", "copied_chars"):
        assert math.isnan(rows[name].value)
        assert rows[name].n == 0


def test_without_any_sample_nothing_is_a_number_and_nothing_crashes() -> None:
    assert all(math.isnan(m.value) for m in measured().values())


def test_copied_spans_are_in_characters_and_as_a_share() -> None:
    rows = measured("slow house", "slow house")

    assert rows["copied_chars"].value == len(" house")
    assert rows["copied_share"].value == pytest.approx(0.6)
    assert rows["long_copy_share"].value == 0


def test_function_words_and_numbers_are_never_the_top_word() -> None:
    assert top_word([["la", "ola"], ["la", "mar"], ["80", "la"], ["mar", "mar"]]) == ("mar", 2)
    assert top_word([["the"]]) == ("", 0)


def test_even_words_have_entropy_one_and_one_word_has_none() -> None:
    assert word_entropy([["a1", "b1"], ["c1", "d1"]]) == pytest.approx(1.0)
    assert word_entropy([["rock"], ["rock"]]) == 0.0
    assert math.isnan(word_entropy([["rock"]]))


def test_distinct_words_follow_the_formula() -> None:
    # Two draws from ten words are expected to give 1.9 different ones.
    assert distinct_words([["a"], ["b"]], vocabulary_size=10) == pytest.approx(2 / 1.9)


def test_distinct_words_do_not_punish_length_as_plain_distinctness_does() -> None:
    words = random.Random(0).choices([f"w{i}" for i in range(50)], k=400)

    few, many = (distinct_words([words[:n]], vocabulary_size=50) for n in (40, 400))

    assert len(set(words[:40])) / 40 > 4 * len(set(words)) / 400
    assert (few, many) == (pytest.approx(1, abs=0.1), pytest.approx(1, abs=0.1))


def test_repetition_compresses() -> None:
    assert compression_ratio(["deep house"] * 100) > 5 * compression_ratio([f"{i * 7919}" for i in range(100)])


def test_answers_that_share_four_words_in_a_row_repeat_each_other() -> None:
    rows = ["oh my love my love", "and oh my love my dear", "something else is new"]

    assert self_repeating([row.split() for row in rows]) == [True, True, False]


def test_repeated_words_are_counted_within_an_answer() -> None:
    assert measured("rock rock rock", "jazz funk soul")["repeated_word_share"].value == pytest.approx(2 / 6)


def test_bits_per_character_count_the_end_once() -> None:
    rows = measure_loss(["ab", "c"], [-5 * math.log(2)] * 2, [-3 * math.log(2)] * 2, [4.0, 4.0], seed=1).measures

    assert rows["bits_per_char"].value == pytest.approx(10 / 5)
    assert rows["answer_bits_per_char"].value == pytest.approx(6 / 3)
    assert rows["bits_per_char_over_five_gram"].value == pytest.approx(10 / 5 - 8 / 5)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*TRAIN, "new wave", "x | y", "slow house", "the", "80"]), max_size=12))
def test_shares_lie_between_nought_and_one_and_inside_their_intervals(texts: list[str]) -> None:
    for name, measure in measured(*texts).items():
        if math.isnan(measure.value) or not name.endswith("_share"):
            continue
        assert 0 <= measure.value <= 1, name
        assert math.isnan(measure.low) or measure.low - 1e-9 <= measure.value <= measure.high + 1e-9, name
