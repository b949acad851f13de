"""Loudness after ITU-R BS.1770-4 and EBU R 128: integrated loudness in LUFS, and loudness range after EBU Tech 3342."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunesmith_captioner.arrays import Floats

_BLOCK_S, _BLOCK_HOP_S = 0.4, 0.1
_SHORT_TERM_S = 3.0
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU, _RANGE_GATE_LU = -10.0, -20.0
_OFFSET_DB = -0.691
"""BS.1770-4, equation 2: makes a 997 Hz tone at 0 dBFS in one channel read -3.01 LUFS."""

_SHELF_HZ, _SHELF_GAIN_DB, _SHELF_Q, _SHELF_VB = (
    1681.974450955533,
    3.999843853973347,
    0.7071752369554196,
    0.4996667741545416,
)
_PASS_HZ, _PASS_Q = 38.13547087602444, 0.5003270373238773
"""The analogue prototypes behind BS.1770-4's tables 1 and 2, so that the filter is right at any rate (as derived by
De Man, "Evaluation of implementations of the EBU R128 loudness measurement", AES 2018, and used by libebur128)."""

_BLOCK = 1 << 17
_TAIL_S = 0.5
"""After this time the filter's answer to what was before has fallen below -120 dB (38 Hz, Q 0.5)."""


@dataclass(frozen=True, slots=True)
class Loudness:
    """`lufs` is -inf where nothing passes the gate: silence."""

    lufs: float
    range_lu: float
    """Spread between the 10th and the 95th percentile of the loudness of 3 s; 0 where there are fewer than 3 s."""

    @property
    def silent(self) -> bool:
        """Whether nothing is loud enough to be measured."""
        return not np.isfinite(self.lufs)


def measure_loudness(stereo: Floats, rate: int) -> Loudness:
    """Loudness of (samples, 2); full scale is 1."""
    hop = round(_BLOCK_HOP_S * rate)
    power = _hop_power(stereo, rate, hop)
    blocks = _moving_mean(power, round(_BLOCK_S / _BLOCK_HOP_S))
    gated = blocks[_lufs(blocks) > _ABSOLUTE_GATE_LUFS]
    if not len(gated):
        return Loudness(-np.inf, 0.0)
    gated = gated[_lufs(gated) > float(_lufs(gated.mean())) + _RELATIVE_GATE_LU]
    return Loudness(
        round(float(_lufs(gated.mean())), 2), _range(_moving_mean(power, round(_SHORT_TERM_S / _BLOCK_HOP_S)))
    )


def _range(short_term: Floats) -> float:
    loud = short_term[_lufs(short_term) > _ABSOLUTE_GATE_LUFS]
    if not len(loud):
        return 0.0
    levels = _lufs(loud)
    levels = levels[levels > float(_lufs(loud.mean())) + _RANGE_GATE_LU]
    low, high = np.percentile(levels, [10, 95])
    return round(float(high - low), 2)


def _hop_power(stereo: Floats, rate: int, hop: int) -> Floats:
    """Mean square of the K-weighted channels, summed over channels, for each whole `hop` of samples."""
    num_hops = len(stereo) // hop
    squares = np.zeros(num_hops * hop, np.float32)
    tail = round(_TAIL_S * rate)
    response = _k_weighting(np.fft.rfftfreq(_BLOCK, 1 / rate), rate).astype(np.complex64)
    for channel in range(stereo.shape[1]):
        for start in range(0, len(squares), _BLOCK - tail):
            # Filtering by spectrum wraps around; the part that what came before reaches into is thrown away.
            before = max(0, start - tail)
            piece = np.zeros(_BLOCK, np.float32)
            lead = tail - (start - before)
            given = stereo[before : start + _BLOCK - tail, channel]
            piece[lead : lead + len(given)] = given
            filtered = np.fft.irfft(np.fft.rfft(piece) * response, _BLOCK)[tail:]
            end = min(start + _BLOCK - tail, len(squares))
            squares[start:end] += (filtered[: end - start] ** 2).astype(np.float32)
    out: Floats = squares.reshape(num_hops, hop).mean(1, dtype=np.float64)
    return out


def _k_weighting(hz: Floats, rate: int) -> npt.NDArray[np.complex128]:
    """Response of the two biquads of BS.1770-4 at `hz`: a high shelf for the head, then a high pass."""
    z = np.exp(-2j * np.pi * hz / rate)
    k = np.tan(np.pi * _SHELF_HZ / rate)
    high = 10 ** (_SHELF_GAIN_DB / 20)
    middle = high**_SHELF_VB
    a0 = 1 + k / _SHELF_Q + k * k
    shelf_b = (
        (high + middle * k / _SHELF_Q + k * k) / a0,
        2 * (k * k - high) / a0,
        (high - middle * k / _SHELF_Q + k * k) / a0,
    )
    shelf_a = (1.0, 2 * (k * k - 1) / a0, (1 - k / _SHELF_Q + k * k) / a0)
    k = np.tan(np.pi * _PASS_HZ / rate)
    a0 = 1 + k / _PASS_Q + k * k
    pass_b, pass_a = (1.0, -2.0, 1.0), (1.0, 2 * (k * k - 1) / a0, (1 - k / _PASS_Q + k * k) / a0)
    out: npt.NDArray[np.complex128] = (
        _polynomial(shelf_b, z) / _polynomial(shelf_a, z) * _polynomial(pass_b, z) / _polynomial(pass_a, z)
    )
    return out


def _polynomial(coefficients: tuple[float, float, float], z: npt.NDArray[np.complex128]) -> npt.NDArray[np.complex128]:
    first, second, third = coefficients
    return first + second * z + third * z * z


def _moving_mean(values: Floats, width: int) -> Floats:
    if len(values) < width:
        return np.zeros(0)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    out: Floats = np.maximum(0, sums[width:] - sums[:-width]) / width
    return out


def _lufs(power: Floats | float) -> Floats:
    out: Floats = _OFFSET_DB + 10 * np.log10(np.maximum(power, 1e-12))
    return out
