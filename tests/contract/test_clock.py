"""Every clock against the clock's contract."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from contract.clock_contract import ClockContract
from doubles.fake_clock import FakeClock
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.ports.clock import Clock


class TestSystemClock(ClockContract):
    """Real time."""

    @pytest.fixture
    def clock(self) -> Clock:
        """The operating system's."""
        return SystemClock()


class TestFakeClock(ClockContract):
    """The double that tests use."""

    @pytest.fixture
    def clock(self) -> Clock:
        """Standing still."""
        return FakeClock()

    def test_it_moves_only_when_told(self) -> None:
        clock = FakeClock(datetime(2026, 5, 1, tzinfo=UTC))
        start_s = clock.monotonic_s()

        clock.advance(60.0)
        clock.sleep(1.0)

        assert clock.now() == datetime(2026, 5, 1, 0, 1, 1, tzinfo=UTC)
        assert clock.monotonic_s() - start_s == 61.0

    def test_setting_the_wall_clock_does_not_touch_monotonic_time(self) -> None:
        clock = FakeClock()
        start_s = clock.monotonic_s()

        clock.set_wall(clock.now() - timedelta(days=1))

        assert clock.now() == datetime(2025, 12, 31, tzinfo=UTC)
        assert clock.monotonic_s() == start_s
