"""The services inside this process: `up` for as long as it runs, `run` where no server is there."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from tunesmith.cli.connection import Connection, address_at, address_of, connected
from tunesmith.cli.options import Globals
from tunesmith.cli.problems import EXIT_INTERRUPTED, NO_SERVER
from tunesmith.domain.errors import Unavailable, Unsupported
from tunesmith.telemetry import TextFormatter

LOG_FILE = "run.log"
"""In the data folder: what the services of a `tunesmith run` log, which would tear its progress bars."""


def embedded_serve(data: Path, listen: str, on_ready: Callable[[str], None]) -> int:
    """Serve until Ctrl-C; returns the exit code. Raises the domain's errors."""
    with _services_installed():
        from tunesmith.embedded import serve

        return serve(data, listen, on_ready)


@contextlib.contextmanager
def running_or_own(options: Globals, *, before_start: Callable[[], object]) -> Iterator[tuple[Connection, bool]]:
    """A connection to the running server, or to services that live in this process while the block runs.

    The flag says whether they are our own; `before_start` is called before they start, and may raise. A server that
    was named must answer: Unavailable.
    """
    address = address_of(options)
    if address is not None:
        with contextlib.ExitStack() as found:
            try:
                connection = found.enter_context(connected(address, options))
            except Unavailable as error:
                if options.server:
                    raise Unavailable(
                        f"no Tunesmith server answers at {address}; leave --server out to run without one",
                        reason=NO_SERVER,
                    ) from error
            else:
                yield connection, False
                return
    before_start()
    with _services_installed():
        from tunesmith.embedded import session
    with _terminated_like_interrupted(), _logging_to(options.data / LOG_FILE), contextlib.ExitStack() as stack:
        with _services_installed():
            target = stack.enter_context(session(options.data))
        try:
            connection = stack.enter_context(connected(address_at(target, "this process"), options))
        except Unavailable as error:
            raise Unavailable(
                f"the services in this process do not answer at {target}; see {options.data}/{LOG_FILE}"
            ) from error
        yield connection, True


@contextlib.contextmanager
def _services_installed() -> Iterator[None]:
    """Name the extra to install when a module of the services is missing."""
    try:
        yield
    except ImportError as error:
        raise Unsupported(
            f"this installation cannot run the services ({error}); install them with "
            "`pip install 'tunesmith[embedded]'`, or name a running server with --server",
            reason="EXTRA_MISSING",
            metadata={"extra": "embedded"},
        ) from error


def force_on_next_interrupt() -> None:
    """End the process at the next Ctrl-C or SIGTERM, however far the clean way out has come."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        os._exit(EXIT_INTERRUPTED)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, leave)
        signal.signal(signal.SIGTERM, leave)


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Take SIGTERM (`timeout`, `docker stop`) for Ctrl-C while the block runs, so that no worker is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Send this process's log to a file while the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(TextFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
