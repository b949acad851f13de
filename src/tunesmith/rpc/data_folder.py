"""Who may serve a data folder: all services in one process, or each of them in one process of its own."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tunesmith.domain.errors import FailedPrecondition
from tunesmith.platform import SERVER_FILE


@contextlib.contextmanager
def held(data: Path, service: str = "") -> Iterator[None]:
    """Hold the data folder for `service`, or for all services when that is empty; FailedPrecondition when it is held.

    Two servers of one service on one folder would each take the other's workers for its own.
    """
    data.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        _lock(stack, data / "lock", fcntl.LOCK_SH if service else fcntl.LOCK_EX, data, "")
        if service:
            _lock(stack, data / f"lock-{service}", fcntl.LOCK_EX, data, service)
        yield


def announce(data: Path, address: str) -> None:
    """Write down where all services of the folder are served, for the command line to find them."""
    path = data / SERVER_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"address": address, "pid": os.getpid()}))
    temporary.replace(path)


def _lock(stack: contextlib.ExitStack, path: Path, kind: int, data: Path, service: str) -> None:
    lock = stack.enter_context(path.open("a+"))
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if service:
            message = (
                f"the data folder {data} is served by another {service} already; give each replica a folder of its own "
                "(TUNESMITH_DATA) and let them share TUNESMITH_STORE and TUNESMITH_BUS"
            )
        else:
            message = (
                f"the data folder {data} is served already{_holder(data)}; use that server, stop it, or choose "
                "another folder with --data (TUNESMITH_DATA)"
            )
        raise FailedPrecondition(message, reason="DATA_FOLDER_IN_USE", metadata={"data": str(data)}) from None


def _holder(data: Path) -> str:
    try:
        row = json.loads((data / SERVER_FILE).read_text())
        return f" at {row['address']} by process {row['pid']}"
    except (OSError, ValueError, KeyError):
        return ""
