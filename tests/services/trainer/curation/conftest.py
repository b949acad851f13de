from __future__ import annotations

from pathlib import Path

import pytest
from curation_material import Workbench

from fixtures_places import Place


@pytest.fixture
def bench(place: Place, tmp_path: Path) -> Workbench:
    return Workbench(place.store(tmp_path), tmp_path)
