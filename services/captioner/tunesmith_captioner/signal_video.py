"""`signal-video`: what signal analysis knows of a clip's pictures: shots, motion, light, colour. No objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesmith_captioner.arrays import Bytes, Floats
from tunesmith_captioner.captioning import WINDOW_S, Caption, Captioned, Clip, MediaKind
from tunesmith_captioner.video.colours import colour_shares, luma, main_colours
from tunesmith_captioner.video.shots import find_cuts, measure_motion
from tunesmith_captioner.words import Scale, listed, windows, word

_INFINITE = float("inf")

LIGHT: Scale = ((0.2, "dark"), (0.4, "dim"), (0.62, "evenly lit"), (_INFINITE, "bright"))
"""Mean luma of the picture."""
MOTION: Scale = (
    (0.004, "almost no motion"),
    (0.02, "gentle motion"),
    (0.06, "lively motion"),
    (_INFINITE, "fast motion"),
)
"""Mean change of the picture in a fifth of a second, cuts left out."""
PACE: Scale = ((2, "fast cutting"), (6, "steady cutting"), (_INFINITE, "slow cutting"))
"""Mean length of a shot, in seconds."""
LIGHT_CHANGE = 0.12
"""Least difference of luma between the first and the last third that is worth a word."""
_PIXEL_STEP = 4


class SignalVideo:
    """A scene description of light, colour, motion and cutting."""

    name = "signal-video"
    version = "1"
    media_kind: MediaKind = "video"

    def caption(self, clips: Sequence[Clip]) -> Sequence[Captioned]:
        """As Captioner says. A clip without pictures is `no_video`."""
        return [self._one(clip) for clip in clips]

    def _one(self, clip: Clip) -> Captioned:
        if not clip.has("video"):
            return Captioned(error="no_video")
        cuts = find_cuts(clip.thumbnails, clip.thumbnail_times_s)
        motion = measure_motion(clip.thumbnails, clip.thumbnail_times_s, cuts)
        brightness = luma(clip.frames)
        duration_s = min(len(clip.frames) / clip.frame_rate, clip.duration_s)
        return Captioned(
            captions=tuple(
                _window(start, end, clip, motion, brightness, cuts) for start, end in windows(duration_s, WINDOW_S)
            ),
            summary=_summary(clip, duration_s, motion, brightness, cuts),
            facts={"shots": str(len(cuts) + 1)},
        )


def _summary(
    clip: Clip,
    duration_s: float,
    motion: Floats,
    brightness: Floats,
    cuts: Floats,
) -> str:
    light, shape = word(float(np.median(brightness)), LIGHT), _shape(clip)
    article = "An" if light[0] in "aeiou" else "A"
    colours = main_colours(colour_shares(_pixels(clip.frames)))
    shots = "one shot" if not len(cuts) else f"{len(cuts) + 1} shots"
    pace = f", {word(duration_s / (len(cuts) + 1), PACE)}" if len(cuts) else ""
    sentences = [
        f"{article} {light} {shape} video in {shots}{pace}, with {word(_mean(motion[:, 1]), MOTION)}.",
        f"The picture is mostly {listed(colours)}.",
    ]
    third = max(1, len(brightness) // 3)
    change = float(brightness[-third:].mean() - brightness[:third].mean())
    if len(brightness) >= 3 and abs(change) >= LIGHT_CHANGE:
        sentences.append(f"It grows {'brighter' if change > 0 else 'darker'} towards the end.")
    first, last = (_mean(part[:, 1]) for part in (motion[: len(motion) // 3], motion[-(len(motion) // 3) or None :]))
    if max(first, last) > 0.01 and max(first, last) > 3 * min(first, last):
        sentences.append(f"It is {'calmer' if first > last else 'more moving'} at the end than at the start.")
    return " ".join(sentences)


def _window(
    start_s: float,
    end_s: float,
    clip: Clip,
    motion: Floats,
    brightness: Floats,
    cuts: Floats,
) -> Caption:
    part = slice(int(start_s * clip.frame_rate), max(int(end_s * clip.frame_rate), int(start_s * clip.frame_rate) + 1))
    moving = motion[(motion[:, 0] > start_s) & (motion[:, 0] <= end_s), 1]
    colours = main_colours(colour_shares(_pixels(clip.frames[part])))
    num_cuts = int(np.count_nonzero((cuts > start_s) & (cuts <= end_s)))
    cutting = "" if not num_cuts else f", {num_cuts} cut{'s' if num_cuts > 1 else ''}"
    light = word(float(np.median(brightness[part])), LIGHT).capitalize()
    return Caption(
        round(start_s, 2),
        round(end_s, 2),
        f"{light}, mostly {listed(colours)}, {word(_mean(moving), MOTION)}{cutting}.",
    )


def _pixels(frames: Bytes) -> Bytes:
    return frames[:, ::_PIXEL_STEP, ::_PIXEL_STEP].reshape(-1, 3)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0


def _shape(clip: Clip) -> str:
    ratio = clip.width / max(clip.height, 1)
    return "square" if 0.9 < ratio < 1.1 else "landscape" if ratio > 1 else "portrait"
