"""Decoding from the outside: start the child, wait for its answer, read its arrays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith_captioner.captioning import Clip
from tunesmith_captioner.decode.limits import (
    AUDIO_RATE,
    DECODER_CRASHED,
    FRAME_RATE,
    LOUDNESS_RATE,
    OUT_OF_MEMORY,
    THUMBNAIL_HEIGHT,
    THUMBNAIL_WIDTH,
    TOO_SLOW,
    DecodeLimits,
    Unreadable,
)

MAX_ANSWER_BYTES = 64 * 1024


def decode(clip: Path, *, source: Path | None, folder: Path, limits: DecodeLimits) -> Clip:
    """Cut `source` to `clip` (where one is given; else `clip` exists), decode it, and return its sound and pictures.

    The files are opened in a child process with `limits`; whatever they do to it, this process gets a Clip or raises
    Unreadable with the reason. `folder` must exist and be empty but for the files named; the arrays are left in it and
    are mapped, not read.
    """
    request = {
        "source": str(source) if source else "",
        "clip": str(clip),
        "folder": str(folder),
        "limits": limits.to_json(),
        "parent": os.getpid(),
    }
    answer = _ask_child(request, limits)
    if "error" in answer:
        raise Unreadable(str(answer["error"]), str(answer.get("detail", "")))
    return _clip(answer["sampled"], folder, cut=str(answer["cut"]))


def _ask_child(request: dict[str, Any], limits: DecodeLimits) -> dict[str, Any]:
    # One thread: BLAS would map memory for each core, and decoding is spread over files, not over threads.
    env = {"PATH": os.environ.get("PATH", ""), "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        [sys.executable, "-I", "-m", "tunesmith_captioner.decode.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        start_new_session=True,
    ) as child:
        try:
            answer, words = child.communicate(json.dumps(request).encode(), timeout=limits.wall_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise Unreadable(TOO_SLOW, f"it took more than {limits.wall_s} s") from None
        except BaseException:
            child.kill()
            raise
    if child.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise Unreadable(TOO_SLOW, f"it took more than {limits.cpu_s} s of processor time")
    if child.returncode == -signal.SIGXFSZ:
        raise Unreadable("too_large", f"it unpacks to more than {2 * limits.max_clip_bytes} bytes")
    last_words = words.decode(errors="replace").strip()[-500:]
    try:
        found = json.loads(answer[:MAX_ANSWER_BYTES])
    except ValueError:
        if "MemoryError" in last_words or "Cannot allocate memory" in last_words:
            raise Unreadable(OUT_OF_MEMORY, f"more than {limits.memory_mib} MiB") from None
        raise Unreadable(DECODER_CRASHED, f"exit code {child.returncode}: {last_words or '(no words)'}") from None
    if not isinstance(found, dict):
        raise Unreadable(DECODER_CRASHED, "it gave no answer")
    return found


def _clip(sampled: dict[str, Any], folder: Path, *, cut: str) -> Clip:
    width, height = int(sampled["frame_width"]), int(sampled["frame_height"])
    num_frames, num_thumbnails = int(sampled["num_frames"]), int(sampled["num_thumbnails"])
    return Clip(
        duration_s=float(sampled["duration_s"]),
        audio=_array(folder / "audio", "<f4", (int(sampled["num_audio"]),)),
        audio_rate=AUDIO_RATE,
        stereo=_array(folder / "stereo", "<f4", (int(sampled["num_stereo"]), 2)),
        stereo_rate=LOUDNESS_RATE,
        frames=_array(folder / "frames", "u1", (num_frames, height, width, 3)),
        frame_rate=FRAME_RATE,
        thumbnails=_array(folder / "thumbnails", "u1", (num_thumbnails, THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH)),
        thumbnail_times_s=_array(folder / "times", "<f4", (num_thumbnails,)),
        width=int(sampled["source_width"]),
        height=int(sampled["source_height"]),
        cut=cut,
    )


def _array(path: Path, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)
