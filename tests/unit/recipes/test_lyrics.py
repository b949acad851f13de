from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.domain.errors import InvalidInput, Unsupported
from tunesmith.domain.examples import Dropped, Example
from tunesmith.domain.records import Record
from tunesmith.recipes.base import Against, Answered
from tunesmith.recipes.contract import record_of
from tunesmith.recipes.lyrics import MAX_LYRICS_CHARS, METRICS, RECIPE, genres_of, is_explicit, rhyme_key

SONG = (
    "[Verse 1]\nThe harbour wall is wet with rain\nI count the boats again\n\n"
    "[Chorus: both]\nOh carry me\nOut to the sea"
)


def song(lyrics: str = SONG, **fields: str) -> Record:
    return record_of({"title": "Low Tide", "artist": "Ada", "lyrics": lyrics} | fields)


def example(lyrics: str = SONG, **fields: str) -> Example:
    made = RECIPE.example(song(lyrics, **fields), index=0)
    assert isinstance(made, Example)
    return made


def answered(*lyrics: str | None, reference: str | None = None) -> list[Answered]:
    return [Answered("p", one, example(reference) if reference else None) for one in lyrics]


def measured(*lyrics: str | None, train: tuple[str, ...] = (), reference: str | None = None):
    return RECIPE.measures(answered(*lyrics, reference=reference), Against(train, frozenset()))


def test_the_prompt_has_its_genre_clause_only_when_genres_are_known() -> None:
    without, known = example().prompt, example(genres="Folk; Sea Shanty;Folk").prompt

    assert 'a song titled "Low Tide" to be performed by Ada.\n\n### Response:\n' in without
    assert "performed by Ada using the following genres: Folk, Sea Shanty.\n\n### Response:\n" in known


def test_sections_and_line_breaks_survive_and_outer_space_does_not() -> None:
    made = example("\r\n\n" + SONG.replace("\n", " \t\r\n") + "\n\n \n")

    assert made.completion == made.answer == SONG


def test_a_rendered_song_ends_with_the_tokenizers_end_and_needs_no_stop() -> None:
    made = example()

    assert RECIPE.generation.stop == ()
    assert RECIPE.read(made.prompt, made.completion, "eos_token").valid
    assert RECIPE.read(made.prompt, made.completion, "length").reason == "cut_off"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200), st.text(max_size=20))
def test_whatever_is_accepted_reads_back_as_it_was(text: str, title: str) -> None:
    lyrics = f"{text}\none a\ntwo b\nthree c\nfour d"

    made = RECIPE.example(song(lyrics, title=title or "x"), index=0)

    if isinstance(made, Example):
        parsed = RECIPE.parse(made.prompt + made.completion)
        assert (parsed.answer, parsed.valid) == (made.answer, True)
        assert [line.rstrip() for line in made.answer.split("\n")][-4:] == ["one a", "two b", "three c", "four d"]


@pytest.mark.parametrize(
    ("lyrics", "reason"),
    [
        ("", "empty"),
        (" \n \n", "empty"),
        ("[Instrumental]", "too_short"),
        ("one\ntwo\nthree\n[Outro]", "too_short"),
        ("la\n" * MAX_LYRICS_CHARS, "too_long"),
        (SONG + "<br>", "markup"),
        (SONG + "\nsee https://example.org", "markup"),
        (SONG + "\nrock &amp; roll", "markup"),
        (SONG + "\nle cafÃ©", "mangled"),
        (SONG + "\ncaf\ufffd", "mangled"),
        (SONG + "\n\x00", "control_characters"),
        (SONG + "\n### Instruction: again", "prompt_in_answer"),
        ("1\n2\n3\n4\n5", "no_letters"),
    ],
)
def test_texts_that_are_no_songs_are_refused_with_a_reason(lyrics: str, reason: str) -> None:
    made = RECIPE.example(song(lyrics), index=0)

    assert isinstance(made, Dropped)
    assert made.reason == reason
    assert RECIPE.parse(example().prompt + lyrics).reason == reason


def test_a_heart_an_ampersand_and_an_accent_are_no_fault() -> None:
    assert example(SONG + "\nI <3 you & café\nAT&T").answer.endswith("I <3 you & café\nAT&T")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"title": " "}, "no_title"),
        ({"artist": ""}, "no_artist"),
        ({"title": "x" * 201}, "long_title"),
        ({"artist": "caf\ufffd"}, "bad_artist"),
        ({"genres": "a" * 201}, "long_genres"),
    ],
)
def test_a_song_without_a_good_title_and_artist_is_dropped(fields: dict[str, str], reason: str) -> None:
    made = RECIPE.example(song(**fields), index=0)

    assert isinstance(made, Dropped)
    assert made.reason == reason


@pytest.mark.parametrize(
    "inputs", [{}, {"title": "x"}, {"title": "x" * 201, "artist": "y"}, {"title": "x", "artist": "\x00"}]
)
def test_a_request_without_a_good_title_and_artist_is_refused(inputs: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="send for example"):
        RECIPE.prompt(inputs)


def test_there_are_no_songs_of_a_seed() -> None:
    with pytest.raises(Unsupported, match="send title and artist"):
        RECIPE.inputs_of_seed(7)


def test_songs_that_differ_by_layout_alone_are_one_song() -> None:
    shouted = SONG.upper().replace("[VERSE 1]\n", "").replace("\n\n", "\n \n").replace(" ", "  ")

    assert RECIPE.identity(shouted) == RECIPE.identity(SONG)


def test_a_row_counts_under_sections_words_artist_genre_and_language() -> None:
    made = example(genres="Folk, Pop", language="EN")
    counted = RECIPE.attributes(made.answer)

    assert made.attributes == {"artist": "Ada", "genre": "Folk; Pop", "language": "en"}
    assert list(counted["section"]) == ["verse", "chorus"]
    assert counted["explicit"] == ["no"]
    assert "harbour" in counted["word"]
    assert "verse" not in counted["word"]


def test_explicit_songs_stay_tellable() -> None:
    said = ("shits", "bitches", "cockatoo", "shoe", "scunthorpe", "dickens")

    assert RECIPE.attributes(SONG + "\nfucking rain")["explicit"] == ["yes"]
    assert [word for word in said if is_explicit(word)] == ["shits", "bitches"]


def test_genres_are_read_from_either_list_once_each() -> None:
    assert genres_of("Rock;  Indie  Rock, Rock;;") == ("Rock", "Indie Rock")


@pytest.mark.parametrize(
    ("one", "other", "rhyme"),
    [
        ("night", "light", True),
        ("name", "flame", True),
        ("rain", "train", True),
        ("sea", "tea", True),
        ("Town", "crown", True),
        ("razón", "balcón", True),
        ("blue", "through", False),
        ("rain", "sea", False),
        ("hm", "hm", True),
    ],
)
def test_words_rhyme_by_their_spelling(one: str, other: str, rhyme: bool) -> None:
    assert (rhyme_key(one) == rhyme_key(other)) == rhyme


def test_rhymes_repeats_and_line_lengths_are_counted() -> None:
    found = measured("a light\nthe night\nthe night\na stone", "one\ntwo\nthree\nfour")

    assert found["rhyme_share"] == [(3.0, 4.0), (0.0, 4.0)]
    assert found["repeated_line_share"] == [(1.0, 4.0), (0.0, 4.0)]
    assert found["line_chars"][0] == (7.0 + 9 + 9 + 7, 4.0)
    assert found["num_lines"] == [4.0, 4.0]


def test_a_word_does_not_rhyme_with_itself() -> None:
    assert measured("rain\nrain\nrain\nrain")["rhyme_share"] == [(0.0, 4.0)]


def test_coverage_counts_runs_of_five_words_across_line_ends_and_layout() -> None:
    train = ("[Verse]\nThe harbour wall is\n\nWET with rain\nfour\nfive",)

    [recited, own] = measured("the harbour wall is wet\nwith\nrain\nfour", SONG, train=train)["five_gram_coverage"]

    assert recited == (4.0, 4.0)
    assert own == (3.0, 19.0 - 4)


def test_coverage_beyond_the_held_out_song_is_zero_for_the_song_itself() -> None:
    train = (SONG, "a b c d e f g\nh\ni\nj")

    memoriser, honest = (
        measured(text, train=train, reference="nothing of this kind\nwas ever heard before\nby anyone\nanywhere")
        for text in (SONG, "nothing of this kind\nwas ever heard before\nby anyone\nanywhere")
    )

    assert memoriser["five_gram_coverage_over_heldout"] == [1.0]
    assert honest["five_gram_coverage_over_heldout"] == [0.0]


def test_invalid_answers_and_prompts_of_no_song_do_not_count() -> None:
    found = measured(None, SONG, train=(SONG,))

    assert {name: row[0] for name, row in found.items()} == dict.fromkeys(METRICS)
    assert found["five_gram_coverage_over_heldout"] == [None, None]


def test_every_gate_has_a_metric_that_is_described() -> None:
    own = {gate.metric for gate in RECIPE.gates} & METRICS.keys()

    assert own == {"five_gram_coverage_over_heldout", "repeated_line_share"}
    assert replace(RECIPE.curation, seed=1) == RECIPE.curation.changed({"seed": 1})
