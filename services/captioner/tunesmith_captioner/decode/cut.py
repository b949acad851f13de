"""The first seconds of a media file as a file of their own: packets copied where the container allows, else made anew.

Runs in the child process only: what it opens is hostile.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from tunesmith_captioner.decode.limits import DecodeLimits, Unreadable

DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,wav,w64,aiff,flac,mp3,aac"
"""Containers that are opened. Playlists, image sequences and other formats that name further files or addresses are
not among them."""

_HEADER_TELLS_DURATION = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv", "asf", "wav")
"""Demuxers whose duration is what the file says of itself, not an estimate from its size and bit rate."""

INTERLEAVE_S = 10.0
"""How far one stream may run ahead of another before the other is taken to have ended."""
SHORTFALL_S = 1.0
"""How much less than it announces a file may hold: headers round, and tracks do not end together."""

_MAX_ENCODED_SIDE = 1280
_ENCODED_RATE = 48_000

How = Literal["copied", "encoded"]

Stream = VideoStream | AudioStream


def open_media(path: Path, limits: DecodeLimits) -> InputContainer:
    """Open a local file; Unreadable when it is empty, of no known container, or torn before its index."""
    if path.stat().st_size == 0:
        raise Unreadable("zero_length", "the file is empty")
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": DEMUXERS,
    }
    try:
        container = av.open(f"file:{path}", mode="r", options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        if lacks_index(path):
            raise Unreadable("truncated", "the file ends before its index (moov)") from error
        raise Unreadable("undecodable", str(error)) from error
    if len(container.streams) > limits.max_streams:
        container.close()
        raise Unreadable("too_many_streams", f"more than {limits.max_streams} streams")
    return container


def lacks_index(path: Path) -> bool:
    """Whether the file is an MP4 whose boxes end before a `moov`: a download or recording that was cut off.

    Boxes are read as ISO/IEC 14496-12, 4.2 lays them out: 32-bit size and type, size 1 for a 64-bit size behind them.
    """
    size_bytes = path.stat().st_size
    position = 0
    first = True
    with path.open("rb") as file:
        while position + 8 <= size_bytes:
            file.seek(position)
            head = file.read(16)
            size, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if first and kind != b"ftyp":
                return False
            first = False
            if kind == b"moov":
                return position + size > size_bytes
            if size == 1:
                size = int.from_bytes(head[8:16], "big")
            if size < 8:
                return True
            position += size
    return not first


def chosen_streams(container: InputContainer) -> tuple[VideoStream | None, AudioStream | None]:
    """The first moving picture, which a cover image is not, and the first sound."""
    # A stream of a codec that nobody knows has no context.
    videos = [s for s in container.streams.video if s.codec_context and not s.disposition & Disposition.attached_pic]
    video = next(iter(videos), None)
    audio = next((s for s in container.streams.audio if s.codec_context), None)
    return video, audio


def cut(source: Path, clip: Path, limits: DecodeLimits) -> How:
    """Write the first `limits.clip_s` seconds of `source` to `clip`: Matroska, at most one stream of each kind.

    Only what lies before the end of the clip is read, however long the file. Raises Unreadable: `no_streams`,
    `truncated`, `too_large`, `too_many_frames`, `zero_length`, and what `open_media` raises.
    """
    try:
        _copy(source, clip, limits)
        return "copied"
    except (av.error.FFmpegError, ValueError):
        # Packets without times, or a codec that Matroska has no name for (ValueError): made anew.
        clip.unlink(missing_ok=True)
    try:
        _encode(source, clip, limits)
    except (av.error.FFmpegError, ValueError) as error:
        raise Unreadable("undecodable", str(error)) from error
    return "encoded"


def _copy(source: Path, clip: Path, limits: DecodeLimits) -> None:
    with open_media(source, limits) as container, _output(clip) as out:
        streams = _wanted(container, limits)
        copies = {stream.index: out.add_stream_from_template(stream) for stream in streams}
        for packet, offset in _packets(container, streams, limits):
            if packet.dts is None:
                raise av.error.InvalidDataError(0, "a packet without time", str(clip))
            packet.dts -= offset
            if packet.pts is not None:
                packet.pts -= offset
            packet.stream = copies[packet.stream.index]
            out.mux(packet)


def _encode(source: Path, clip: Path, limits: DecodeLimits) -> None:
    with open_media(source, limits) as container, _output(clip) as out:
        streams = _wanted(container, limits)
        made: dict[int, Any] = {}
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=_ENCODED_RATE)
        num_samples = 0
        for stream in streams:
            stream.codec_context.thread_count = 1
            if isinstance(stream, VideoStream):
                made[stream.index] = _video_encoder(out, stream)
            else:
                made[stream.index] = out.add_stream("aac", rate=_ENCODED_RATE, layout="stereo")
        last_pts = -1
        for packet, _ in _packets(container, streams, limits):
            target = made[packet.stream.index]
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue  # a damaged frame among good ones
            for frame in frames:
                if isinstance(frame, av.VideoFrame):
                    time_s = _frame_time_s(frame, last_pts, target)
                    frame.pts = last_pts = max(round(time_s / target.codec_context.time_base), last_pts + 1)
                    frame.time_base = target.codec_context.time_base
                    frame.pict_type = cast(Any, 0)
                    out.mux(target.encode(frame))
                else:
                    for resampled in resampler.resample(frame):
                        resampled.pts, num_samples = num_samples, num_samples + resampled.samples
                        resampled.time_base = Fraction(1, _ENCODED_RATE)
                        out.mux(target.encode(resampled))
        for target in made.values():
            out.mux(target.encode(None))


def _video_encoder(out: OutputContainer, stream: VideoStream) -> VideoStream:
    context = stream.codec_context
    scale = min(1.0, _MAX_ENCODED_SIDE / max(context.width, context.height, 1))
    made = out.add_stream("libx264", rate=stream.average_rate or 25)
    made.width, made.height = (max(2, round(side * scale / 2) * 2) for side in (context.width, context.height))
    made.pix_fmt = "yuv420p"
    made.codec_context.time_base = Fraction(1, 1000)
    # x264's macroblock tree reads memory that nobody wrote: an attempt repeated would not always give the same bytes.
    made.options = {"preset": "veryfast", "crf": "25", "threads": "1", "x264-params": "mbtree=0"}
    return made


def _frame_time_s(frame: av.VideoFrame, last_pts: int, target: Any) -> float:
    if frame.time is not None:
        return max(frame.time, 0.0)
    return float((last_pts + 1) * target.codec_context.time_base + 1 / (target.average_rate or 25))


def _output(clip: Path) -> OutputContainer:
    # Equal packets give equal bytes: without this Matroska gets a random segment id and the time of day.
    return av.open(str(clip), mode="w", format="matroska", options={"fflags": "+bitexact"})


def _wanted(container: InputContainer, limits: DecodeLimits) -> list[Stream]:
    video, audio = chosen_streams(container)
    if video is None and audio is None:
        raise Unreadable("no_streams", "neither picture nor sound")
    if video is not None and video.codec_context.width * video.codec_context.height > limits.max_pixels:
        size = f"{video.codec_context.width}x{video.codec_context.height}"
        raise Unreadable("too_large", f"frames of {size} pixels, the limit is {limits.max_pixels} in all")
    return [stream for stream in (video, audio) if stream is not None]


def _packets(
    container: InputContainer, streams: list[Stream], limits: DecodeLimits
) -> Iterator[tuple[Packet[Any], int]]:
    """The packets that lie within the clip, each with its stream's time of start, in the stream's time base."""
    start_s = (container.start_time or 0) / av.time_base
    reached_s = {stream.index: 0.0 for stream in streams}
    num_bytes = num_frames = 0
    broken: av.error.FFmpegError | None = None
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.error.FFmpegError as error:
            broken = error
            break
        if packet.size == 0:
            continue  # the demuxer's sign that the stream has ended
        stream = packet.stream
        time_base = float(stream.time_base or Fraction(1, 1000))
        at = packet.dts if packet.dts is not None else packet.pts
        time_s = (at * time_base - start_s) if at is not None else reached_s[stream.index]
        if time_s >= limits.clip_s:
            reached_s[stream.index] = time_s
            if min(reached_s.values()) >= limits.clip_s or time_s >= limits.clip_s + INTERLEAVE_S:
                break
            continue
        end_s = time_s + (packet.duration or 0) * time_base
        reached_s[stream.index] = max(reached_s[stream.index], end_s)
        num_bytes += packet.size
        num_frames += isinstance(stream, VideoStream)
        if num_bytes > limits.max_clip_bytes:
            raise Unreadable("too_large", f"its first seconds take more than {limits.max_clip_bytes} bytes")
        if num_frames > limits.max_frames:
            raise Unreadable("too_many_frames", f"more than {limits.max_frames} frames in {limits.clip_s} s")
        yield packet, round(start_s / time_base)
    _check_whole(container, max(reached_s.values()), num_bytes, broken, limits)


def _check_whole(
    container: InputContainer,
    reached_s: float,
    num_bytes: int,
    broken: av.error.FFmpegError | None,
    limits: DecodeLimits,
) -> None:
    if reached_s >= limits.clip_s:
        return
    if container.format.name in _HEADER_TELLS_DURATION and container.duration is not None:
        announced_s = container.duration / av.time_base
        if reached_s + SHORTFALL_S < min(announced_s, limits.clip_s):
            raise Unreadable("truncated", f"it announces {announced_s:.1f} s and holds {reached_s:.1f} s")
    if num_bytes == 0:
        raise Unreadable("zero_length", "no packet of sound or picture")
    if broken is not None:
        raise Unreadable("truncated", f"it breaks off after {reached_s:.1f} s: {broken}")
