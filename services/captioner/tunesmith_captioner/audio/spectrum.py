"""Short-time spectra of a clip's sound, in blocks so that memory stays flat."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tunesmith_captioner.arrays import Floats

_FRAMES_A_BLOCK = 512


def power_blocks(samples: Floats, *, window: int, hop: int) -> Iterator[Floats]:
    """Power spectra (frames, window // 2 + 1) of Hann-windowed frames that start every `hop` samples, block by block.

    Frames that would reach beyond the end are left out.
    """
    if len(samples) < window:
        return
    # Periodic Hann, as spectra want it: its last value is not its first.
    hann = np.hanning(window + 1)[:-1].astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    for start in range(0, len(frames), _FRAMES_A_BLOCK):
        spectra = np.fft.rfft(frames[start : start + _FRAMES_A_BLOCK] * hann)
        yield (spectra.real**2 + spectra.imag**2).astype(np.float32)


def mel_bank(*, num_bands: int, window: int, rate: int, low_hz: float, high_hz: float) -> Floats:
    """Triangular filters (bins, bands), evenly spaced on the mel scale 2595 log10(1 + f / 700) (O'Shaughnessy 1987)."""
    mel = 2595 * np.log10(1 + np.array([low_hz, high_hz]) / 700)
    edges = 700 * (10 ** (np.linspace(mel[0], mel[1], num_bands + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(window, 1 / rate)[:, None]
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    bank: Floats = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    return bank
