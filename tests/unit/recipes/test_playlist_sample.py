"""The playlist sample: whole, in form, invented from material that still makes the same bytes."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path

import pytest

from tunesmith.recipes.playlist_form import read_playlist, song_identity, text_of

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "services/scraper/tunesmith_scraper/samples"
CATALOGUE = ROOT / "services/trainer/tunesmith_trainer/samples/playlists_catalogue.txt"


def rows() -> list[dict[str, str]]:
    with (SAMPLES / "playlists.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_reply_of_the_sample_is_in_form_and_short() -> None:
    pairs = rows()

    assert len(pairs) >= 400
    assert len({row["prompt"].casefold() for row in pairs}) == len(pairs)
    for row in pairs:
        playlist = read_playlist(row["reply"])
        assert text_of(playlist) == row["reply"]
        assert 3 <= len(playlist.songs) <= 5
        assert len(row["reply"]) < 600


def test_the_catalogue_lists_every_song_of_the_sample() -> None:
    listed = {song_identity(*line.split(" — ")) for line in CATALOGUE.read_text(encoding="utf-8").splitlines()}

    assert {song_identity(s.title, s.artist) for row in rows() for s in read_playlist(row["reply"]).songs} <= listed


def test_the_script_makes_the_same_bytes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = runpy.run_path(str(ROOT / "examples/playlist_sample/make.py"))
    monkeypatch.setitem(script["main"].__globals__, "SAMPLES", tmp_path)
    monkeypatch.setitem(script["main"].__globals__, "CATALOGUE", tmp_path / CATALOGUE.name)

    script["main"]()

    for shipped in (SAMPLES / "playlists.csv", CATALOGUE):
        assert (tmp_path / shipped.name).read_bytes() == shipped.read_bytes()
