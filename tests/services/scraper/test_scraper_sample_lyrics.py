from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from importlib import resources
from pathlib import Path

SAMPLES = resources.files("tunesmith_scraper").joinpath("samples")
MAKE = Path(__file__).parents[3] / "examples" / "sample_lyrics" / "make.py"


def table(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(SAMPLES.joinpath(name).read_text(encoding="utf-8").splitlines(keepends=True)))


def test_the_script_makes_exactly_the_sample_files_that_ship(tmp_path: Path) -> None:
    subprocess.run([sys.executable, MAKE, tmp_path], check=True)

    for name in ("lyrics.csv", "lyrics_artists.csv"):
        assert (tmp_path / name).read_bytes() == SAMPLES.joinpath(name).read_bytes()


def test_every_sample_song_has_an_artist_and_sections_and_lines_of_its_own() -> None:
    songs, artists = table("lyrics.csv"), table("lyrics_artists.csv")
    lines = Counter(line for song in songs for line in song["Lyric"].splitlines() if line and not line.startswith("["))

    assert {song["ALink"] for song in songs} == {artist["Link"] for artist in artists}
    assert all(song["Lyric"].startswith("[") for song in songs)
    assert all(8 <= len([line for line in song["Lyric"].splitlines() if line]) <= 24 for song in songs)
    assert len(lines) > 0.9 * lines.total()
