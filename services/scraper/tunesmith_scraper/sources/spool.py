"""Copies a source's bytes to a file of the running collection, hashing and limiting them on the way."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from tunesmith.domain.errors import ResourceExhausted
from tunesmith_scraper.settings import environment_name

_CHUNK_BYTES = 2**20


def spool(file: BinaryIO, path: Path, *, max_bytes: int, source: str, setting: str = "max_upload_bytes") -> str:
    """Copy `file` to `path` and return its hex SHA-256; ResourceExhausted past `max_bytes`, naming `setting`."""
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("wb") as copy:
        while chunk := file.read(_CHUNK_BYTES):
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                name = environment_name(setting)
                raise ResourceExhausted(
                    f"{source} is larger than {max_bytes} bytes; split it, or raise {name}",
                    reason="FILE_TOO_LARGE",
                    metadata={"source": source, "limit": str(max_bytes), "setting": name},
                )
            digest.update(chunk)
            copy.write(chunk)
    return digest.hexdigest()
