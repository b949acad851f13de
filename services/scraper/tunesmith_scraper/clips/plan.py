"""Which sample clips there are. What a clip shows and how it sounds hang together, so that there is something to learn:
bright pictures that are cut fast go with fast, loud, bright music; dark ones that hardly move with slow, soft music.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

PLAN_VERSION = 1
"""Raised when a plan of the same name would give another clip."""

CLIPS_PER_STYLE = 12
BEATS_PER_BAR = 4
MIN_SECONDS, MAX_SECONDS = 7.0, 12.0

KEYS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")

Part = Literal["pad", "plucks", "bass", "drums", "stabs", "lead"]
Mode = Literal["major", "minor"]


@dataclass(frozen=True, slots=True)
class Style:
    """A family of clips; pairs are the ends of a range, from its first clip to its last."""

    genre: str
    tempo_bpm: tuple[float, float]
    parts: tuple[Part, ...]
    light: tuple[float, float]
    """Brightness of the picture, 0 (black) to 1."""
    hue: tuple[float, float]
    """Degrees on the colour circle: 0 red, 120 green, 240 blue."""
    beats_per_shot: int
    motion: float
    """Picture widths that a shape crosses in ten seconds."""
    loudness: float
    """Root mean square of the sound, full scale 1."""
    brightness: float
    """Share of the overtones that sound, 0 to 1."""
    mode: Mode


STYLES = (
    Style("ambient", (70, 88), ("pad",), (0.10, 0.25), (200, 250), 32, 0.3, 0.03, 0.10, "minor"),
    Style("ballad", (72, 96), ("plucks", "pad"), (0.25, 0.40), (20, 40), 16, 0.8, 0.06, 0.25, "major"),
    Style("downtempo", (84, 104), ("drums", "bass", "pad"), (0.22, 0.38), (265, 300), 16, 1.2, 0.10, 0.25, "minor"),
    Style("folk", (100, 126), ("plucks", "bass"), (0.55, 0.75), (80, 140), 8, 2.0, 0.10, 0.55, "major"),
    Style("synthpop", (108, 128), ("drums", "bass", "lead"), (0.50, 0.70), (170, 195), 8, 3.0, 0.15, 0.65, "major"),
    Style("house", (118, 134), ("drums", "bass", "stabs"), (0.55, 0.75), (300, 335), 4, 4.0, 0.20, 0.60, "minor"),
    Style("rock", (132, 154), ("drums", "bass", "lead", "plucks"), (0.45, 0.60), (0, 12), 2, 5.0, 0.26, 0.90, "minor"),
    Style("breaks", (156, 180), ("drums", "bass", "stabs", "lead"), (0.80, 0.95), (45, 60), 2, 6.0, 0.26, 1.0, "major"),
)


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip, down to its every frame and sample."""

    name: str
    title: str
    genre: str
    tempo_bpm: float
    key: int
    """Index in KEYS."""
    mode: Mode
    parts: tuple[Part, ...]
    light: float
    hue: float
    beats_per_shot: int
    motion: float
    loudness: float
    brightness: float
    seconds: float
    seed: int


def planned_clips() -> tuple[Clip, ...]:
    """All sample clips, the styles in turn, so that every stretch of them is mixed."""
    return tuple(_clip(style, number) for number in range(CLIPS_PER_STYLE) for style in STYLES)


def _clip(style: Style, number: int) -> Clip:
    choose = random.Random(f"{PLAN_VERSION}/{style.genre}/{number}")
    tempo_bpm = round(_between(style.tempo_bpm, number / (CLIPS_PER_STYLE - 1)))
    key = (7 * number + 3 * len(style.genre)) % len(KEYS)
    seconds_per_bar = BEATS_PER_BAR * 60 / tempo_bpm
    num_bars = max(1, round(choose.uniform(MIN_SECONDS, MAX_SECONDS) / seconds_per_bar))
    # One clip in three leaves a part out: the same kind of picture has some freedom in its music.
    parts = style.parts if number % 3 or len(style.parts) < 3 else tuple(style.parts[:-1])
    return Clip(
        name=f"{style.genre}-{number:02d}",
        title=f"{style.genre.capitalize()} in {KEYS[key]} {style.mode}, no. {number + 1}",
        genre=style.genre,
        tempo_bpm=float(tempo_bpm),
        key=key,
        mode=style.mode,
        parts=parts,
        light=_between(style.light, choose.random()),
        hue=_between(style.hue, choose.random()),
        beats_per_shot=style.beats_per_shot,
        motion=style.motion * choose.uniform(0.8, 1.2),
        loudness=style.loudness * choose.uniform(0.85, 1.15),
        brightness=style.brightness * choose.uniform(0.9, 1.0),
        seconds=min(MAX_SECONDS, num_bars * seconds_per_bar),
        seed=choose.getrandbits(32),
    )


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * share
