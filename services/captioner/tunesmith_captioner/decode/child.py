"""`python -I -m tunesmith_captioner.decode.child`: one media file, decoded where it can do no harm.

Reads a JSON request from standard input, limits itself before it touches the file, and prints a JSON answer.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from tunesmith_captioner.decode.limits import OUT_OF_MEMORY, DecodeLimits, Unreadable

_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def main() -> int:
    """Answer the one request; the exit code is 0 whenever an answer was printed."""
    request = json.load(sys.stdin)
    limits = DecodeLimits.from_json(request["limits"])
    confine(limits, parent=request["parent"])
    try:
        answer = _answer(request, limits)
    except Unreadable as error:
        answer = {"error": error.reason, "detail": error.detail[:500]}
    except MemoryError:
        answer = {"error": OUT_OF_MEMORY, "detail": f"more than {limits.memory_mib} MiB"}
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({**answer, "cpu_s": used.ru_utime + used.ru_stime}))  # noqa: T201  # the answer to the parent
    return 0


def confine(limits: DecodeLimits, *, parent: int) -> None:
    """Give up what decoding does not need: memory, time, big files, new rights, the network. Dies with `parent`."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Where the kernel allows it the child has no network at all; else there is still no protocol but `file`.
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    memory_bytes = limits.memory_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * limits.max_clip_bytes, 2 * limits.max_clip_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def _answer(request: dict[str, Any], limits: DecodeLimits) -> dict[str, Any]:
    # After the limits, because loading the libraries already maps what a file could have prepared.
    import av

    from tunesmith_captioner.decode.cut import cut
    from tunesmith_captioner.decode.sample import sample

    clip, folder = Path(request["clip"]), Path(request["folder"])
    how = "kept"
    try:
        if request["source"]:
            how = cut(Path(request["source"]), clip, limits)
        return {"cut": how, "sampled": sample(clip, folder, limits).to_json()}
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError) or error.errno == 12:
            raise MemoryError from error
        raise Unreadable("undecodable", str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
