"""Measured numbers as words, and words as sentences."""

from __future__ import annotations

from collections.abc import Sequence

Scale = Sequence[tuple[float, str]]
"""Upper bounds, rising, each with its word; the last bound is infinite."""


def word(value: float, scale: Scale) -> str:
    """The word of the first bound that `value` is below."""
    return next(name for bound, name in scale if value < bound)


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def windows(duration_s: float, length_s: float) -> list[tuple[float, float]]:
    """Back-to-back windows of `length_s`; a rest of less than half of one belongs to the last."""
    count = max(1, round(duration_s / length_s))
    edges = [number * length_s for number in range(count)]
    return [(start, min(start + length_s, duration_s)) for start in edges[:-1]] + [(edges[-1], duration_s)]
