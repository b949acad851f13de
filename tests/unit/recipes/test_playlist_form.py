"""The playlist form: what is written reads back the same, and everything else is refused for a reason."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tunesmith.recipes.playlist_form import (
    MAX_SONGS,
    NotThisForm,
    Playlist,
    Song,
    one_line,
    playlist_of,
    read_playlist,
    song_identity,
    text_of,
)

GOOD = """# Slow Rain Kitchen
Grey days ask for gentle company.
1. Umbrella for One — Coraline Dusk: brushed jazz and wet cobbles
2. Puddle Atlas — Fenwick and Rue: folk duo: one coat — two heads
Put the kettle on and stay dry."""

SONG = Song("Moss on the Radio", "Elin Sandwater", "harp and slow breath")


def test_every_part_of_a_reply_is_read() -> None:
    playlist = read_playlist(GOOD)

    assert playlist.title == "Slow Rain Kitchen"
    assert playlist.opening == "Grey days ask for gentle company."
    assert playlist.songs[1] == Song("Puddle Atlas", "Fenwick and Rue", "folk duo: one coat — two heads")
    assert playlist.closing == "Put the kettle on and stay dry."
    assert text_of(playlist) == GOOD


def test_blank_lines_and_outer_space_are_forgiven() -> None:
    assert text_of(read_playlist("\n" + GOOD.replace("\n", "  \n\n ") + "\n\n")) == GOOD


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (GOOD.removeprefix("# "), "no_title"),
        ("# A\nB\nC", "no_songs"),
        (GOOD.replace("Grey days ask for gentle company.\n", ""), "no_opening"),
        (GOOD.replace("company.\n", "company.\nAnd more.\n"), "bad_opening"),
        (GOOD.removesuffix("\nPut the kettle on and stay dry."), "no_closing"),
        (GOOD + "\nAnd more.", "bad_closing"),
        (GOOD.replace(" — Fenwick and Rue", ""), "bad_song_line"),
        (GOOD.replace("2. ", "3. "), "bad_numbering"),
        (GOOD.replace("Puddle Atlas", "[Insert Song]"), "placeholder"),
        (GOOD.replace("Puddle Atlas", "Song Title"), "placeholder"),
        (GOOD.replace("Fenwick and Rue", "Artist 2"), "placeholder"),
        (GOOD.replace("Fenwick and Rue", "Various Artists"), "placeholder"),
        (GOOD.replace("Slow Rain Kitchen", "{playlist_title}"), "placeholder"),
        (GOOD.replace("brushed jazz", "x" * 201), "long_reason"),
    ],
)
def test_text_out_of_form_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(NotThisForm) as refused:
        read_playlist(text)

    assert refused.value.reason == reason


def test_fifteen_songs_are_the_most() -> None:
    assert len(playlist_of("A", "B", [SONG] * MAX_SONGS, "C").songs) == 15
    with pytest.raises(NotThisForm, match="too_many_songs: 16 songs, limit 15"):
        playlist_of("A", "B", [SONG] * (MAX_SONGS + 1), "C")


@pytest.mark.parametrize("name", ["Song for Ada", "The Unknown Road", "Title Fight Song"])
def test_names_that_only_look_like_placeholders_stay(name: str) -> None:
    assert playlist_of("A", "B", [Song(name, "Elin Sandwater", "slow")], "C").songs[0].title == name


def test_songs_are_the_same_whatever_their_case_and_punctuation() -> None:
    assert song_identity("Don't  Stop!", "AC/DC") == song_identity("don’t stop", "ac dc")
    assert song_identity("Moss", "Elin") != song_identity("Elin", "Moss")


TEXT = st.text(min_size=1, max_size=60)


def made(title: str, opening: str, songs: list[tuple[str, str, str]], closing: str) -> Playlist | None:
    try:
        return playlist_of(title, opening, (Song(*song) for song in songs), closing)
    except NotThisForm:
        return None


@given(title=TEXT, opening=TEXT, closing=TEXT, songs=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=17))
def test_whatever_can_be_a_playlist_reads_back_the_same(
    title: str, opening: str, closing: str, songs: list[tuple[str, str, str]]
) -> None:
    playlist = made(title, opening, songs, closing)
    assume(playlist is not None)

    assert read_playlist(text_of(playlist)) == playlist


HARD = st.text(alphabet=" —-:.#1)2[<|im>\n\x00ab", min_size=1, max_size=12).map(lambda text: f"a{text}b")


@given(title=HARD, opening=HARD, closing=HARD, songs=st.lists(st.tuples(HARD, HARD, HARD), min_size=1, max_size=4))
def test_texts_full_of_the_forms_own_marks_read_back_the_same(
    title: str, opening: str, closing: str, songs: list[tuple[str, str, str]]
) -> None:
    playlist = made(title, opening, songs, closing)
    assume(playlist is not None)

    assert read_playlist(text_of(playlist)) == playlist


@given(TEXT)
def test_one_line_is_one_line_and_stays(text: str) -> None:
    line = one_line(text)

    assert "\n" not in line
    assert "<|" not in line
    assert one_line(line) == line
