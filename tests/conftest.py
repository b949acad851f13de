"""For all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

# Tests press Ctrl-C in processes of their own, which inherit what is set here: a shell that starts the tests in the
# background leaves SIGINT ignored, and then no child would ever notice.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A worker that runs in the test's own process takes SIGINT and SIGTERM; children of later tests want them back."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    for number, handler in before:
        if handler is not None:  # set by other code than Python's
            signal.signal(number, handler)


pytest_plugins = ["fixtures_real_parts", "fixtures_places"]
