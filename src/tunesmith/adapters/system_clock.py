"""The clock of the operating system."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """Real time and real waiting (ports.clock.Clock)."""

    def now(self) -> datetime:
        """Current time in UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Seconds that never go back; comparable within one process only."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block this thread; a negative or zero wait returns at once."""
        time.sleep(max(0.0, seconds))
