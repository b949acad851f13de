"""The one form of a playlist answer, written and read.

    # Slow Rain Kitchen
    Grey days ask for gentle company.
    1. Umbrella for One — Coraline Dusk: brushed jazz and wet cobbles
    2. Puddle Atlas — Fenwick and Rue: folk duo under one coat
    Put the kettle on and stay dry.

A title; one line that acknowledges the mood; the songs, numbered from 1; one closing line. Markdown rather than JSON:
it reads well as it streams, and a cut-off answer is still worth reading. `read_playlist(text_of(x)) == x` for every
playlist that `playlist_of` makes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

MAX_SONGS = 15
MAX_PROMPT_CHARS = 1_000
"""Of what a person says."""
MAX_LINE_CHARS = 240
"""Of opening and closing; longer ones are essays."""
MAX_NAME_CHARS = 120
"""Of titles and artists."""
MAX_REASON_CHARS = 200

_SONG = re.compile(r"(?P<number>\d{1,3})\. (?P<title>\S.*?) — (?P<artist>\S.*?): (?P<reason>\S.*)")
_NUMBERED = re.compile(r"\d{1,3}[.)]\s")
_LEAD = re.compile(r"(?:[#\s]|\d{1,3}[.)](?:\s|$))+")
_MARK = re.compile(r"<+\|+")
_COLON_AT_END = re.compile(r":(?=\s|$)")
_PLACEHOLDER = re.compile(
    r"\[[^\]]{1,60}\]|<[a-z][a-z _-]{2,30}>|\{[^}]{1,60}\}"
    r"|\b(?:insert|your)\s+(?:song|artist|title|playlist|reason|mood)\b"
    r"|\b(?:x{4,}|lorem ipsum|todo|tbd)\b",
    re.IGNORECASE,
)
_EMPTY_NAME = re.compile(
    r"(?:the\s+)?(?:(?:song|track|artist|band|singer|playlist|album)\s*(?:title|name)?|title|name|unknown|n/?a|example)"
    r"\s*(?:[#-]?\s*(?:\d+|[a-z]))?|(?:unknown|various|some|another)\s+(?:artists?|songs?|bands?)|[.…_?*-]+",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Song:
    """One line of a playlist."""

    title: str
    artist: str
    reason: str


@dataclass(frozen=True, slots=True)
class Playlist:
    """An answer, read. All texts are single lines in NFC."""

    title: str
    opening: str
    songs: tuple[Song, ...]
    closing: str


class NotThisForm(ValueError):
    """The text or its parts cannot be a playlist. `reason` is a short snake_case word."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


def playlist_of(title: str, opening: str, songs: Iterable[Song], closing: str) -> Playlist:
    """A playlist of cleaned parts; NotThisForm for one that is missing, too long or a placeholder.

    Dashes and colons that would end a title or an artist early are changed. A song that is listed twice stays: whether
    answers repeat themselves is measured, not hidden.
    """
    cleaned = tuple(
        Song(
            _checked(one_line(song.title).replace("—", "-").strip("- "), "song_title", MAX_NAME_CHARS),
            _checked(_artist(song.artist), "artist", MAX_NAME_CHARS),
            _checked(one_line(song.reason), "reason", MAX_REASON_CHARS),
        )
        for song in songs
    )
    playlist = Playlist(
        _checked(_free_line(title), "title", MAX_NAME_CHARS),
        _checked(_free_line(opening), "opening", MAX_LINE_CHARS),
        cleaned,
        _checked(_free_line(closing), "closing", MAX_LINE_CHARS),
    )
    if not cleaned:
        raise NotThisForm("no_songs")
    if len(cleaned) > MAX_SONGS:
        raise NotThisForm("too_many_songs", f"{len(cleaned)} songs, limit {MAX_SONGS}")
    if found := placeholder_in(playlist):
        raise NotThisForm("placeholder", found)
    return playlist


def text_of(playlist: Playlist) -> str:
    """The playlist in the form."""
    songs = (f"{n}. {s.title} — {s.artist}: {s.reason}" for n, s in enumerate(playlist.songs, start=1))
    return "\n".join((f"# {playlist.title}", playlist.opening, *songs, playlist.closing))


def read_playlist(text: str) -> Playlist:
    """The inverse of `text_of`; blank lines and space around lines are forgiven, all else raises NotThisForm."""
    lines = [line for line in (one_line(line) for line in text.split("\n")) if line]
    if not lines:
        raise NotThisForm("empty")
    title = lines[0].removeprefix("# ")
    if title == lines[0]:
        raise NotThisForm("no_title", lines[0][:80])
    middle = [bool(_NUMBERED.match(line)) for line in lines]
    if not any(middle):
        raise NotThisForm("no_songs")
    first = middle.index(True)
    last = len(lines) - 1 - middle[::-1].index(True)
    if first != 2:
        raise NotThisForm("no_opening" if first < 2 else "bad_opening")
    if last == len(lines) - 1:
        raise NotThisForm("no_closing")
    if last != len(lines) - 2:
        raise NotThisForm("bad_closing")
    return playlist_of(title, lines[1], _songs(lines[first : last + 1]), lines[-1])


def placeholder_in(playlist: Playlist) -> str:
    """The first text that stands for something never filled in (`[Insert song]`, `Song Title`); empty if none."""
    for name in (playlist.title, *(n for s in playlist.songs for n in (s.title, s.artist))):
        if _EMPTY_NAME.fullmatch(name):
            return name
    for text in (playlist.title, playlist.opening, playlist.closing, *(t for s in playlist.songs for t in _texts(s))):
        if found := _PLACEHOLDER.search(text):
            return found[0]
    return ""


def song_identity(title: str, artist: str) -> str:
    """`title — artist` in the form by which catalogue and repeated songs are compared."""
    return f"{_folded(title)} — {_folded(artist)}"


def one_line(text: str) -> str:
    """NFC without control characters and chat marks, inner space single."""
    kept = "".join(c if c.isprintable() or c.isspace() else "" for c in unicodedata.normalize("NFC", text))
    return " ".join(unicodedata.normalize("NFC", _MARK.sub("", kept)).split())


def _songs(lines: list[str]) -> Iterable[Song]:
    for number, line in enumerate(lines, start=1):
        found = _SONG.fullmatch(line)
        if found is None:
            raise NotThisForm("bad_song_line", line[:80])
        if found["number"] != str(number):
            raise NotThisForm("bad_numbering", line[:80])
        yield Song(found["title"], found["artist"], found["reason"])


def _texts(song: Song) -> tuple[str, str, str]:
    return song.title, song.artist, song.reason


def _artist(text: str) -> str:
    return one_line(_COLON_AT_END.sub("", one_line(text).replace("—", "-"))).strip("- ")


def _free_line(text: str) -> str:
    # What would read as a heading or a song is taken off its front.
    line = one_line(text)
    if lead := _LEAD.match(line):
        line = line[lead.end() :]
    return line


def _checked(text: str, what: str, limit: int) -> str:
    if not text:
        raise NotThisForm(f"no_{what}")
    if len(text) > limit:
        raise NotThisForm(f"long_{what}", f"{len(text)} characters, limit {limit}")
    return text


def _folded(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in unicodedata.normalize("NFKC", text).casefold()).split())
