"""What every captioner is: clips in, captions with window times out.

Light: numpy is not imported here, so that a server can list captioners without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MediaKind = Literal["audio", "video"]

CaptionKind = Literal["music", "scene"]

KIND_OF: Mapping[MediaKind, CaptionKind] = {"audio": "music", "video": "scene"}
"""What a captioner of each kind of media tells of."""

WINDOW_S = 10.0
"""Length of the windows of audio captions; 10 s is what music captioners are trained on (lp-music-caps, MusicCaps)."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """The decoded first seconds of a record's media. Arrays may be mapped from files and are read-only."""

    duration_s: float
    audio: npt.NDArray[np.float32]
    """(samples,) mono in [-1, 1] at `audio_rate`; empty without sound."""
    audio_rate: int
    stereo: npt.NDArray[np.float32]
    """(samples, 2) at `stereo_rate`, full bandwidth, for loudness."""
    stereo_rate: int
    frames: npt.NDArray[np.uint8]
    """(frames, height, width, 3) RGB as shown (rotated upright), `frame_rate` a second; empty without pictures."""
    frame_rate: float
    thumbnails: npt.NDArray[np.uint8]
    """(decoded frames, height, width) grey, one for each decoded frame."""
    thumbnail_times_s: npt.NDArray[np.float32]
    """(decoded frames,) rising."""
    width: int
    """Of the source as shown, in pixels; 0 without pictures."""
    height: int
    cut: str = "kept"
    """How the clip was made: `copied`, `encoded`, or `kept` where it was there."""

    def has(self, kind: MediaKind) -> bool:
        """Whether there is sound, or a picture."""
        return len(self.audio) > 0 if kind == "audio" else len(self.frames) > 0


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence or two about the seconds from `start_s` to `end_s` of a clip."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Captioned:
    """What a captioner made of one clip; or, with `error`, why it made nothing."""

    captions: tuple[Caption, ...] = ()
    """By window, in time order."""
    summary: str = ""
    """About the whole clip; empty where the windows say all."""
    tags: tuple[str, ...] = ()
    """Lower-case, most telling first; a tempo tag `N bpm` last."""
    facts: Mapping[str, str] | None = None
    """Further record fields: `tempo_bpm`, `tempo_confidence`, `key`, ..."""
    error: str = ""
    """A snake_case reason: `no_audio`, `no_video`, `silent`, ..."""

    @property
    def text(self) -> str:
        """The summary, or what the windows say, each sentence once."""
        return self.summary or " ".join(dict.fromkeys(caption.text for caption in self.captions))

    def to_json(self) -> dict[str, Any]:
        """As it is kept in the store."""
        return {
            "captions": [[c.start_s, c.end_s, c.text] for c in self.captions],
            "summary": self.summary,
            "tags": list(self.tags),
            "facts": dict(self.facts or {}),
            "error": self.error,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Captioned:
        """The inverse of `to_json`."""
        return Captioned(
            captions=tuple(Caption(float(start), float(end), str(text)) for start, end, text in row["captions"]),
            summary=row["summary"],
            tags=tuple(row["tags"]),
            facts=dict(row["facts"]),
            error=row["error"],
        )


class Captioner(Protocol):
    """Turns clips into captions. One object serves a whole job, so a model is loaded once.

    The same clip gives the same captions, whatever stands beside it in the batch: captioners decode greedily or with a
    fixed seed. `version` changes whenever the captions of some clip would; results are kept under name and version.
    """

    @property
    def name(self) -> str:
        """As `ListCaptioners` and captions give it: the model's name, or `signal-…` for what needs no weights."""
        ...

    @property
    def version(self) -> str:
        """Of model, weights and settings together."""
        ...

    @property
    def media_kind(self) -> MediaKind:
        """What of a clip it looks at."""
        ...

    def caption(self, clips: Sequence[Clip]) -> Sequence[Captioned]:
        """One answer for each clip, in order. A clip without the captioner's kind of media gets an `error`."""
        ...
