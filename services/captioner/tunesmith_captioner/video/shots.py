"""Cuts and motion, from small grey pictures of every decoded frame."""

from __future__ import annotations

import numpy as np

from tunesmith_captioner.arrays import Bytes, Floats

MIN_CHANGE = 0.06
"""Least mean change of the picture (of full scale) that can be a cut; camera noise and slow motion stay far below."""
STANDS_OUT = 3.0
"""How many times its neighbours a change must be: fast motion changes much, but in every frame (as PySceneDetect's
adaptive detector)."""
MIN_SHOT_S = 0.2
_NEIGHBOURS = 3
MOTION_STEP_S = 0.2


def find_cuts(thumbnails: Bytes, times_s: Floats) -> Floats:
    """Times of hard cuts, rising. A flash (the picture is back in the next frame) is none; slow fades are not found."""
    if len(thumbnails) < 3:
        return np.zeros(0, np.float32)
    change = _change(thumbnails[:-1], thumbnails[1:])
    over_one = _change(thumbnails[:-2], thumbnails[2:])
    cuts: list[float] = []
    for at in np.flatnonzero(change > MIN_CHANGE):
        near = np.concatenate([change[max(0, at - _NEIGHBOURS) : at], change[at + 1 : at + 1 + _NEIGHBOURS]])
        if not len(near) or change[at] < STANDS_OUT * max(float(np.median(near)), 1e-3):
            continue
        back = at < len(over_one) and over_one[at] < 0.4 * change[at]
        was_back = at > 0 and over_one[at - 1] < 0.4 * change[at]
        time_s = float(times_s[at + 1])
        if not back and not was_back and (not cuts or time_s - cuts[-1] >= MIN_SHOT_S):
            cuts.append(time_s)
    return np.array(cuts, np.float32)


def measure_motion(thumbnails: Bytes, times_s: Floats, cuts_s: Floats) -> Floats:
    """(pairs, 2): time, and mean change of the picture (of full scale) over about MOTION_STEP_S, cuts left out."""
    picked = [0] if len(times_s) else []
    for at in range(1, len(times_s)):
        if times_s[at] - times_s[picked[-1]] >= MOTION_STEP_S - 1e-3:
            picked.append(at)
    if len(picked) < 2:
        return np.zeros((0, 2), np.float32)
    start, end = times_s[picked[:-1]], times_s[picked[1:]]
    change = _change(thumbnails[picked[:-1]], thumbnails[picked[1:]]) * (MOTION_STEP_S / (end - start))
    within_shot = np.searchsorted(cuts_s, start, side="right") == np.searchsorted(cuts_s, end, side="right")
    moving: Floats = np.stack([end, change], 1)[within_shot].astype(np.float32)
    return moving


def _change(before: Bytes, after: Bytes) -> Floats:
    difference = np.abs(after.astype(np.int16) - before)
    out: Floats = difference.mean((1, 2)) / 255
    return out
