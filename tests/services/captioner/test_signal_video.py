"""What signal analysis says of pictures, against pictures of which it is known."""

from __future__ import annotations

import numpy as np
import pytest
from captioner_media import BLACK, BLUE, GREEN, RED, WHITE

from tunesmith_captioner.captioning import Clip
from tunesmith_captioner.signal_video import SignalVideo
from tunesmith_captioner.video.colours import colour_shares
from tunesmith_captioner.video.shots import find_cuts, measure_motion

FPS = 25


def texture(seed: int) -> np.ndarray:
    """A wide grey picture with structure, to pan over."""
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 400), dtype=np.uint8)
    return np.repeat(coarse, 2, 0)


def panned(seed: int, seconds: float, *, step: int = 0) -> np.ndarray:
    """Thumbnails of a camera that moves `step` pixels a frame."""
    wide = texture(seed)
    return np.stack([wide[:, n * step : n * step + 32] for n in range(round(seconds * FPS))])


def times(thumbnails: np.ndarray) -> np.ndarray:
    return (np.arange(len(thumbnails)) / FPS).astype(np.float32)


def clip_of(colours: list[tuple[int, int, int]], *, seconds: float = 12, size: tuple[int, int] = (224, 126)) -> Clip:
    """Plain colours in turn, for equal times."""
    width, height = size
    order = [colours[n * len(colours) // round(seconds * FPS)] for n in range(round(seconds * FPS))]
    grey = np.array(order) @ [0.299, 0.587, 0.114]
    thumbnails = np.repeat(np.repeat(grey[:, None, None], 18, 1), 32, 2).astype(np.uint8)
    frames = np.stack([np.full((height, width, 3), order[n], np.uint8) for n in range(0, len(order), FPS // 2)])
    frames = frames[: round(seconds * 2)]
    nothing = np.zeros(0, np.float32)
    return Clip(seconds, nothing, 16_000, np.zeros((0, 2), np.float32), 48_000, frames, 2, thumbnails, times(thumbnails), width, height)  # fmt: skip  # noqa: E501


def test_hard_cuts_are_found_to_the_frame() -> None:
    thumbnails = np.concatenate([panned(1, 2), panned(2, 3), panned(3, 1)])

    assert list(find_cuts(thumbnails, times(thumbnails))) == pytest.approx([2, 5], abs=0.001)


def test_fast_motion_and_flashes_are_no_cuts() -> None:
    fast = panned(1, 4, step=3)
    flash = panned(2, 4)
    flash[50] = 255

    assert len(find_cuts(fast, times(fast))) == 0
    assert len(find_cuts(flash, times(flash))) == 0


def test_motion_grows_with_the_camera_and_a_cut_is_none() -> None:
    def mean(thumbnails: np.ndarray) -> float:
        cuts = find_cuts(thumbnails, times(thumbnails))
        return float(measure_motion(thumbnails, times(thumbnails), cuts)[:, 1].mean())

    still = mean(np.concatenate([panned(1, 3), panned(2, 3)]))
    slow, fast = (mean(np.repeat(panned(1, 4, step=step), 4, axis=2)[:, :, step : step + 32]) for step in (1, 2))

    assert still == 0
    assert 0 < slow < fast


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((200, 20, 20), "red"),
        ((240, 140, 20), "orange"),
        ((110, 65, 20), "brown"),
        ((230, 220, 40), "yellow"),
        ((20, 160, 40), "green"),
        ((40, 200, 200), "turquoise"),
        ((30, 40, 200), "blue"),
        ((150, 40, 220), "purple"),
        ((250, 120, 200), "pink"),
        ((128, 128, 128), "grey"),
        ((250, 250, 250), "white"),
        ((10, 10, 10), "black"),
    ],
)
def test_colours_have_their_names(rgb: tuple[int, int, int], name: str) -> None:
    assert colour_shares(np.array([rgb], np.uint8)) == {name: 1.0}


def test_a_scene_tells_of_light_shape_shots_and_colours() -> None:
    [made] = SignalVideo().caption([clip_of([RED, GREEN, BLUE], size=(126, 224))])

    assert made.summary.startswith("A dim portrait video in 3 shots, steady cutting, with almost no motion.")
    assert all(colour in made.summary for colour in ("red", "green", "blue"))
    assert made.facts == {"shots": "3"}


def test_a_scene_that_changes_says_so() -> None:
    [brightening] = SignalVideo().caption([clip_of([BLACK, WHITE])])
    [steady] = SignalVideo().caption([clip_of([WHITE])])

    assert "grows brighter towards the end" in brightening.summary
    assert "grows" not in steady.summary
    assert "one shot" in steady.summary
