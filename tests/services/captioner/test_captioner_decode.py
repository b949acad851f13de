"""Clips of real files: what is cut, what is seen of it, and what broken or hostile files do."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from captioner_media import AUDIO_RATE, BLUE, RED, WHITE, clicks, shots, write_media

from tunesmith_captioner.captioning import Clip
from tunesmith_captioner.decode.limits import DecodeLimits, Unreadable
from tunesmith_captioner.decode.process import decode


@pytest.fixture
def cut(tmp_path: Path):
    """Cuts and decodes a file; the clip it was cut to lies in `cut.clip`."""

    def run(source: Path, **limits: int) -> Clip:
        folder = tmp_path / f"decode-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        run.clip = folder / "clip.mkv"
        return decode(run.clip, source=source, folder=folder, limits=DecodeLimits(**limits))

    return run


def reason(cut, source: Path, **limits: int) -> str:
    with pytest.raises(Unreadable) as caught:
        cut(source, **limits)
    return caught.value.reason


def packets_of(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def test_a_clip_holds_the_same_packets_as_the_file_up_to_its_end(cut, music_video: Path) -> None:
    clip = cut(music_video, clip_s=5)

    video, audio = packets_of(cut.clip, "video"), packets_of(cut.clip, "audio")
    assert clip.cut == "copied"
    assert clip.duration_s == pytest.approx(5, abs=0.1)
    assert video == packets_of(music_video, "video")[: len(video)]
    assert audio == packets_of(music_video, "audio")[: len(audio)]
    assert len(video) == pytest.approx(5 * 25, abs=3)


def test_the_same_file_gives_the_same_clip_byte_for_byte(cut, music_video: Path) -> None:
    cut(music_video)
    first = cut.clip.read_bytes()
    cut(music_video)

    assert cut.clip.read_bytes() == first


def test_sound_and_pictures_have_the_promised_shape(cut, music_video: Path) -> None:
    clip = cut(music_video)

    assert (clip.audio.dtype, clip.audio_rate, clip.stereo_rate) == (np.float32, 16_000, 48_000)
    assert len(clip.audio) == pytest.approx(12 * 16_000, rel=0.01)
    assert clip.stereo.shape[0] == pytest.approx(12 * 48_000, rel=0.01)
    assert clip.frames.shape[1:] == (126, 224, 3)
    assert len(clip.frames) == pytest.approx(24, abs=1)
    assert (clip.width, clip.height, len(clip.thumbnails)) == (160, 90, 300)
    assert clip.frames[2].mean((0, 1)) == pytest.approx(RED, abs=12)
    assert clip.frames[20].mean((0, 1)) == pytest.approx(BLUE, abs=12)


def test_only_the_first_minute_of_a_ten_hour_file_is_read(cut, tmp_path: Path) -> None:
    # A picture every ten seconds and ten minutes' worth of sound would still take a while: pictures only.
    ten_hours = write_media(
        tmp_path / "long.mp4", pictures=shots(RED, BLUE, seconds=144), times=lambda number: Fraction(10 * number)
    )

    clip = cut(ten_hours)

    with av.open(str(ten_hours)) as container:
        assert container.duration / av.time_base == pytest.approx(36_000, rel=0.01)
    assert clip.duration_s <= 60.1
    assert len(packets_of(cut.clip, "video")) <= 7


def test_pictures_are_taken_by_time_whatever_the_pace_of_the_frames(cut, tmp_path: Path) -> None:
    # Red for eight seconds at one frame a second, then blue for four seconds at fifty.
    def times(number: int) -> Fraction:
        return Fraction(number) if number < 8 else 8 + Fraction(number - 8, 50)

    pictures = shots(RED, seconds=8, fps=1) + shots(BLUE, seconds=4, fps=50)
    variable = write_media(tmp_path / "vfr.mkv", pictures=pictures, times=times)

    clip = cut(variable)

    is_red = clip.frames[:, 60, 100, 0] > 100
    assert list(is_red) == [True] * 16 + [False] * (len(is_red) - 16)
    assert len(is_red) == pytest.approx(24, abs=1)


def test_a_file_of_sound_alone_has_no_pictures_and_the_other_way_round(cut, tmp_path: Path) -> None:
    sound = cut(write_media(tmp_path / "sound.mp4", sound=clicks(3)))
    silent = cut(write_media(tmp_path / "silent.mp4", pictures=shots(RED, seconds=3)))

    assert (sound.has("audio"), sound.has("video")) == (True, False)
    assert (silent.has("audio"), silent.has("video")) == (False, True)


def test_a_cover_image_is_no_video(cut, tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    with av.open(str(write_media(tmp_path / "plain.mp4", sound=clicks(3)))) as plain, av.open(str(path), "w") as out:
        audio = out.add_stream_from_template(plain.streams.audio[0])
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 1)
        out.mux(cover.encode(frame))
        for packet in plain.demux(plain.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = audio
                out.mux(packet)
        out.mux(cover.encode(None))

    assert not cut(path).has("video")


def test_a_codec_that_the_clip_cannot_hold_is_encoded_anew(cut, tmp_path: Path) -> None:
    path = write_media(
        tmp_path / "screen.flv",
        pictures=shots(RED, BLUE, seconds=4, size=(160, 96)),
        video_codec="flashsv",
        sound=clicks(4)[: 4 * AUDIO_RATE],
    )

    clip = cut(path)

    assert clip.cut == "encoded"
    assert clip.duration_s == pytest.approx(4, abs=0.3)
    assert len(clip.thumbnails) == pytest.approx(100, abs=2)
    assert clip.frames[1].mean((0, 1)) == pytest.approx(RED, abs=20)
    assert clip.frames[-1].mean((0, 1)) == pytest.approx(BLUE, abs=20)


def test_a_stream_that_starts_late_starts_at_zero_in_the_clip(cut, tmp_path: Path) -> None:
    late = write_media(
        tmp_path / "broadcast.ts",
        pictures=shots(RED, BLUE, seconds=4),
        sound=clicks(4),
        container_options={"output_ts_offset": "70"},
    )

    clip = cut(late)

    assert clip.duration_s == pytest.approx(4, abs=0.3)
    assert float(clip.thumbnail_times_s[0]) < 0.2


@pytest.mark.parametrize("suffix", ["webm", "ogg", "flac", "wav", "mp3", "mov", "mkv"])
def test_common_containers_are_copied(cut, tmp_path: Path, suffix: str) -> None:
    codec = {"webm": "libopus", "ogg": "libopus", "flac": "flac", "wav": "pcm_s16le", "mp3": "libmp3lame"}
    path = write_media(tmp_path / f"a.{suffix}", sound=clicks(3), audio_codec=codec.get(suffix, "aac"))

    clip = cut(path)

    assert clip.cut == "copied"
    assert clip.duration_s == pytest.approx(3, abs=0.15)


def test_a_file_cut_off_before_its_index_is_truncated(cut, tmp_path: Path, music_video: Path) -> None:
    path = tmp_path / "part.mp4"
    path.write_bytes(music_video.read_bytes()[: music_video.stat().st_size // 2])

    assert reason(cut, path) == "truncated"


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_file_that_holds_less_than_it_announces_is_truncated(cut, tmp_path: Path, suffix: str) -> None:
    options = {"movflags": "+faststart"} if suffix == "mp4" else {}
    noise = np.random.default_rng(0).normal(0, 0.2, 12 * AUDIO_RATE).astype(np.float32)
    whole = write_media(
        tmp_path / f"whole.{suffix}", pictures=shots(RED, BLUE, seconds=12), sound=noise, container_options=options
    )
    part = tmp_path / f"part.{suffix}"
    part.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])

    assert reason(cut, part) == "truncated"
    assert cut(part, clip_s=5).duration_s == pytest.approx(5, abs=0.1)


def test_an_empty_file_and_one_without_packets_have_no_length(cut, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    nothing = tmp_path / "nothing.wav"
    with wave.open(str(nothing), "wb") as empty:
        empty.setparams((1, 2, AUDIO_RATE, 0, "NONE", ""))

    assert reason(cut, tmp_path / "empty.mp4") == "zero_length"
    assert reason(cut, nothing) == "zero_length"


def test_a_moment_is_too_short(cut, tmp_path: Path) -> None:
    assert reason(cut, write_media(tmp_path / "blip.wav", sound=clicks(0.4), audio_codec="pcm_s16le")) == "too_short"


def test_what_is_no_media_cannot_be_decoded(cut, tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("not a video " * 1000)

    assert reason(cut, path) == "undecodable"


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{name}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {name}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    ],
    ids=["hls", "concat", "sdp"],
)
def test_a_file_that_names_other_files_opens_none_of_them(cut, tmp_path: Path, music_video: Path, text: str) -> None:
    path = tmp_path / "list"
    shutil.copy(music_video, tmp_path / "secret.mp4")
    path.write_text(text.format(name="secret.mp4"))

    assert reason(cut, path) == "undecodable"


def test_damage_in_the_middle_loses_frames_not_the_clip(cut, tmp_path: Path, music_video: Path) -> None:
    damaged = bytearray(music_video.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 300] = bytes(300)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(damaged)

    assert cut(path).duration_s == pytest.approx(12, abs=0.5)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_pixels": 100 * 50}, "too_large"),
        ({"max_clip_bytes": 5_000}, "too_large"),
        ({"max_frames": 100}, "too_many_frames"),
        ({"max_streams": 1}, "too_many_streams"),
    ],
)
def test_beyond_a_limit_a_file_is_refused(cut, music_video: Path, limits: dict[str, int], expected: str) -> None:
    assert reason(cut, music_video, **limits) == expected


def test_a_file_that_wants_too_much_memory_is_refused(cut, tmp_path: Path) -> None:
    picture = np.zeros((4320, 8192, 3), np.uint8)
    huge = write_media(tmp_path / "huge.mp4", pictures=[picture] * 3, times=Fraction, video_options={"threads": "1"})

    assert reason(cut, huge, memory_mib=300) == "out_of_memory"
    assert cut(huge).frames.shape[1:] == (118, 224, 3)


def test_a_child_that_takes_too_long_is_ended(cut, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 720, 1280, 3), dtype=np.uint8)
    heavy = write_media(tmp_path / "heavy.mp4", pictures=[*noise] * 8)

    assert reason(cut, heavy, cpu_s=1) == "too_slow"
    assert reason(cut, heavy, wall_s=0) == "too_slow"


def test_the_child_has_no_network_where_the_kernel_lets_it_be_taken_away() -> None:
    script = (
        "import os, socket, sys\n"
        "from tunesmith_captioner.decode.child import confine\n"
        "from tunesmith_captioner.decode.limits import DecodeLimits\n"
        "confine(DecodeLimits(), parent=os.getppid())\n"
        "try:\n"
        "    socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=5)\n"
        "except OSError:\n"
        "    sys.exit(7)\n"
    )
    can_unshare = subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = subprocess.run([sys.executable, "-c", script, str(server.getsockname()[1])], check=False)

    assert done.returncode == (7 if can_unshare else done.returncode)


def test_the_child_does_not_outlive_its_parent() -> None:
    script = (
        "from tunesmith_captioner.decode.child import confine\n"
        "from tunesmith_captioner.decode.limits import DecodeLimits\n"
        "confine(DecodeLimits(), parent=1_000_000)\n"
    )

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 1


def test_a_turned_video_is_seen_upright(cut, tmp_path: Path) -> None:
    upright = np.zeros((90, 160, 3), np.uint8)
    upright[:, :80] = WHITE
    plain = write_media(tmp_path / "plain.mp4", pictures=[upright] * 50)
    turned = tmp_path / "turned.mp4"
    data = plain.read_bytes()
    # The matrix of the track header (ISO/IEC 14496-12, 8.3.2): a quarter turn clockwise instead of none.
    identity = b"".join(value.to_bytes(4, "big", signed=True) for value in (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
    quarter = b"".join(value.to_bytes(4, "big", signed=True) for value in (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))
    at = data.index(identity, data.index(b"tkhd"))
    turned.write_bytes(data[:at] + quarter + data[at + len(identity) :])

    clip = cut(turned)

    assert (clip.width, clip.height) == (90, 160)
    assert clip.frames.shape[1] > clip.frames.shape[2]
    assert clip.frames[0][5].mean() > 200 > 50 > clip.frames[0][-5].mean()
