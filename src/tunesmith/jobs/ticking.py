"""A supervised loop: one thread that does the same small step when it is told to, and every so often by itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from tunesmith.domain.errors import TunesmithError

log = logging.getLogger(__name__)


class Ticker:
    """Runs `step` at start, at every `wake` and every `interval_s`. A TunesmithError of a step is logged."""

    def __init__(self, name: str, step: Callable[[], None], *, interval_s: float) -> None:
        self._name = name
        self._step = step
        self._interval_s = interval_s
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step it is at."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def wake(self) -> None:
        """Do the step now: something has changed."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except TunesmithError as error:
                log.warning("%s: held up: %s", self._name, error)
            self._wake.wait(self._interval_s)
            self._wake.clear()
