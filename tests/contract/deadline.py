"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], *, timeout_s: float = 30.0) -> T:
    """The first truthy value of `condition`; an assertion error if there is none for `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"not true for {timeout_s} s; last value {value!r}"
        time.sleep(0.005)
    return value
