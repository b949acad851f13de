"""What one media file may cost, and the reasons for which one cannot be decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

TOO_SLOW, OUT_OF_MEMORY, DECODER_CRASHED = "too_slow", "out_of_memory", "decoder_crashed"
"""Reasons that are this machine's as much as the file's; they are not remembered for another time."""

AUDIO_RATE = 16_000
"""Samples a second of the mono sound that captioners hear."""
LOUDNESS_RATE = 48_000
"""Samples a second of the stereo sound that loudness is measured on, the rate for which its filter is specified."""
FRAME_RATE = 2
"""Pictures a second that captioners see."""
FRAME_SIDE = 224
"""Longer side of those pictures, in pixels."""
THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT = 32, 18
"""Size of the grey thumbnails, one a decoded frame, that cuts and motion are measured on."""


class Unreadable(Exception):
    """A media file that gives no clip, or a clip that gives no samples.

    `reason` is the snake_case word that a record carries as `caption_error`; `detail` is for people.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Caps of one child process. Beyond them the file is refused, never the machine slowed down."""

    clip_s: int = 60
    """Seconds from the start of the file that are cut out."""
    max_media_bytes: int = 4 * 2**30
    max_clip_bytes: int = 512 * 2**20
    max_pixels: int = 8192 * 4320
    """Of one frame."""
    max_frames: int = 15_000
    """Of one clip: 60 s at 250 frames a second."""
    max_streams: int = 32
    memory_mib: int = 1536
    """Address space of the child."""
    cpu_s: int = 120
    wall_s: int = 300

    def to_json(self) -> dict[str, Any]:
        """The limits as the child gets them."""
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> DecodeLimits:
        """The inverse of `to_json`."""
        return DecodeLimits(**row)
