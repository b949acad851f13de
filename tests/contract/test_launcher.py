"""Every launcher adapter against the launcher's contract."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from contract.launcher_contract import LauncherContract, Opener
from tunesmith.adapters.subprocess_launcher import SubprocessLauncher


class TestSubprocessLauncher(LauncherContract):
    """Processes of this machine."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        """A folder of its own for each test."""
        return partial(SubprocessLauncher, tmp_path / "launches")
