"""Tempo of a clip in beats per minute, with a confidence that is honest about octaves and about sounds without beat.

A period is scored by the autocorrelation of the onset curve at one and four times the period (beat and bar: what music
is most likely to repeat at), less that at its half, third and quarter: a period whose parts are strokes too is a group
of beats, not a beat. The weights were fitted on 480 synthetic drum tracks and 25 click tracks (seeds 101 to 108 of the
benchmark's generator; the benchmark and the tests use other seeds). Patterns that can be heard
at either of two tempos lower the confidence instead of being guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunesmith_captioner.arrays import Floats
from tunesmith_captioner.audio.onsets import HOP_S, NUM_BANDS, Onsets

LOWEST_BPM, HIGHEST_BPM = 50.0, 210.0

PREFERRED_BPM = 120.0
PREFERENCE_OCTAVES = 1.2
"""A log-normal preference as of listeners, who tap most readily near 500 ms (Moelants 2002; weighting as Ellis 2007),
kept wide: it decides only between periods that score alike."""

CONFIDENT = 0.5
"""From this confidence on a tempo is told. Calibrated on the synthetic drum set (nearly all above) against noise, pads
and irregular strokes (all below); see tests and benchmark."""

_STEP = 0.004
"""Ratio between neighbouring tempos that are tried."""
_REPEATS = {1.0: 1.0, 4.0: 1.4}
_DIVISIONS = {1 / 2: 0.1, 1 / 3: 0.8, 1 / 4: 0.25}
"""Multiples of the period whose autocorrelation speaks for it, and against it where it is positive; with weights."""
_MIN_SECONDS = 6.0
_SAME = 0.02
"""Relative difference within which two tempos count as one."""
_PART_S, _PART_HOP_S = 20.0, 10.0


@dataclass(frozen=True, slots=True)
class Tempo:
    """`bpm` 0 where nothing repeats."""

    bpm: float
    confidence: float
    """0 to 1, a product: how well bars repeat, how much of the beat is stroked, how far the next metrical level scores
    behind, and the square of the share of the clip's parts that keep the tempo."""
    rival_bpm: float = 0.0
    """The tempo at another metrical level that scores nearly as well, if there is one."""

    @property
    def confident(self) -> bool:
        """Whether the tempo should be told."""
        return self.confidence >= CONFIDENT


def estimate_tempo(onsets: Onsets) -> Tempo:
    """The tempo that the whole clip keeps."""
    curve = _stroke_curve(onsets)
    if len(curve) * HOP_S < _MIN_SECONDS or not curve.any():
        return Tempo(0.0, 0.0)
    tempos = LOWEST_BPM * (1 + _STEP) ** np.arange(int(np.log(HIGHEST_BPM / LOWEST_BPM) / np.log1p(_STEP)) + 1)
    clarity = _clarity(curve, tempos)
    score = clarity * _preference(tempos)
    best = int(np.argmax(score))
    if clarity[best] <= 0:
        return Tempo(0.0, 0.0)
    bpm = _refined(curve, float(tempos[best]))
    apart = np.abs(np.log(tempos / tempos[best])) > 0.1
    rival = int(np.argmax(np.where(apart, score, -np.inf)))
    margin = 1 - max(0.0, float(score[rival])) / float(score[best])
    stroked = max(0.0, float(np.interp(60 / bpm / HOP_S, np.arange(len(curve)), _autocorrelation(curve))))
    confidence = (
        min(1.0, float(clarity[best]) / 0.35)
        * min(1.0, stroked / 0.2)
        * min(1.0, 0.35 + 3 * margin)
        * _kept(curve, tempos, bpm) ** 2
    )
    return Tempo(bpm, round(confidence, 3), float(tempos[rival]) if margin < 0.2 else 0.0)


def _stroke_curve(onsets: Onsets) -> Floats:
    """One curve in which a bass drum counts as much as a snare, and cymbals less: they mark divisions of the beat."""
    if not len(onsets.bands):
        return np.zeros(0, np.float32)
    curve = np.zeros(len(onsets.bands), np.float32)
    for low, high, weight in _GROUPS:
        group = onsets.bands[:, low:high].mean(1)
        top = float(np.percentile(group[group > 0], 98)) if (group > 0).any() else 0.0
        if top > _FAINT:
            curve += weight * np.minimum(group / top, 1.0)
    smooth = np.convolve(curve, _SMOOTHING, mode="same")
    out: Floats = (smooth - smooth.mean()).astype(np.float32)
    return out


_GROUPS = ((0, 3, 1.0), (3, 15, 1.0), (15, NUM_BANDS, 0.05))
"""Mel bands up to 250 Hz, up to 2.9 kHz, and above, with their weights."""
_FAINT = 0.05
_SMOOTHING = np.hanning(9)[1:-1].astype(np.float32) / np.hanning(9).sum()
"""40 ms at half height: as far as players stray from the beat."""


def _autocorrelation(curve: Floats) -> Floats:
    """Normalised to 1 at lag 0, each lag by the values it has."""
    size = 1 << (2 * len(curve) - 1).bit_length()
    spectrum = np.fft.rfft(curve, size)
    raw = np.fft.irfft(np.abs(spectrum) ** 2, size)[: len(curve)]
    raw = raw / np.arange(len(curve), 0, -1) * len(curve)
    out: Floats = (raw / raw[0]).astype(np.float64)
    return out


def _clarity(curve: Floats, tempos: Floats) -> Floats:
    """The score of each tempo, as the module says, before the preference; at most 1."""
    correlation = _autocorrelation(curve)
    lags = np.arange(len(correlation))
    period = 60 / tempos / HOP_S
    score = np.zeros(len(tempos))
    for multiple, weight in _REPEATS.items():
        score += weight / sum(_REPEATS.values()) * np.interp(multiple * period, lags, correlation, right=0.0)
    for part, weight in _DIVISIONS.items():
        score -= weight * np.maximum(0, np.interp(part * period, lags, correlation))
    return score


def _preference(tempos: Floats) -> Floats:
    out: Floats = np.exp(-0.5 * (np.log2(tempos / PREFERRED_BPM) / PREFERENCE_OCTAVES) ** 2)
    return out


def _refined(curve: Floats, bpm: float) -> float:
    """The tempo near `bpm` at which the whole curve beats most: the peak of its spectrum at four harmonics.

    A curve of 60 s resolves 1/60 Hz, and its peak far finer than that: well under 0.2 % at any tempo.
    """
    times = np.arange(len(curve)) * HOP_S
    taper = np.hanning(len(curve))
    for reach, steps in ((0.015, 31), (0.002, 17)):
        tempos = bpm * np.linspace(1 - reach, 1 + reach, steps)
        strength = np.zeros(steps)
        for harmonic in (1, 2, 3, 4):
            wave = np.exp(-2j * np.pi * harmonic * np.outer(tempos / 60, times))
            strength += np.abs(wave @ (curve * taper)) ** 2
        bpm = float(tempos[int(np.argmax(strength))])
    return bpm


def _kept(curve: Floats, tempos: Floats, bpm: float) -> float:
    """The share of overlapping parts of the clip in which `bpm`, or the double or half of it, scores best."""
    size, hop = round(_PART_S / HOP_S), round(_PART_HOP_S / HOP_S)
    starts = range(0, max(1, len(curve) - size + 1), hop)
    agreeing = 0
    for start in starts:
        part = curve[start : start + size]
        if not part.any():
            continue
        score = _clarity(part - part.mean(), tempos) * _preference(tempos)
        ratio = tempos[int(np.argmax(score))] / bpm
        agreeing += any(abs(ratio / octave - 1) < _SAME for octave in (0.5, 1.0, 2.0))
    return agreeing / len(starts)
