"""What every clock must do; an adapter's test gives the `clock` fixture."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tunesmith.ports.clock import Clock, rfc3339


class ClockContract:
    """Subclass it with a `clock` fixture."""

    @pytest.fixture
    def clock(self) -> Clock:
        """The clock under test."""
        raise NotImplementedError

    def test_the_time_is_in_utc(self, clock: Clock) -> None:
        assert clock.now().utcoffset() == timedelta(0)

    def test_monotonic_time_never_goes_back(self, clock: Clock) -> None:
        moments = [clock.monotonic_s() for _ in range(1000)]

        assert moments == sorted(moments)

    @pytest.mark.parametrize("seconds", [0.01, 0.0, -1.0])
    def test_sleeping_takes_at_least_so_long(self, clock: Clock, seconds: float) -> None:
        before_s = clock.monotonic_s()

        clock.sleep(seconds)

        assert clock.monotonic_s() - before_s >= max(0.0, seconds) - 1e-9

    def test_times_as_text_are_in_the_order_of_time(self, clock: Clock) -> None:
        moments = []
        for _ in range(20):
            moments.append(rfc3339(clock.now()))
            clock.sleep(0.001)

        assert moments == sorted(moments)
