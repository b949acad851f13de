"""Every store adapter against the store's contract."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from contract.store_contract import Opener, StoreContract
from tunesmith.adapters.local_store import LocalStore


class TestLocalStore(StoreContract):
    """The local folder."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        """A folder of its own for each test."""
        return partial(LocalStore, tmp_path / "store")
