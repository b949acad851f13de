"""Light and named colours of pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesmith_captioner.arrays import Bytes, Floats

HUES = (
    (15, "red"), (40, "orange"), (68, "yellow"), (160, "green"), (195, "turquoise"), (255, "blue"), (290, "purple"),
    (345, "pink"), (360, "red"),
)  # fmt: skip
"""Upper bounds of hue in degrees with their names, after the basic colour terms of English (Berlin & Kay 1969)."""

NAMES = ("black", "white", "grey", "brown", *dict.fromkeys(name for _, name in HUES))

_BLACK, _WHITE, _GREY = 0.16, 0.85, 0.16
_BROWN_BELOW = 0.6
"""Orange this dark is called brown."""


def luma(frames: Bytes) -> Floats:
    """(frames,) mean brightness of each RGB picture, 0 to 1 (weights of ITU-R BT.601)."""
    out: Floats = frames.mean((1, 2), dtype=np.float64) @ np.array([0.299, 0.587, 0.114]) / 255
    return out


def colour_shares(pixels: Bytes) -> dict[str, float]:
    """How much of the pixels (n, 3) has each named colour, largest share first."""
    if not len(pixels):
        return {}
    rgb = pixels.astype(np.float32) / 255
    value, low = rgb.max(1), rgb.min(1)
    chroma = value - low
    saturation = chroma / np.maximum(value, 1e-6)
    names = np.empty(len(rgb), np.int64)
    hue_index = np.searchsorted(np.array([bound for bound, _ in HUES]), _hue(rgb, value, chroma), side="right")
    names[:] = np.array([NAMES.index(name) for _, name in HUES])[np.minimum(hue_index, len(HUES) - 1)]
    names[(names == NAMES.index("orange")) & (value < _BROWN_BELOW)] = NAMES.index("brown")
    names[saturation < _GREY] = NAMES.index("grey")
    names[(saturation < _GREY) & (value > _WHITE)] = NAMES.index("white")
    names[value < _BLACK] = NAMES.index("black")
    counts = np.bincount(names, minlength=len(NAMES)) / len(rgb)
    return {NAMES[at]: float(counts[at]) for at in np.argsort(-counts, kind="stable") if counts[at] > 0}


def main_colours(shares: dict[str, float], *, least: float = 0.2, most: int = 3) -> Sequence[str]:
    """The colours that cover at least `least` of the picture, at most `most` of them; else the largest one."""
    named = [name for name, share in shares.items() if share >= least][:most]
    return named or list(shares)[:1]


def _hue(rgb: Floats, value: Floats, chroma: Floats) -> Floats:
    red, green, blue = rgb[:, 0], rgb[:, 1], rgb[:, 2]
    safe = np.maximum(chroma, 1e-6)
    sector = np.where(
        value == red,
        ((green - blue) / safe) % 6,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    out: Floats = (60 * sector).astype(np.float32)
    return out
