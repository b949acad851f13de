"""A clock that stands still until it is told to move."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta


class FakeClock:
    """Time for tests (ports.clock.Clock). Thread-safe."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic_s = 1000.0
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The time it was moved to."""
        with self._lock:
            return self._now

    def monotonic_s(self) -> float:
        """Seconds it was moved by, from 1000."""
        with self._lock:
            return self._monotonic_s

    def sleep(self, seconds: float) -> None:
        """Return at once, that much later."""
        self.advance(max(0.0, seconds))

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._monotonic_s += seconds

    def set_wall(self, moment: datetime) -> None:
        """Set the wall clock, also back, as an administrator would; monotonic time does not notice."""
        with self._lock:
            self._now = moment.astimezone(UTC)
