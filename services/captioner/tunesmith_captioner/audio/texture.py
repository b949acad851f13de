"""What sound is like from moment to moment: level, brightness, how many strokes, how percussive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunesmith_captioner.arrays import Floats
from tunesmith_captioner.audio.spectrum import mel_bank, power_blocks

HOP_S = 0.02
_WINDOW = 1024
_NUM_BANDS = 40
_MEDIAN_FRAMES, _MEDIAN_BANDS = 17, 9
"""About a third of a second, and about an octave in the middle bands."""


@dataclass(frozen=True, slots=True, eq=False)
class Texture:
    """Curves HOP_S apart."""

    level_db: Floats
    """Power in decibels; -100 for silence."""
    centroid_hz: Floats
    """Centre of gravity of the amplitude spectrum, in Hz; 0 in silence."""
    percussive_share: float
    """Share of the energy that stands across the spectrum rather than along time, 0 to 1."""

    def brightness_hz(self, start_s: float, end_s: float) -> float:
        """Median centroid of the moments that are not quiet; 0 in silence."""
        part = slice(round(start_s / HOP_S), max(round(end_s / HOP_S), round(start_s / HOP_S) + 1))
        level, centroid = self.level_db[part], self.centroid_hz[part]
        if not len(level) or level.max() <= _SILENT_DB:
            return 0.0
        return float(np.median(centroid[level > max(level.max() - 30, _SILENT_DB)]))

    def mean_level_db(self, start_s: float, end_s: float) -> float:
        """Mean power of a stretch, in decibels."""
        part = self.level_db[round(start_s / HOP_S) : max(round(end_s / HOP_S), round(start_s / HOP_S) + 1)]
        return float(10 * np.log10(np.mean(10 ** (part / 10)))) if len(part) else _SILENT_DB


_SILENT_DB = -90.0


def measure_texture(samples: Floats, rate: int) -> Texture:
    """Level, brightness and percussiveness of a clip."""
    hop = round(HOP_S * rate)
    bank = mel_bank(num_bands=_NUM_BANDS, window=_WINDOW, rate=rate, low_hz=40, high_hz=rate / 2)
    hz = np.fft.rfftfreq(_WINDOW, 1 / rate).astype(np.float32)
    levels, centroids, energies = [], [], []
    for block in power_blocks(samples, window=_WINDOW, hop=hop):
        amplitude = np.sqrt(block)
        total = amplitude.sum(1)
        # Parseval: a full-scale square wave has 0 dB.
        levels.append(10 * np.log10(2 * block.sum(1) / (_WINDOW * (_WINDOW * 3 / 8)) + 1e-10))
        centroids.append(np.where(total > 1e-4, amplitude @ hz / np.maximum(total, 1e-9), 0))
        energies.append(block @ bank)
    if not levels:
        empty = np.zeros(0, np.float32)
        return Texture(empty, empty, 0.0)
    return Texture(
        np.concatenate(levels).astype(np.float32),
        np.concatenate(centroids).astype(np.float32),
        _percussive_share(np.concatenate(energies)),
    )


def _percussive_share(energy: Floats) -> float:
    """Harmonic-percussive separation by median filters (Fitzgerald 2010), on mel bands: the percussive share."""
    if len(energy) < _MEDIAN_FRAMES or not energy.any():
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view
    along = np.pad(energy, ((_MEDIAN_FRAMES // 2,) * 2, (0, 0)), mode="edge")
    across = np.pad(energy, ((0, 0), (_MEDIAN_BANDS // 2,) * 2), mode="edge")
    harmonic = np.median(windows(along, _MEDIAN_FRAMES, axis=0), axis=-1)
    percussive = np.median(windows(across, _MEDIAN_BANDS, axis=1), axis=-1)
    mask = percussive**2 / (percussive**2 + harmonic**2 + 1e-20)
    return float((mask * energy).sum() / energy.sum())
