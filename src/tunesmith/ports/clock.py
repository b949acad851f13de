"""The clock: time that tests can move."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time and waiting. Wall time may jump; durations come from `monotonic_s`."""

    def now(self) -> datetime:
        """Current time, timezone-aware, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait. A test's clock returns at once and moves itself."""
        ...


def rfc3339(moment: datetime) -> str:
    """`2026-11-21T10:00:00.123456Z`: UTC, always six fractional digits, so that text order is time order."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
