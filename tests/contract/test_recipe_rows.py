"""Every recipe against realistic rows: its own sample, and rows that hypothesis makes in the shape of real ones."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator, Mapping
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.domain.examples import Example
from tunesmith.domain.records import Record
from tunesmith.recipes import SHIPPED
from tunesmith.recipes.base import CUT_OFF, Against, Answered, Recipe
from tunesmith.recipes.chat import END_OF_TURN
from tunesmith.recipes.contract import record_of, rendering_problem, watched

SAMPLES = {
    "micro_genre": ("genres", {"name": "name"}),
    "playlist": ("playlists", {"title": "title", "prompt": "prompt", "reply": "reply"}),
    "lyrics": ("lyrics", {"title": "SName", "lyrics": "Lyric", "artist": "ALink", "language": "language"}),
}
"""CSV of the scraper's samples and the column of each field; video_tags' sample is made of media."""

line = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20)
sentence = st.lists(line, min_size=1, max_size=6).map(" ".join)
song_line = st.tuples(sentence, sentence, sentence).map(lambda s: f"{s[0]} — {s[1]}: {s[2]}")


def playlist_reply(title: str, opening: str, songs: list[str], closing: str) -> str:
    numbered = [f"{number}. {song}" for number, song in enumerate(songs, start=1)]
    return "\n".join((f"# {title}", opening, *numbered, closing))


ROWS: Mapping[str, st.SearchStrategy[dict[str, str]]] = {
    "micro_genre": st.fixed_dictionaries({"name": sentence}),
    "playlist": st.fixed_dictionaries(
        {
            "title": sentence,
            "prompt": sentence,
            "reply": st.builds(playlist_reply, sentence, sentence, st.lists(song_line, max_size=17), sentence),
        }
    ),
    "video_tags": st.fixed_dictionaries(
        {
            "media": st.just("0" * 64),
            "scene": sentence,
            "tags": st.lists(st.one_of(sentence, st.integers(10, 999).map("{} bpm".format)), max_size=25).map(
                json.dumps
            ),
        }
    ),
    "lyrics": st.fixed_dictionaries(
        {
            "title": sentence,
            "artist": sentence,
            "genres": st.lists(sentence, max_size=3).map("; ".join),
            "lyrics": st.lists(st.one_of(sentence, st.sampled_from(["", "[Chorus]", "[Verse 2]"])), max_size=30).map(
                "\n".join
            ),
        }
    ),
}
"""Rows of each recipe in the shape of real ones."""

BAD_ANSWERS: Mapping[str, Mapping[str, str]] = {
    "micro_genre": {"7-> |<stop>|": "bad_format", "a genre": "no_arrow"},
    "playlist": {
        f"{END_OF_TURN}": "empty",
        "Sure! Here are some songs.": "no_title",
        "# Rain\nIt pours.\nStay dry.": "no_songs",
        "# Rain\nIt pours.\n1. Tin — Old Petrichor: drops": "no_closing",
        "# Rain\nIt pours.\n2. Tin — Old Petrichor: drops\nBye.": "bad_numbering",
        "# Rain\nIt pours.\n1. [Insert song] — Old Petrichor: drops\nBye.": "placeholder",
        playlist_reply("Rain", "It pours.", [f"S{n} — A: r" for n in range(16)], "Bye."): "too_many_songs",
    },
    "video_tags": {
        "piano, calm, 84 bpm": "not_json",
        '{"tags": ["piano"': "not_json",
        '["piano"]': "not_an_object",
        '{"tags": []}': "no_tags",
        '{"tags": [84]}': "not_strings",
        json.dumps({"tags": [f"tag {n}" for n in range(21)]}): "too_many",
    },
    "lyrics": {"We walk home": "no_prompt", "### Response:\n": "empty"},
}
"""Texts out of format, and why each is refused."""


def sample_rows(name: str) -> Iterator[dict[str, str]]:
    file_name, columns = SAMPLES[name]
    with resources.files("tunesmith_scraper").joinpath(f"samples/{file_name}.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {field: row[column] for field, column in columns.items()}


def made(recipe: Recipe, row: Mapping[str, str]) -> Example | None:
    example = recipe.example(record_of(row), index=0)
    return example if isinstance(example, Example) else None


def sample_examples(name: str) -> list[Example]:
    return [example for row in sample_rows(name) if (example := made(SHIPPED[name], row))]


sampled = pytest.mark.parametrize("name", sorted(SAMPLES.keys() & SHIPPED.keys()))
every = pytest.mark.parametrize("name", sorted(SHIPPED))


def test_every_recipe_has_rows_and_bad_answers_here():
    assert SHIPPED.keys() <= ROWS.keys()
    assert SHIPPED.keys() <= BAD_ANSWERS.keys()


@every
@given(data=st.data())
def test_rows_in_the_shape_of_real_ones_read_back_as_they_were_written(name, data):
    record, index = record_of(data.draw(ROWS[name])), data.draw(st.integers(0, 10**9))

    assert not rendering_problem(SHIPPED[name], record, index=index)


@sampled
def test_nearly_all_rows_of_the_sample_become_examples_and_read_back(name):
    rows = list(sample_rows(name))
    problems = [problem for row in rows if (problem := rendering_problem(SHIPPED[name], record_of(row), index=0))]

    assert problems == []
    assert len(sample_examples(name)) > 0.95 * len(rows)


@every
def test_texts_out_of_format_are_refused_for_the_reason(name):
    recipe = SHIPPED[name]

    assert {text: recipe.parse(text).reason for text in BAD_ANSWERS[name]} == BAD_ANSWERS[name]


@sampled
def test_an_answer_cut_off_anywhere_is_never_valid(name):
    recipe, chance = SHIPPED[name], random.Random(4)
    for example in chance.sample(sample_examples(name), 40):
        end = chance.randrange(len(example.completion))
        cut = recipe.read(example.prompt, example.completion[:end], "length")

        assert (cut.valid, cut.reason) == (False, CUT_OFF)


@sampled
def test_damaged_answers_are_valid_or_refused_for_a_reason(name):
    recipe, chance = SHIPPED[name], random.Random(5)
    for example in chance.sample(sample_examples(name), 60):
        text = list(example.prompt + example.completion)
        for _ in range(chance.randint(1, 6)):
            text[chance.randrange(len(text))] = chance.choice('\n"{}[]:—-|<># 1a\x00')
        parsed = recipe.parse("".join(text))

        assert parsed.valid == (parsed.reason == "")
        assert parsed.reason == parsed.reason.lower()


@sampled
def test_measures_of_sample_answers_are_described_repeatable_and_touch_nothing(name):
    recipe, examples = SHIPPED[name], sample_examples(name)
    answers = [Answered(example.prompt, example.answer, example) for example in examples[:30]]
    against = Against([example.answer for example in examples[30:90]], frozenset())

    with watched() as effects:
        first = (recipe.measures(answers, against), recipe.sample_measures(answers, against))
        again = (recipe.measures(answers, against), recipe.sample_measures(answers, against))

    assert first == again
    assert set(first[0]) | set(first[1]) <= set(recipe.metrics)
    assert {len(observations) for observations in first[0].values()} <= {len(answers)}
    assert effects == []


@sampled
def test_records_of_one_content_make_one_example_whatever_else_they_hold(name):
    row = next(sample_rows(name))
    record = record_of(row)
    richer = Record.make({**record.fields, "note": "from elsewhere"}, record.provenance)

    one, other = (SHIPPED[name].example(r, index=3) for r in (record, richer))

    assert isinstance(one, Example)
    assert isinstance(other, Example)
    assert (one.prompt, one.completion, one.id) == (other.prompt, other.completion, other.id)
