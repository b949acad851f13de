"""Makes the playlist sample that ships with the scraper, from the hand-written material beside this file.

    python examples/playlist_sample/make.py

The same material gives the same bytes. Every artist and song is invented.
"""

from __future__ import annotations

import csv
import random
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith.recipes.playlist_form import Playlist, Song, playlist_of, read_playlist, text_of

SAMPLES = Path(__file__).resolve().parents[2] / "services/scraper/tunesmith_scraper/samples"
CATALOGUE = SAMPLES.parents[2] / "trainer/tunesmith_trainer/samples/playlists_catalogue.txt"
NUM_PAIRS = 600
COLUMNS = ("title", "prompt", "reply", "mood", "style")
STYLES = ("slang", "situation", "image", "things")


def main() -> None:
    """Writes `playlists.csv` for the scraper, and `playlists_catalogue.txt` for the judge."""
    material = tomllib.loads((Path(__file__).parent / "material.toml").read_text(encoding="utf-8"))
    with (SAMPLES / "playlists.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(pairs(material))
    names = sorted(name for mood in material["mood"] for name, _ in map(split_song, mood["songs"]))
    (CATALOGUE).write_text("\n".join(names) + "\n", encoding="utf-8")


def pairs(material: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """NUM_PAIRS rows with different prompts and titles; moods and styles take turns."""
    chance = random.Random(20)
    prompts: set[str] = set()
    titles: set[str] = set()
    moods = material["mood"]
    number = 0
    while len(prompts) < NUM_PAIRS:
        mood = moods[number % len(moods)]
        style = STYLES[number // len(moods) % len(STYLES)]
        number += 1
        prompt = prompt_of(chance, material["general"], mood, style)
        title = f"{chance.choice(mood['titles_a'])} {chance.choice(mood['titles_b'])}"
        if prompt.casefold() in prompts or title in titles:
            continue
        prompts.add(prompt.casefold())
        titles.add(title)
        playlist = playlist_for(chance, material["general"], mood, style, title)
        reply = text_of(playlist)
        assert read_playlist(reply) == playlist
        yield {"title": title, "prompt": prompt, "reply": reply, "mood": mood["name"], "style": style}


def prompt_of(chance: random.Random, general: Mapping[str, Any], mood: Mapping[str, Any], style: str) -> str:
    """What a person says: in slang, as a situation, an image, or only a list of things."""
    if style == "things":
        things = chance.sample(mood["things"], chance.choice((2, 3, 3, 4)))
        return chance.choice(general["list_wraps"]).format(", ".join(things))
    said = chance.choice(mood[{"slang": "slang", "situation": "situations", "image": "images"}[style]])
    if style == "slang":
        return chance.choice(general["slang_wraps"]).format(said) if chance.random() < 0.8 else said
    if style == "image":
        return chance.choice(
            (said, said.capitalize() + ".", f"It feels like {said}.", f"Mood: {said}", f"{said}, but slow")
        )
    return chance.choice(general["plain_wraps"]).format(said)


def playlist_for(
    chance: random.Random, general: Mapping[str, Any], mood: Mapping[str, Any], style: str, title: str
) -> Playlist:
    """Three to five songs of the mood, in the prompt's tone; who said little is asked for more."""
    opening = chance.choice(mood["slang_openings"] if style == "slang" else mood["openings"])
    songs = []
    for line in chance.sample(mood["songs"], chance.choice((3, 3, 4, 4, 5))):
        name, sound = split_song(line)
        song, artist = name.split(" — ")
        reason = f"{sound}, {chance.choice(mood['why'])}" if chance.random() < 0.3 else sound
        songs.append(Song(song, artist, reason))
    closing = chance.choice(mood["closings"])
    if style == "things" or (style == "image" and chance.random() < 0.3):
        closing = f"{chance.choice(general['questions'])} {closing}"
    return playlist_of(title, opening, songs, closing)


def split_song(line: str) -> tuple[str, str]:
    """Name (`Song — Artist`) and sound of a material line."""
    name, sound = line.split(": ", 1)
    return name, sound


if __name__ == "__main__":
    main()
