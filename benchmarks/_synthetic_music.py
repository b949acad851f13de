"""Music made by rule, with a known tempo: click tracks, and drum patterns with swing, fills, ghosts and noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RATE = 16_000

Samples = npt.NDArray[np.float32]

CLICK_TEMPOS = tuple(range(60, 181, 5))
"""The 25 tempos of the click tracks."""


def click_track(bpm: float, *, seconds: float = 30.0, rate: int = RATE, start_s: float = 0.25) -> Samples:
    """A 1 kHz click of 20 ms on every beat."""
    out = np.zeros(round(seconds * rate), np.float32)
    click = _decaying(np.sin(2 * np.pi * 1000 * np.arange(round(0.02 * rate)) / rate), rate, 0.005)
    for at_s in np.arange(start_s, seconds, 60 / bpm):
        _add(out, click, at_s, rate)
    return out


@dataclass(frozen=True, slots=True)
class Groove:
    """One bar of four beats in sixteenths: which drum sounds on which, 0 to 1 loud."""

    name: str
    kick: str
    snare: str
    hat: str


GROOVES = (
    #      a bar is sixteen characters: . rest, x stroke, o ghost stroke, X accent
    Groove("rock", "X.......X.x.....", "....X.......X...", "x.x.x.x.x.x.x.x."),
    Groove("four on the floor", "X...X...X...X...", "....x.......x...", "..X...X...X...X."),
    Groove("pop", "X.....x.X.......", "....X.......X...", "x.x.x.x.x.x.x.x."),
    Groove("funk", "X.x.......x..x..", "....X..o.o..X..o", "xxxxxxxxxxxxxxxx"),
    Groove("disco", "X...X...X...X...", "....X.......X...", "x.X.x.X.x.X.x.X."),
    Groove("soul", "X...X...X...X...", "X...X...X...X...", "x.x.x.x.x.x.x.x."),
    Groove("boom bap", "X..x......x.....", "....X.......X...", "x.x.x.x.x.x.x.x."),
    Groove("shuffle", "X.......X.......", "....X.......X...", "x..xx..xx..xx..x"),
    Groove("train", "X...X...X...X...", "o.x.o.x.o.x.o.x.", "................"),
    Groove("march", "X...X...X...X...", "x.oox.oox.oox.xx", "................"),
    Groove("techno", "X...X...X...X...", "................", "x.X.x.X.x.X.x.X."),
    Groove("ballad", "X.......X.......", "....X.......X...", "x...x...x...x..."),
)

LOUDNESS = {".": 0.0, "o": 0.25, "x": 0.7, "X": 1.0}


@dataclass(frozen=True, slots=True)
class DrumTrack:
    """A rendered track and what it was made from."""

    samples: Samples
    bpm: float
    groove: str
    swing: float
    noise: float


def drum_set(count: int = 60, *, seed: int = 1, seconds: float = 60.0, rate: int = RATE) -> Iterator[DrumTrack]:
    """`count` tracks: each groove in turn, tempos from 70 to 170, swing, human timing, fills, noise."""
    random = np.random.default_rng(seed)
    for number in range(count):
        groove = GROOVES[number % len(GROOVES)]
        bpm = float(np.round(random.uniform(70, 170), 1))
        swing = float(random.choice([0.5, 0.5, 0.54, 0.58, 0.62]))
        noise = float(random.choice([0.0, 0.003, 0.01, 0.03]))
        fill_every = int(random.choice([4, 8]))
        jitter_s = float(random.choice([0.0, 0.003, 0.006]))
        samples = _render(groove, bpm, swing, noise, fill_every, jitter_s, random, seconds, rate)
        yield DrumTrack(samples, bpm, groove.name, swing, noise)


def _render(
    groove: Groove,
    bpm: float,
    swing: float,
    noise: float,
    fill_every: int,
    jitter_s: float,
    random: np.random.Generator,
    seconds: float,
    rate: int,
) -> Samples:
    out = np.zeros(round(seconds * rate), np.float32)
    drums = _kit(random, rate)
    sixteenth_s = 15 / bpm
    offset_s = float(random.uniform(0, 1))
    for step in range(int((seconds - offset_s) / sixteenth_s)):
        bar, place = divmod(step, 16)
        # Swing moves every second eighth (or, in grooves of sixteenths, sixteenth) towards the next one.
        late = {2: (swing - 0.5) * 4, 3: (swing - 0.5) * 2, 1: (swing - 0.5) * 2}.get(place % 4, 0.0)
        at_s = offset_s + (step + late) * sixteenth_s + float(random.normal(0, jitter_s) if jitter_s else 0)
        filling = bar % fill_every == fill_every - 1 and place >= 12
        for name in ("kick", "snare", "hat"):
            stroke = LOUDNESS[getattr(groove, name)[place]]
            if filling:
                stroke = {"snare": float(random.uniform(0.4, 1)), "kick": 0.0, "hat": 0.0}[name]
            if stroke:
                _add(out, drums[name]() * np.float32(stroke * random.uniform(0.85, 1.0)), max(at_s, 0.0), rate)
    if noise:
        out += random.normal(0, noise, len(out)).astype(np.float32)
    return (out / max(1.0, float(np.abs(out).max()))).astype(np.float32)


def _kit(random: np.random.Generator, rate: int) -> dict[str, Callable[[], Samples]]:
    kick_hz, snare_hz = float(random.uniform(45, 65)), float(random.uniform(160, 220))
    t = np.arange(round(0.25 * rate)) / rate
    kick = np.sin(2 * np.pi * (kick_hz * t + 12 * (1 - np.exp(-t * 30)) / 3)) * np.exp(-t / 0.08)
    tone = np.sin(2 * np.pi * snare_hz * t) * np.exp(-t / 0.04)

    def snare() -> Samples:
        rattle = random.normal(0, 0.5, len(t)) * np.exp(-t / 0.06)
        return (0.4 * tone + 0.5 * rattle).astype(np.float32)

    def hat() -> Samples:
        hiss = np.diff(random.normal(0, 0.35, len(t) + 1)) * np.exp(-t / 0.025)
        return (0.45 * hiss).astype(np.float32)

    return {"kick": lambda: (0.9 * kick).astype(np.float32), "snare": snare, "hat": hat}


def chords(
    tonic: int, *, minor: bool = False, seconds: float = 30.0, rate: int = RATE, noise: float = 0.005, seed: int = 0
) -> Samples:
    """I-IV-V-I (i-iv-V-i in minor) on `tonic` (0 = C), two seconds a chord, each note with six falling harmonics."""
    random = np.random.default_rng(seed)
    third = 3 if minor else 4
    progression = ((0, third, 7), (5, 5 + third, 12), (7, 11, 14), (0, third, 7))
    out = np.zeros(round(seconds * rate), np.float32)
    t = np.arange(2 * rate) / rate
    shape = np.minimum(1, t / 0.02) * np.exp(-t / 1.5)
    for number, start in enumerate(range(0, len(out) - len(t) + 1, len(t))):
        chord = progression[number % 4]
        for note in (chord[0] - 12, *chord):
            hz = 261.6256 * 2 ** ((tonic + note) / 12)
            for harmonic in range(1, 7):
                out[start : start + len(t)] += (
                    0.06 / harmonic**1.5 * shape * np.sin(2 * np.pi * hz * harmonic * t)
                ).astype(np.float32)
    return (out + random.normal(0, noise, len(out))).astype(np.float32)


def _decaying(wave: npt.NDArray[Any], rate: int, time_s: float) -> Samples:
    return (wave * np.exp(-np.arange(len(wave)) / rate / time_s)).astype(np.float32)


def _add(out: Samples, sound: Samples, at_s: float, rate: int) -> None:
    start = round(at_s * rate)
    end = min(start + len(sound), len(out))
    if start < end:
        out[start:end] += sound[: end - start]
