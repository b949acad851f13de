"""Every recipe against the same rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.domain.errors import InvalidInput, UnknownRecipe
from tunesmith.domain.examples import Dropped, Example
from tunesmith.domain.records import Licence, Provenance, Record
from tunesmith.recipes import RECIPES, recipe_named
from tunesmith.recipes.base import Recipe

PROVENANCE = Provenance("test", "test:", "test:", Licence("CC0-1.0"), "2026-01-01T00:00:00Z", "0" * 64)

GOLDEN_PROMPTS = {
    "micro_genre": ({"seed": "7"}, "7->"),
    "video_tags": (
        {"scene": "A dark  picture."},
        "<|im_start|>system\nYou choose background music for videos. Read what the video shows and answer with one "
        'JSON object of the form {"tags": ["...", "..."]}: at most 20 short tags of instruments, sound, mood and style '
        'that fit the pictures, and the tempo last, such as "96 bpm".<|im_end|>\n'
        "<|im_start|>user\nA dark picture.<|im_end|>\n<|im_start|>assistant\n",
    ),
}
"""Prompts that trained models depend on; a change here orphans every adapter."""

texts = st.text(max_size=80)


@pytest.fixture(params=sorted(RECIPES))
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return RECIPES[request.param]


@given(text=texts, index=st.integers(0, 10**6))
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_what_a_recipe_renders_it_can_parse(name, text, index):
    recipe = RECIPES[name]
    record = Record.make(dict.fromkeys(recipe.record_fields, text), PROVENANCE)

    made = recipe.example(record, index=index)

    if isinstance(made, Dropped):
        assert made.reason.isidentifier()
        assert made.reason == made.reason.lower()
        return
    parsed = recipe.parse(made.prompt + made.completion)
    assert (parsed.answer, parsed.valid, parsed.reason) == (made.answer, True, "")
    assert made.record_ids == (record.id,)


@given(text=texts)
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_any_text_is_parsed_and_bad_text_has_a_reason(name, text):
    parsed = RECIPES[name].parse(text)

    assert parsed.valid == (parsed.reason == "")


@given(text=texts)
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_an_identity_is_its_own_identity(name, text):
    recipe = RECIPES[name]

    assert recipe.identity(recipe.identity(text)) == recipe.identity(text)


def test_the_same_record_gives_the_same_example(recipe):
    record = Record.make(dict.fromkeys(recipe.record_fields, "deep house"), PROVENANCE)

    assert recipe.example(record, index=3) == recipe.example(record, index=3)


def test_prompts_are_what_they_were(recipe):
    inputs, prompt = GOLDEN_PROMPTS[recipe.name]

    assert recipe.prompt(inputs) == prompt


def test_gates_have_names_of_their_own_and_reasons(recipe):
    names = [gate.name for gate in recipe.gates]

    assert len(names) == len(set(names))
    assert all(gate.why for gate in recipe.gates)


def test_defaults_are_within_their_own_ranges(recipe):
    recipe.training.check()
    assert recipe.curation.changed({}) == recipe.curation


@pytest.mark.parametrize(
    ("text", "answer", "valid"),
    [
        ("1->genre", "genre", True),
        ("4->musical genre|<stop>|", "musical genre", True),
        ("4->musical genre|<stop>||<stop>|", "musical genre", True),
        ("1- genre", "1- genre", False),
        ("1. genre", "1. genre", False),
        ("genre", "genre", False),
        ("5, genre", "genre", False),
        ("3->a|<sto", "a|<sto", False),
        ("4->a|<stop>|5->b|<stop>|", "a|<stop>|5->b", False),
        ("4->two\nlines|<stop>|", "two\nlines", False),
        ("", "", False),
    ],
)
def test_micro_genres_are_parsed_as_their_users_know_it(text, answer, valid):
    parsed = recipe_named("micro_genre").parse(text)

    assert (parsed.answer, parsed.valid) == (answer, valid)


@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [
        ("musical genre|<stop>|", "stop_sequence", ""),
        ("musical genre", "eos_token", "no_stop"),
        ("musical gen", "length", "cut_off"),
        (" ", "eos_token", "bad_format"),
    ],
)
def test_a_generation_is_valid_only_when_it_reached_its_trained_end(text, finish_reason, reason):
    parsed = recipe_named("micro_genre").read("4->", text, finish_reason)

    assert (parsed.valid, parsed.reason) == (not reason, reason)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("x" * 61, "too_long"),
        ("<b>house</b>", "markup"),
        ("see https://example.org", "markup"),
        ("a -> b".replace(" ", ""), "markup"),
        ("1234", "no_letters"),
        ("two\nlines", "control_characters"),
    ],
)
def test_rows_that_are_no_names_are_dropped_with_a_reason(name, reason):
    record = Record.make({"name": name}, PROVENANCE)

    made = recipe_named("micro_genre").example(record, index=0)

    assert isinstance(made, Dropped)
    assert made.reason == reason


def test_a_name_is_lower_case_with_single_spaces():
    made = recipe_named("micro_genre").example(Record.make({"name": "  Deep   HOUSE "}, PROVENANCE), index=1002)

    assert isinstance(made, Example)
    assert (made.prompt, made.completion) == ("2->", "deep house|<stop>|")


@pytest.mark.parametrize("seed", ["", "x", "-1", "1" * 20, "٣"])
def test_a_seed_that_is_no_number_is_refused(seed):
    with pytest.raises(InvalidInput, match="send for example seed=7"):
        recipe_named("micro_genre").prompt({"seed": seed})


def test_an_unknown_recipe_lists_the_known():
    with pytest.raises(UnknownRecipe, match="known recipes: micro_genre"):
        recipe_named("micro-genre")
