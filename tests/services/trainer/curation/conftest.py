from __future__ import annotations

from pathlib import Path

import pytest
from curation_material import Workbench

from tunesmith.adapters.local_store import LocalStore


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(LocalStore(tmp_path / "store"), tmp_path)
