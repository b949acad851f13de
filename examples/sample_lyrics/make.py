"""Make the sample songs that ship with the scraper: `python examples/sample_lyrics/make.py [FOLDER]`.

The TOML files beside this script hold what was written by hand: themes, rhyme families, openers, couplets, titles and
invented artists. A song takes one theme, two rhyme families for each of its parts, and never the same phrase twice.
The same files always give the same bytes. Two CSV files are written, in the shape in which lyrics are often published:
songs (`ALink,SName,SLink,Lyric,language`) and artists (`Artist,Genres,Songs,Popularity,Link`), joined on ALink = Link.
"""

from __future__ import annotations

import csv
import random
import re
import sys
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SAMPLES = HERE.parents[1] / "services/scraper/tunesmith_scraper/samples"
SONGS_PER_ARTIST = 10
SEED = 7

FORMS = (
    ("verse", "chorus", "verse", "chorus", "bridge", "chorus"),
    ("verse", "chorus", "verse", "chorus"),
    ("verse", "verse", "chorus", "verse", "chorus"),
    ("chorus", "verse", "chorus", "verse", "outro"),
    ("verse", "chorus", "bridge", "chorus", "outro"),
    ("verse", "verse", "bridge", "verse"),
)
"""A repeated chorus is written once and then only named, as lyric sheets do; so songs have 10 to 22 lines."""

SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Artist:
    """One invented artist."""

    name: str
    genres: str
    themes: tuple[str, ...]
    language: str

    @property
    def link(self) -> str:
        """What both files are joined on."""
        return f"/{slug(self.name)}/"


def phrases(text: str) -> list[str]:
    """The phrases of a list written as text."""
    return [phrase.strip() for phrase in text.replace("\n", " ").split(";") if phrase.strip()]


def slug(text: str) -> str:
    """Small ASCII letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def artists() -> list[Artist]:
    """The invented artists, in the order of their file."""
    rows = []
    for line in tomllib.loads((HERE / "artists.toml").read_text())["artists"].strip().splitlines():
        name, genres, themes, *language = (cell.strip() for cell in line.split("|"))
        rows.append(Artist(name, genres, tuple(t.strip() for t in themes.split(",")), *(language or ["english"])))
    return rows


class Language:
    """The material of one language."""

    def __init__(self, name: str) -> None:
        material: dict[str, Any] = tomllib.loads((HERE / f"{name}.toml").read_text())
        if (more := HERE / f"{name}_themes.toml").exists():
            material |= tomllib.loads(more.read_text())
        self.code: str = material["language"]
        self.sections: Mapping[str, str] = material["sections"]
        self.contractions: Mapping[str, str] = material.get("contractions", {})
        self.openers = phrases(material["openers"])
        self.calls = phrases(material["calls"])
        self.couplets = [tuple(part.strip() for part in pair.split(" / ")) for pair in phrases(material["couplets"])]
        self.patterns = phrases(material["title_patterns"])
        self.rhymes = {
            family: {tense: phrases(text) for tense, text in rhymes.items()}
            for family, rhymes in material["rhymes"].items()
        }
        self.themes = {
            name: {kind: phrases(text) for kind, text in theme.items()} for name, theme in material["themes"].items()
        }

    def titles(self, themes: Sequence[str], number: int, draw: random.Random) -> list[tuple[str, str]]:
        """`number` titles, each with its theme: the written ones first, then made from patterns."""
        written = [(title, theme) for theme in themes for title in self.themes[theme]["title"]]
        draw.shuffle(written)
        made = [
            (pattern.replace("{noun}", noun).replace("{Noun}", noun.title()), theme)
            for theme in themes
            for noun in self.themes[theme]["noun"]
            for pattern in self.patterns
        ]
        draw.shuffle(made)
        num_written = number * 2 // 3
        return (written[:num_written] + made)[:number]


class Song:
    """Writes one song; what it has used it does not use again."""

    def __init__(self, language: Language, theme: str, title: str, draw: random.Random) -> None:
        self._language = language
        self._theme = language.themes[theme]
        self._title = title
        self._draw = draw
        self._used: set[str] = set()
        self._families = draw.sample(sorted(language.rhymes), k=len(language.rhymes))

    def text(self, form: Sequence[str]) -> str:
        """The song as a lyric sheet, its parts in the order of `form`."""
        sections = self._language.sections
        numbers = {part: 0 for part in sections}
        blocks = []
        for part in form:
            numbers[part] += 1
            many = part == "verse" and form.count("verse") > 1
            heading = f"[{sections[part]}{f' {numbers[part]}' if many else ''}]"
            if part == "chorus" and numbers[part] > 1:
                blocks.append(heading)
            else:
                blocks.append("\n".join([heading, *getattr(self, part)()]))
        return "\n\n".join(blocks)

    def verse(self) -> list[str]:
        """Four lines: two rhymes, or one and a couplet."""
        if self._draw.random() < 0.25:
            return [*self._pair("past"), *self.bridge()]
        one, other = self._pair("past"), self._pair("past")
        crossed = self._draw.random() < 0.5
        return [one[0], other[0], one[1], other[1]] if crossed else [*one, *other]

    def chorus(self) -> list[str]:
        """Four lines of two rhymes, one of them with the title."""
        lines = [*self._pair("now"), *self._pair("now")]
        if self._title.casefold() not in " ".join(lines).casefold():
            lines[0] = f"{self._title}, {lines[0].partition(', ')[2]}"
        return lines

    def bridge(self) -> list[str]:
        """A couplet."""
        couplet = self._pick(["\n".join(pair) for pair in self._language.couplets])
        return [_capital(line) for line in self._filled(couplet).split("\n")]

    def outro(self) -> list[str]:
        """Two lines."""
        return self._pair("now")

    def _pair(self, tense: str) -> list[str]:
        """Two lines that end in one rhyme."""
        family = self._language.rhymes[self._families[0]]
        self._families.append(self._families.pop(0))
        joint = " " if tense == "past" else ", "
        starts = self._language.openers if tense == "past" else self._language.calls
        endings = family[tense]
        lines = []
        for _ in range(2):
            ending = self._pick(endings)
            endings = [other for other in endings if other.split()[-1] != ending.split()[-1]]
            lines.append(_capital(f"{self._filled(self._pick(starts))}{joint}{ending}"))
        return lines

    def _filled(self, text: str) -> str:
        filled = SLOT.sub(lambda m: self._title if m[1] == "title" else self._pick(self._theme[m[1]]), text)
        for apart, together in self._language.contractions.items():
            filled = re.sub(rf"\b{apart}", together, filled)
        return filled

    def _pick(self, choices: Sequence[str]) -> str:
        left = [choice for choice in choices if choice not in self._used] or list(choices)
        choice = self._draw.choice(left)
        self._used.add(choice)
        return choice


def _capital(line: str) -> str:
    return line[0].upper() + line[1:]


def songs(artist: Artist, language: Language, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Titles and lyrics."""
    for title, theme in language.titles(artist.themes, SONGS_PER_ARTIST, draw):
        yield title, Song(language, theme, title, draw).text(draw.choice(FORMS))


def main(folder: Path) -> None:
    """Write both files into `folder`."""
    languages = {name: Language(name) for name in ("english", "spanish", "german", "french")}
    with (
        (folder / "lyrics.csv").open("w", encoding="utf-8", newline="") as lyrics_file,
        (folder / "lyrics_artists.csv").open("w", encoding="utf-8", newline="") as artists_file,
    ):
        lyrics = csv.writer(lyrics_file, lineterminator="\n")
        lyrics.writerow(["ALink", "SName", "SLink", "Lyric", "language"])
        table = csv.writer(artists_file, lineterminator="\n")
        table.writerow(["Artist", "Genres", "Songs", "Popularity", "Link"])
        for artist in artists():
            draw = random.Random(f"{SEED} {artist.name}")
            language = languages[artist.language]
            rows = list(songs(artist, language, draw))
            table.writerow([artist.name, artist.genres, len(rows), round(draw.uniform(0.1, 12.0), 1), artist.link])
            for title, text in rows:
                lyrics.writerow([artist.link, title, f"{artist.link}{slug(title)}.html", text, language.code])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES)
