"""What the operating system says about files, in the port's errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tunesmith.domain.errors import InvalidInput, ResourceExhausted, TunesmithError, Unavailable

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Name `path`, which lies outside the store, in errors of writing to it."""
    try:
        yield
    except OSError as error:
        raise file_problem(error, path) from error


def file_problem(error: OSError, path: Path) -> TunesmithError:
    """The port's error for what the operating system said about `path`."""
    if error.errno in _NO_ROOM:
        free = _free_bytes(path)
        return ResourceExhausted(
            f"no room to write {path}: {free} bytes free ({error.strerror}); "
            "free some space, or set TUNESMITH_STORE to a larger disk",
            reason="DISK_FULL",
            metadata={"path": str(path), "free_bytes": str(free)},
        )
    if error.errno == errno.ENAMETOOLONG:
        return InvalidInput(f"the path {path} is too long for the file system; use a shorter key or root folder")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Unavailable(
            f"permission denied at {path} ({error.strerror}): user id {os.geteuid()} must be able to read and write "
            "it and its folder; change the owner or the mode",
            reason="STORE_PERMISSION_DENIED",
            metadata={"path": str(path)},
        )
    return Unavailable(f"the store failed at {path}: {error.strerror or error}", metadata={"path": str(path)})


def _free_bytes(path: Path) -> int:
    for folder in path.parents:
        with suppress(OSError):
            status = os.statvfs(folder)
            return status.f_bavail * status.f_frsize
    return 0
