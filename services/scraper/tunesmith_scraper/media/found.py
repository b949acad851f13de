"""A media file that was found: where it lies, what is known of it, where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tunesmith.domain.records import Licence
from tunesmith_scraper.licences import UNKNOWN

MEDIA_ENDINGS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm"})
"""Endings of files that are taken for video."""


@dataclass(frozen=True, slots=True)
class Found:
    """One file, and what its record says beside its hash."""

    path: Path | None
    """A copy that is the finder's no longer; None where the store has the file already."""
    sha256: str
    size_bytes: int
    url: str
    final_url: str
    fetched_at: str
    fields: Mapping[str, str] = field(default_factory=dict)
    licence: Licence = UNKNOWN
    robots: str = "not-applicable"
    note: Callable[[], None] | None = None
    """Called once the file is stored, so that it need not be had again."""


def is_media_name(name: str) -> bool:
    """Whether a file name has the ending of a video."""
    return PurePosixPath(name).suffix.lower() in MEDIA_ENDINGS


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
