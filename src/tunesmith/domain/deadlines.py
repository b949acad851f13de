"""How long the caller of the current task still waits, for whoever must decide whether another attempt is worth it."""

from __future__ import annotations

import time
from contextvars import ContextVar

_deadline_s: ContextVar[float | None] = ContextVar("tunesmith_deadline", default=None)


def set_deadline(seconds: float) -> None:
    """Note that the caller of the current asyncio task, and of the tasks it starts, waits `seconds` from now."""
    _deadline_s.set(time.monotonic() + seconds)


def remaining_s() -> float | None:
    """Seconds that the caller still waits, negative when it no longer does; None when it set no limit."""
    deadline_s = _deadline_s.get()
    return None if deadline_s is None else deadline_s - time.monotonic()
