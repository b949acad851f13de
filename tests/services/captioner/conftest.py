"""Fixtures of the captioner's tests; what they are made of is in captioner_media.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from captioner_media import BLUE, RED, Workshop, clicks, shots, write_media

from fixtures_places import Place


@pytest.fixture
def workshop(place: Place, tmp_path: Path) -> Workshop:
    """A store without media."""
    return Workshop(tmp_path / "workshop", place)


@pytest.fixture(scope="session")
def music_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of red, then blue, to a click track of 120 beats a minute, as MP4."""
    path = tmp_path_factory.mktemp("media") / "music_video.mp4"
    return write_media(path, pictures=shots(RED, BLUE, seconds=12), sound=clicks(12))
