"""The pictures of a sample clip: shots of shapes that move over a background."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunesmith_scraper.clips.plan import Clip

WIDTH, HEIGHT = 160, 90
FRAMES_PER_S = 12

Picture = npt.NDArray[np.uint8]
"""HEIGHT x WIDTH x 3, red, green, blue."""

_ROWS, _COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Shape:
    """A disc or box; places in picture widths, speeds in picture widths a second."""

    round: bool
    x: float
    y: float
    dx: float
    dy: float
    size: float
    colour: tuple[float, float, float]


def painted(clip: Clip) -> Iterator[Picture]:
    """The clip's frames in order; a new shot begins every `beats_per_shot` beats."""
    random = np.random.default_rng(clip.seed + 1)
    shot_s = clip.beats_per_shot * 60 / clip.tempo_bpm
    shot = -1
    background = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    shapes: list[_Shape] = []
    for number in range(round(clip.seconds * FRAMES_PER_S)):
        at_s = number / FRAMES_PER_S
        if int(at_s / shot_s) != shot:
            shot = int(at_s / shot_s)
            background, shapes = _shot(clip, random)
        yield _frame(background, shapes, at_s - shot * shot_s)


def _shot(clip: Clip, random: np.random.Generator) -> tuple[npt.NDArray[np.float32], list[_Shape]]:
    hue = clip.hue + float(random.uniform(-8, 8))
    light = float(np.clip(clip.light * random.uniform(0.85, 1.15), 0.05, 1))
    top, bottom = (np.array(_colour(hue, 0.75, light * share), np.float32) for share in (1.0, 0.8))
    fall = (_ROWS / HEIGHT)[..., None]
    shapes = []
    for _ in range(int(random.integers(2, 5))):
        angle = float(random.uniform(0, 2 * np.pi))
        speed = clip.motion / 10
        shape_light = min(1.0, light * float(random.uniform(1.2, 1.7)))
        shapes.append(
            _Shape(
                round=bool(random.random() < 0.5),
                x=float(random.uniform(0, 1)),
                y=float(random.uniform(0, HEIGHT / WIDTH)),
                dx=speed * float(np.cos(angle)),
                dy=speed * float(np.sin(angle)),
                size=float(random.uniform(0.06, 0.16)),
                colour=_colour(hue + float(random.uniform(-25, 25)), 0.6, shape_light),
            )
        )
    return top * (1 - fall) + bottom * fall, shapes


def _frame(background: npt.NDArray[np.float32], shapes: list[_Shape], at_s: float) -> Picture:
    picture = background.copy()
    for shape in shapes:
        x = _bounced(shape.x + shape.dx * at_s, 1.0) * WIDTH
        y = _bounced(shape.y + shape.dy * at_s, HEIGHT / WIDTH) * WIDTH
        size = shape.size * WIDTH
        across, down = np.abs(_COLUMNS - x), np.abs(_ROWS - y)
        inside = across**2 + down**2 < size**2 if shape.round else (across < size) & (down < size)
        picture[inside] = shape.colour
    return np.asarray(np.clip(picture * 255, 0, 255), np.uint8)


def _bounced(place: float, end: float) -> float:
    """`place` on a line from 0 to `end` that reflects at both ends."""
    folded = place % (2 * end)
    return min(folded, 2 * end - folded)


def _colour(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
