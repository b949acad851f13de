"""Where sounds begin: an onset strength curve by band, and the onsets picked from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunesmith_captioner.arrays import Floats
from tunesmith_captioner.audio.spectrum import mel_bank, power_blocks

HOP_S = 0.01
"""Time between two values of an onset curve."""

NUM_BANDS = 24
_WINDOW = 512
_COMPRESSION = 30.0
"""log(1 + 30 x) of the energy relative to a band's loud moments: a quarter of the amplitude counts a third."""
_FAINT_BAND = 1e-3
"""Bands this far (in energy) below the loudest one are not raised to its level."""
_SILENT_ENERGY = 1e-6
_LAG = 2
"""Frames that the flux looks back, so that an attack spread over two frames counts whole (Boeck & Widmer 2013)."""
_SMOOTH_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Onsets:
    """Onset strength of a clip, HOP_S apart."""

    bands: Floats
    """(frames, NUM_BANDS) rise of the compressed energy of each mel band."""
    curve: Floats
    """(frames,) sum over bands, less its local mean, never negative."""
    times_s: Floats
    """Picked onsets, rising."""


def find_onsets(samples: Floats, rate: int) -> Onsets:
    """Onset strength by spectral flux of log-compressed mel bands, and its peaks."""
    hop = round(HOP_S * rate)
    bank = mel_bank(num_bands=NUM_BANDS, window=_WINDOW, rate=rate, low_hz=30, high_hz=rate / 2)
    padded = np.pad(samples, _WINDOW // 2)  # so that frame n is centred at n * HOP_S
    blocks = [block @ bank for block in power_blocks(padded, window=_WINDOW, hop=hop)]
    energy = np.concatenate(blocks) if blocks else np.zeros((0, NUM_BANDS), np.float32)
    if float(energy.max(initial=0)) < _SILENT_ENERGY:
        return Onsets(np.zeros_like(energy), np.zeros(len(energy), np.float32), np.zeros(0, np.float32))
    loud = np.percentile(energy, 99, axis=0)
    energy = np.log1p(_COMPRESSION * energy / np.maximum(loud, _FAINT_BAND * loud.max() + _SILENT_ENERGY))
    bands = np.zeros_like(energy)
    bands[_LAG:] = np.maximum(0, energy[_LAG:] - energy[:-_LAG])
    flux = bands.sum(1)
    curve = np.maximum(0, flux - local_mean(flux, round(_SMOOTH_S / HOP_S))).astype(np.float32)
    return Onsets(bands, curve, _peaks(flux))


def local_mean(values: Floats, width: int) -> Floats:
    """Moving average over `width` values around each one, over fewer at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    at = np.arange(len(values))
    low, high = np.maximum(0, at - width // 2), np.minimum(len(values), at + width // 2 + 1)
    mean: Floats = ((sums[high] - sums[low]) / (high - low)).astype(np.float32)
    return mean


def _peaks(flux: Floats) -> Floats:
    """Times of local maxima that stand out of their surroundings, at least 50 ms apart."""
    reach = 3
    padded = np.pad(flux, reach, mode="edge")
    highest = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(1)
    typical = local_mean(flux, 40)
    floor = 0.15 * float(np.percentile(flux, 99)) if len(flux) else 0.0
    found = np.flatnonzero((flux >= highest) & (flux > 1.5 * typical) & (flux > max(floor, NUM_BANDS * 0.05)))
    kept: list[int] = []
    for at in found:
        if not kept or at - kept[-1] >= 0.05 / HOP_S:
            kept.append(int(at))
    return (np.array(kept, dtype=np.float32) * HOP_S).astype(np.float32)
