"""A list of byte strings on disk, so that only eight bytes a row stay in memory."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_MAX_PENDING_BYTES = 1 << 20


class DiskLines:
    """Append-only byte strings by number. Not thread-safe; closing it leaves the file to whoever owns the folder."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._ends = array("Q", [0])
        self._pending = bytearray()

    def append(self, line: bytes) -> None:
        """Add `line` under the next number."""
        self._pending += line
        self._ends.append(self._ends[-1] + len(line))
        if len(self._pending) >= _MAX_PENDING_BYTES:
            self._flush()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> bytes:
        self._flush()
        start, end = self._ends[number], self._ends[number + 1]
        return os.pread(self._fd, end - start, start)

    def __iter__(self) -> Iterator[bytes]:
        """All lines in order, read in large pieces."""
        self._flush()
        first, num_lines = 0, len(self)
        while first < num_lines:
            start = self._ends[first]
            last = first + 1
            while last < num_lines and self._ends[last + 1] - start <= _MAX_PENDING_BYTES:
                last += 1
            piece = os.pread(self._fd, self._ends[last] - start, start)
            for number in range(first, last):
                yield piece[self._ends[number] - start : self._ends[number + 1] - start]
            first = last

    def __enter__(self) -> DiskLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def _flush(self) -> None:
        written = 0
        while written < len(self._pending):
            written += os.write(self._fd, memoryview(self._pending)[written:])
        self._pending = bytearray()
