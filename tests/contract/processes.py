"""Other processes that take part in a test, and can be killed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

# A server that has imported what is needed forks each process in milliseconds, and has no threads that could be lost.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "kubernetes.client",
        "pytest",
        "tunesmith.adapters.kafka_subscription",
        "tunesmith.adapters.local_store",
        "tunesmith.adapters.minio_store",
        "tunesmith.adapters.sqlite_bus",
        "tunesmith.adapters.subprocess_launcher",
        "tunesmith.adapters.system_clock",
    ]
)

Reporter = Callable[[Any], None]
"""Sends a value to the test; on return the test can read it, even if this process dies now."""


class Process:
    """A process that runs `target(reporter, *args)`."""

    def __init__(self, target: Callable[..., None], *args: Any) -> None:
        self._reports, sender = _context.Pipe(duplex=False)
        self._process: ForkServerProcess = _context.Process(target=_run, args=(target, sender, args))
        self._process.start()
        sender.close()

    def report(self) -> Any:
        """The next value that it reports."""
        assert self._reports.poll(60.0), "the process reported nothing for 60 s"
        return self._reports.recv()

    def reports_so_far(self) -> list[Any]:
        """The values that are there to be read, without waiting."""
        values = []
        while self._reports.poll():
            values.append(self._reports.recv())
        return values

    def reports(self) -> list[Any]:
        """All values that it has reported and that were not read yet; waits for its end."""
        values = []
        while True:
            try:
                values.append(self.report())
            except EOFError:
                return values

    def kill(self) -> None:
        """`kill -9`, and wait until it is dead."""
        with suppress(ProcessLookupError):  # it may be ending by itself
            self._process.kill()
        self._process.join()

    def join(self) -> None:
        """Wait for its end; it must have ended well."""
        self._process.join(120.0)
        assert self._process.exitcode == 0

    def close(self) -> None:
        """Kill it if it is still alive, and free what belongs to it."""
        if self._process.is_alive():
            self.kill()
        self._process.close()
        self._reports.close()


@contextmanager
def running(target: Callable[..., None], *args: Any) -> Iterator[Process]:
    """A process that does not outlive the block."""
    process = Process(target, *args)
    try:
        yield process
    finally:
        process.close()


def _run(target: Callable[..., None], sender: Connection, args: tuple[Any, ...]) -> None:
    target(sender.send, *args)
