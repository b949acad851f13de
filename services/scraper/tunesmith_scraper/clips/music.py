"""The sound of a sample clip: additive voices and noise drums on a bar grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunesmith_scraper.clips.plan import BEATS_PER_BAR, Clip

SAMPLES_PER_S = 32_000

Samples = npt.NDArray[np.float32]

_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
_PROGRESSIONS = {"major": (0, 4, 5, 3), "minor": (0, 5, 2, 6)}
"""Degrees of the scale, a bar each."""
_PEAK = 0.95
_MAX_OVERTONES = 14
_LOWEST_NOTE = 36
"""MIDI number of the C that keys are counted from."""


@dataclass(frozen=True, slots=True)
class _Bar:
    """One bar of a track, to be played into."""

    track: Samples
    start_s: float
    beat_s: float
    chord: Sequence[int]
    """MIDI numbers."""
    clip: Clip
    random: np.random.Generator

    def add(self, beat: float, sound: Samples, gain: float) -> None:
        """Play `sound` from a beat on; what lies beyond the track's end is cut."""
        start = round((self.start_s + beat * self.beat_s) * SAMPLES_PER_S)
        room = self.track[start : start + sound.size]
        room += np.float32(gain) * sound[: room.size]

    def human(self, gain: float) -> float:
        """`gain`, a little louder or softer."""
        return gain * float(self.random.uniform(0.9, 1.1))


def composed(clip: Clip) -> Samples:
    """The clip's sound: mono, SAMPLES_PER_S, within [-1, 1], at the loudness that the clip asks for."""
    random = np.random.default_rng(clip.seed)
    beat_s = 60 / clip.tempo_bpm
    track = np.zeros(round(clip.seconds * SAMPLES_PER_S), np.float32)
    for bar in range(round(clip.seconds / (BEATS_PER_BAR * beat_s)) + 1):
        start_s = bar * BEATS_PER_BAR * beat_s
        chord = _chord(clip, _PROGRESSIONS[clip.mode][bar % 4])
        for part in clip.parts:
            _PARTS[part](_Bar(track, start_s, beat_s, chord, clip, random))
    rms = float(np.sqrt(np.mean(track**2))) or 1.0
    return np.asarray(np.tanh(track * (clip.loudness / rms) / _PEAK) * _PEAK, np.float32)


def _chord(clip: Clip, degree: int) -> list[int]:
    """MIDI numbers of the triad on a degree of the clip's scale."""
    scale = _SCALES[clip.mode]
    steps = (degree, degree + 2, degree + 4)
    return [_LOWEST_NOTE + clip.key + scale[step % 7] + 12 * (step // 7) for step in steps]


def _pad(bar: _Bar) -> None:
    seconds = BEATS_PER_BAR * bar.beat_s
    for note in bar.chord:
        detune = float(bar.random.uniform(0.997, 1.003))
        voice = _voice(note + 12, seconds, bar.clip.brightness, detune=detune)
        from_start = np.arange(voice.size, dtype=np.float32)
        fade = np.clip(np.minimum(from_start, from_start[::-1]) / (0.4 * SAMPLES_PER_S), 0, 1)
        bar.add(0, voice * fade.astype(np.float32), 0.3)


def _plucks(bar: _Bar) -> None:
    order = (0, 1, 2, 1, 0, 2, 1, 2)
    for eighth in range(2 * BEATS_PER_BAR):
        voice = _voice(bar.chord[order[eighth]] + 24, 0.6, bar.clip.brightness)
        bar.add(eighth / 2, voice * _decay(0.6, 0.18), bar.human(0.5 if eighth % 2 else 0.75))


def _bass(bar: _Bar) -> None:
    for beat in range(BEATS_PER_BAR):
        bar.add(beat, _voice(bar.chord[0], bar.beat_s, 0.25) * _decay(bar.beat_s, 0.25), bar.human(0.9))


def _stabs(bar: _Bar) -> None:
    for beat in range(BEATS_PER_BAR):
        for note in bar.chord:
            bar.add(beat + 0.5, _voice(note + 24, 0.2, bar.clip.brightness) * _decay(0.2, 0.07), bar.human(0.35))


def _lead(bar: _Bar) -> None:
    seconds = 0.9 * bar.beat_s
    for beat in range(BEATS_PER_BAR):
        note = int(bar.random.choice(bar.chord)) + 36
        bar.add(beat, np.tanh(4 * _voice(note, seconds, bar.clip.brightness)) * _decay(seconds, 0.4), 0.35)


def _drums(bar: _Bar) -> None:
    four_on_the_floor = bar.clip.genre in ("house", "synthpop")
    for beat in range(BEATS_PER_BAR):
        if four_on_the_floor or beat % 2 == 0:
            bar.add(beat, _kick(), 1.1)
        if beat % 2:
            bar.add(beat, _noise(bar.random, 0.16, 0.05), 0.6)
        for half in (0, 0.5):
            hat = np.diff(_noise(bar.random, 0.05, 0.012), prepend=np.float32(0))
            bar.add(beat + half, hat, 0.1 + 1.2 * bar.clip.brightness**2)


_PARTS = {"pad": _pad, "plucks": _plucks, "bass": _bass, "stabs": _stabs, "lead": _lead, "drums": _drums}


def _voice(note: int, seconds: float, brightness: float, *, detune: float = 1.0) -> Samples:
    """A tone whose overtones are more, and fall off less with their number, the brighter it is."""
    hertz = 440 * 2 ** ((note - 69) / 12) * detune
    phase = 2 * np.pi * hertz / SAMPLES_PER_S * np.arange(round(seconds * SAMPLES_PER_S), dtype=np.float32)
    num_partials = 1 + round(brightness * _MAX_OVERTONES)
    partials = [n for n in range(1, num_partials + 1) if n * hertz < SAMPLES_PER_S / 2.2]
    falling = 1.5 - 1.1 * brightness
    return np.asarray(sum(np.sin(n * phase) / n**falling for n in partials), np.float32)


def _kick() -> Samples:
    seconds = np.arange(round(0.22 * SAMPLES_PER_S)) / SAMPLES_PER_S
    phase = 2 * np.pi * (48 * seconds - 70 * 0.03 * np.expm1(-seconds / 0.03))
    return np.asarray(np.sin(phase) * np.exp(-seconds / 0.07), np.float32)


def _noise(random: np.random.Generator, seconds: float, decay_s: float) -> Samples:
    return random.standard_normal(round(seconds * SAMPLES_PER_S), np.float32) * _decay(seconds, decay_s)


def _decay(seconds: float, decay_s: float) -> Samples:
    """An exponential fall with a rise of two milliseconds, so that nothing clicks."""
    at_s = np.arange(round(seconds * SAMPLES_PER_S)) / SAMPLES_PER_S
    return np.asarray(np.exp(-at_s / decay_s) * np.clip(at_s / 0.002, 0, 1), np.float32)
