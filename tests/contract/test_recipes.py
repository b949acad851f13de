"""Every recipe against the same rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.domain.errors import InvalidInput, UnknownRecipe
from tunesmith.domain.examples import Dropped, Example
from tunesmith.domain.records import Licence, Provenance, Record
from tunesmith.recipes import SHIPPED, recipe_named
from tunesmith.recipes.base import Recipe
from tunesmith.recipes.contract import (
    CHECKS,
    check_recipe,
    identity_problem,
    parsing_problem,
    record_of,
    rendering_problem,
)
from tunesmith_trainer.evaluation.metrics import METRIC_DESCRIPTIONS

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
    "lyrics": (
        {"title": "Low  Tide", "artist": "Ada & the Ebb", "genres": "Folk;Indie Folk"},
        "### Instruction: You are a creative, world-famous expert lyricist. Write lyrics for a song, given just a "
        "title, artist name, possible genres, and any additional information provided.\n\n### Input:\n"
        'Write lyrics for a song titled "Low Tide" to be performed by Ada & the Ebb using the following genres: '
        "Folk, Indie Folk.\n\n### Response:\n",
    ),
    "playlist": (
        {"prompt": "rainy day, stuck inside"},
        "<|im_start|>system\nYou make playlists. Give a title, a line that meets the mood, at most 15 songs with a "
        "short reason each, and a kind last line.<|im_end|>\n<|im_start|>user\nrainy day, stuck inside<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
}
"""Prompts that trained models depend on; a change here orphans every adapter."""

SAMPLE_ROWS = {
    "micro_genre": [{"name": "deep house"}, {"name": "Nordic folk metal"}],
    "video_tags": [{"media": "0" * 64, "scene": "A bright lake.", "tags": '["airy pads", "piano", "96 bpm"]'}],
    "lyrics": [{"title": "Low Tide", "artist": "Ada", "lyrics": "[Verse]\nOne\nTwo\n\n[Chorus]\nThree \nFour"}],
    "playlist": [
        {
            "title": "Wet Glass",
            "prompt": "rainy day, stuck inside",
            "reply": "# Wet Glass\nLet it pour.\n1. Roof of Tin — Old Petrichor: slow, steady drops\nStay dry.",
        }
    ],
}
"""Fields of records as each recipe curates them."""

texts = st.text(max_size=80)


@pytest.fixture(params=sorted(SHIPPED))
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return SHIPPED[request.param]


@given(text=texts, index=st.integers(0, 10**6))
@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_what_a_recipe_renders_it_can_parse(name, text, index):
    recipe = SHIPPED[name]

    assert not rendering_problem(recipe, record_of(dict.fromkeys(recipe.record_fields, text)), index=index)


@given(text=texts)
@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_any_text_is_parsed_and_bad_text_has_a_reason(name, text):
    assert not parsing_problem(SHIPPED[name], text)


@given(text=texts)
@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_an_identity_is_its_own_identity(name, text):
    assert not identity_problem(SHIPPED[name], text)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_recipe_keeps_every_rule(name):
    results = {
        result.name: result
        for result in check_recipe(SHIPPED[name], rows=SAMPLE_ROWS.get(name, []), shared_metrics=METRIC_DESCRIPTIONS)
    }

    assert {name: result.problems for name, result in results.items() if result.problems} == {}
    assert list(results) == list(CHECKS)


def test_prompts_are_what_they_were(recipe):
    inputs, prompt = GOLDEN_PROMPTS[recipe.name]

    assert recipe.prompt(inputs) == prompt


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
    with pytest.raises(UnknownRecipe, match="known recipes: lyrics, micro_genre"):
        recipe_named("micro-genre")
