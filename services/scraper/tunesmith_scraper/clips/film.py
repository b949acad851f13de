"""A sample clip as an MP4 file."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np

from tunesmith_scraper.clips.music import SAMPLES_PER_S, composed
from tunesmith_scraper.clips.pictures import FRAMES_PER_S, HEIGHT, WIDTH, painted
from tunesmith_scraper.clips.plan import Clip

VIDEO_CODECS = ("libx264", "mpeg4")
"""The first that this FFmpeg can write with."""
_AUDIO_BITS_PER_S = 64_000


def write_clip(clip: Clip, path: Path) -> None:
    """Compose, paint and encode `clip` to `path`. The same plan and FFmpeg give the same bytes."""
    sound = composed(clip)
    pictures = painted(clip)
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream(_video_codec(), rate=FRAMES_PER_S)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        # With more threads, where a frame is cut into slices depends on the machine. x264's macroblock tree reads
        # memory that nobody wrote (MALLOC_PERTURB_ shows it): its bytes differ now and then.
        video.options = {"preset": "veryfast", "crf": "30", "threads": "1", "x264-params": "mbtree=0"}
        audio = container.add_stream("aac", rate=SAMPLES_PER_S, layout="mono")
        assert isinstance(audio, av.AudioStream)
        audio.bit_rate = _AUDIO_BITS_PER_S
        # Second by second, so that sound and pictures of a moment lie together in the file.
        for start in range(0, sound.size, SAMPLES_PER_S):
            for packet in _encoded_pictures(video, islice(pictures, FRAMES_PER_S), start // SAMPLES_PER_S):
                container.mux(packet)
            frame = av.AudioFrame.from_ndarray(sound[None, start : start + SAMPLES_PER_S], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLES_PER_S, start, Fraction(1, SAMPLES_PER_S)
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _encoded_pictures(
    video: av.VideoStream, pictures: Iterator[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]], second: int
) -> Iterator[av.Packet[av.VideoStream]]:
    for number, picture in enumerate(pictures, start=second * FRAMES_PER_S):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_S)
        yield from video.encode(frame)


def _video_codec() -> str:
    return next(name for name in VIDEO_CODECS if name in av.codecs_available)
