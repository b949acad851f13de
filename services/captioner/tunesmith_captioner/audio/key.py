"""Key of a clip: its chroma against the key profiles of Krumhansl and Kessler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunesmith_captioner.arrays import Floats
from tunesmith_captioner.audio.spectrum import power_blocks

PITCHES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")

MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
"""Probe-tone ratings from the tonic up (Krumhansl & Kessler 1982, Psychological Review 89, p. 343)."""

CONFIDENT = 0.5
"""From this confidence on a key is told; drums and noise stay below it, cadences of chords above (see the tests)."""

_WINDOW, _HOP = 4096, 2048
_LOW_HZ, _HIGH_HZ = 65.0, 2100.0
_APART = 2
_PITCHED_SHARE = 0.5
"""Share of lasting peaks from which on a clip counts as pitched: synthetic drums have 0.03 to 0.33, chords 0.85."""
_PEAK_OVER_MEDIAN = 4.0
_FAINT = 1e-6
_FULL_WEIGHT_HZ = 130.8


@dataclass(frozen=True, slots=True)
class Key:
    """`name` such as `A minor`; empty where nothing sounds in pitches."""

    name: str
    confidence: float
    """0 to 1, a product: how well the best profile fits, how far the second best falls behind, and how much of what
    sounds lasts long enough to be a note."""

    @property
    def confident(self) -> bool:
        """Whether the key should be told."""
        return self.confidence >= CONFIDENT


def estimate_key(samples: Floats, rate: int) -> Key:
    """The key whose profile correlates best with the clip's chroma."""
    tones, lasting_share = chroma(samples, rate)
    if tones.std() == 0:
        return Key("", 0.0)
    fits = np.array(
        [[np.corrcoef(tones, np.roll(profile, tonic))[0, 1] for tonic in range(12)] for profile in (MAJOR, MINOR)]
    )
    order = np.argsort(fits, axis=None)[::-1]
    mode, tonic = np.unravel_index(order[0], fits.shape)
    best, second = float(fits.flat[order[0]]), float(fits.flat[order[1]])
    fit, lead = np.clip((best - 0.45) / 0.35, 0, 1), np.clip((best - second) / 0.08, 0, 1)
    confidence = fit * lead * np.clip(lasting_share / _PITCHED_SHARE, 0, 1)
    return Key(f"{PITCHES[tonic]} {('major', 'minor')[mode]}", round(float(confidence), 3))


def chroma(samples: Floats, rate: int) -> tuple[Floats, float]:
    """(12,) how much each pitch class sounds, C first, and the share of what sounds that lasts.

    Spectral peaks on a logarithmic pitch axis that is tuned to the clip. Only peaks that last count, so that drums and
    noise add little; each frame counts by the square root of its amplitude, so that quiet passages are heard too. All
    zero where nothing lasts.
    """
    hz = np.fft.rfftfreq(_WINDOW, 1 / rate)
    used = (hz >= _LOW_HZ) & (hz <= _HIGH_HZ)
    frames: list[npt.NDArray[np.int64]] = []
    pitches: list[Floats] = []
    weights: list[Floats] = []
    num_frames = 0
    for block in power_blocks(samples, window=_WINDOW, hop=_HOP):
        frame, pitch, weight = _peaks(block[:, used], hz[used])
        frames.append(frame + num_frames)
        pitches.append(pitch)
        weights.append(weight)
        num_frames += len(block)
    pitch, weight = np.concatenate([np.zeros(0), *pitches]), np.concatenate([np.zeros(0), *weights])
    if not len(pitch):
        return np.zeros(12), 0.0
    # The mean direction of all peaks' distance from the nearest semitone is the clip's tuning.
    detuned = np.angle(np.sum(weight * np.exp(2j * np.pi * pitch))) / (2 * np.pi)
    notes = np.zeros((num_frames, 128))
    np.add.at(notes, (np.concatenate(frames), np.clip(np.round(pitch - detuned).astype(int), 0, 127)), weight)
    # What sounds in two frames that share no sample lasted at least as long as the gap between them.
    lasting = np.minimum(notes[:-_APART], notes[_APART:]).sum(0)
    classes: Floats = np.bincount(np.arange(128) % 12, weights=lasting, minlength=12).astype(np.float64)
    return classes, float(lasting.sum() / weight.sum())


def _peaks(power: Floats, hz: Floats) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Frame, pitch (MIDI numbers with fractions) and weight of each spectral peak."""
    left, middle, right = power[:, :-2], power[:, 1:-1], power[:, 2:]
    typical = np.median(power, axis=1, keepdims=True)
    frames, bins = np.nonzero(
        (middle > left) & (middle >= right) & (middle > _PEAK_OVER_MEDIAN**2 * typical) & (middle > _FAINT)
    )
    # Parabola through the logarithms of a peak and its neighbours: where between the bins it lies.
    a, b, c = (np.log(part[frames, bins] + _FAINT / 1e3) for part in (left, middle, right))
    exact = hz[bins + 1] + 0.5 * (a - c) / (a - 2 * b + c) * (hz[1] - hz[0])
    amplitude = np.sqrt(middle[frames, bins])
    loudness = np.sqrt(np.sqrt(power.sum(1)))[frames]
    # Low notes carry the harmony, and overtones are high: an octave up counts half.
    octaves = np.log2(exact / _FULL_WEIGHT_HZ)
    return frames, 12 * np.log2(exact / 440) + 69, amplitude / loudness * np.exp2(-np.maximum(0, octaves))
