"""A clip's sound and pictures as arrays on disk. Runs in the child process only: what it decodes is hostile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from tunesmith_captioner.decode.cut import chosen_streams, open_media
from tunesmith_captioner.decode.limits import (
    AUDIO_RATE,
    FRAME_RATE,
    FRAME_SIDE,
    LOUDNESS_RATE,
    THUMBNAIL_HEIGHT,
    THUMBNAIL_WIDTH,
    DecodeLimits,
    Unreadable,
)

MANY_PIXELS = 1280 * 720
"""From frames larger than this on, those that no other frame refers to are skipped: half the work, and still more
than ten frames a second."""

MIN_DURATION_S = 1.0
"""Shorter clips have nothing to describe."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What was written: raw little-endian arrays in the folder."""

    duration_s: float
    num_audio: int
    """float32 values in `audio`, mono at AUDIO_RATE; 0 without sound."""
    num_stereo: int
    """float32 pairs in `stereo`, interleaved at LOUDNESS_RATE."""
    num_frames: int
    """RGB pictures of `frame_height` x `frame_width` bytes in `frames`, FRAME_RATE a second; 0 without pictures."""
    frame_width: int
    frame_height: int
    num_thumbnails: int
    """Grey pictures in `thumbnails`, one a decoded frame, with their times in seconds in `times` (float32)."""
    source_width: int
    """As shown: after rotation."""
    source_height: int

    def to_json(self) -> dict[str, Any]:
        """As the child tells its parent."""
        return asdict(self)


def sample(clip: Path, folder: Path, limits: DecodeLimits) -> Sampled:
    """Decode `clip` into `folder`. Unreadable: `undecodable`, `too_short`, `too_large`, and what opening raises."""
    with open_media(clip, limits) as container:
        video, audio = chosen_streams(container)
        sound = (0, 0)
        if audio is not None:
            sound = _sound(container, audio, folder, limits)
    pictures = _Pictures(folder, limits)
    if video is not None:
        with open_media(clip, limits) as container:
            pictures.write(container)
    if sound[0] == 0 and pictures.num_thumbnails == 0:
        raise Unreadable("undecodable", "no frame could be decoded")
    duration_s = max(sound[0] / AUDIO_RATE, pictures.duration_s)
    if duration_s < MIN_DURATION_S:
        raise Unreadable("too_short", f"{duration_s:.2f} s; at least {MIN_DURATION_S} s are needed")
    return Sampled(
        duration_s=duration_s,
        num_audio=sound[0],
        num_stereo=sound[1],
        num_frames=pictures.num_frames,
        frame_width=pictures.width,
        frame_height=pictures.height,
        num_thumbnails=pictures.num_thumbnails,
        source_width=pictures.source_width,
        source_height=pictures.source_height,
    )


def _sound(container: InputContainer, stream: AudioStream, folder: Path, limits: DecodeLimits) -> tuple[int, int]:
    mono = av.AudioResampler(format="flt", layout="mono", rate=AUDIO_RATE)
    stereo = av.AudioResampler(format="flt", layout="stereo", rate=LOUDNESS_RATE)
    with (folder / "audio").open("wb") as audio_file, (folder / "stereo").open("wb") as stereo_file:
        writers = (
            (mono, audio_file, AUDIO_RATE * limits.clip_s * 4),
            (stereo, stereo_file, LOUDNESS_RATE * limits.clip_s * 8),
        )
        for frame in chain(_decoded(container, stream), [None]):
            for resampler, file, max_bytes in writers:
                for resampled in resampler.resample(frame):
                    values = np.nan_to_num(resampled.to_ndarray().reshape(-1), copy=False)
                    file.write(values.clip(-4.0, 4.0).tobytes()[: max(0, max_bytes - file.tell())])
        return audio_file.tell() // 4, stereo_file.tell() // 8


class _Pictures:
    """Writes sampled frames and thumbnails as they are decoded."""

    def __init__(self, folder: Path, limits: DecodeLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._shrink = VideoReformatter()
        self._grey = VideoReformatter()
        self.width = self.height = self.source_width = self.source_height = 0
        self.num_frames = self.num_thumbnails = 0
        self.duration_s = 0.0

    def write(self, container: InputContainer) -> None:
        stream = chosen_streams(container)[0]
        assert stream is not None
        if stream.codec_context.width * stream.codec_context.height > MANY_PIXELS:
            stream.codec_context.skip_frame = "NONREF"
        times: list[float] = []
        shown: av.VideoFrame | None = None
        with (self._folder / "frames").open("wb") as frames, (self._folder / "thumbnails").open("wb") as thumbnails:
            for frame in _decoded(container, stream):
                time_s = frame.time if frame.time is not None else self.duration_s
                if time_s >= self._limits.clip_s or len(times) >= self._limits.max_frames:
                    break
                if frame.width * frame.height > self._limits.max_pixels:
                    raise Unreadable("too_large", f"a frame of {frame.width}x{frame.height} pixels")
                # At each tick the picture that is on the screen then, whatever the frames' own pace.
                self._tick(frames, shown or frame, until_s=time_s)
                grey = self._grey.reformat(
                    frame, width=THUMBNAIL_WIDTH, height=THUMBNAIL_HEIGHT, format="gray", interpolation="AREA"
                )
                thumbnails.write(grey.to_ndarray().tobytes())
                times.append(time_s)
                self.duration_s = max(self.duration_s, time_s + (frame.duration or 0) * float(frame.time_base or 0))
                shown = frame
            if shown is not None:
                self._tick(frames, shown, until_s=min(self.duration_s, float(self._limits.clip_s)))
                if self.num_frames == 0:
                    self._tick(frames, shown, until_s=1e-3)
        np.array(times, dtype="<f4").tofile(self._folder / "times")
        self.num_thumbnails = len(times)

    def _tick(self, file: BinaryIO, shown: av.VideoFrame, *, until_s: float) -> None:
        """Write `shown` for every tick before `until_s` that has no picture yet."""
        missing = int(np.ceil(until_s * FRAME_RATE - 1e-6)) - self.num_frames
        if missing <= 0:
            return
        data = self._small(shown).tobytes()
        for _ in range(missing):
            file.write(data)
        self.num_frames += missing

    def _small(self, frame: av.VideoFrame) -> np.ndarray[Any, np.dtype[np.uint8]]:
        turns = round(frame.rotation / 90) % 4
        if not self.width:
            ratio = frame.sample_aspect_ratio if hasattr(frame, "sample_aspect_ratio") else None
            stretched = frame.width * (float(ratio) if ratio else 1.0)
            scale = FRAME_SIDE / max(stretched, frame.height)
            self._coded = (max(2, round(stretched * scale)), max(2, round(frame.height * scale)))
            self.width, self.height = self._coded if turns % 2 == 0 else self._coded[::-1]
            sides = (round(stretched), frame.height)
            self.source_width, self.source_height = sides if turns % 2 == 0 else sides[::-1]
            self._turns = turns
        width, height = self._coded
        small = self._shrink.reformat(frame, width=width, height=height, format="rgb24", interpolation="AREA")
        return np.rot90(small.to_ndarray(), self._turns)


def _decoded(container: InputContainer, stream: Any) -> Iterator[Any]:
    """The stream's frames; damaged ones are left out."""
    stream.codec_context.thread_count = 1
    if isinstance(stream, VideoStream):
        stream.codec_context.thread_type = "NONE"
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue
