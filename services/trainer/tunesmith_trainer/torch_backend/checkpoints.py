"""Training checkpoints on disk: which are whole, and which is the newest of them.

A process can die while a checkpoint is being written, and a disk can lose the end of a file. A checkpoint counts only
once its seal exists, a file with the size and SHA-256 of every other file, written last, and only while all agree.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)

SEAL = "complete.json"
_FOLDER = re.compile(r"checkpoint-(\d+)")


def seal(folder: Path) -> None:
    """Declare the checkpoint in `folder` whole."""
    content = {path.name: _identity(path) for path in sorted(folder.iterdir()) if path.name != SEAL}
    unfinished = folder / f"{SEAL}.tmp"
    unfinished.write_text(json.dumps(content, indent=2, sort_keys=True), "utf-8")
    unfinished.replace(folder / SEAL)


def is_intact(folder: Path) -> bool:
    """Whether every file of the checkpoint is there with the bytes that were sealed."""
    try:
        content = json.loads((folder / SEAL).read_text("utf-8"))
        return all(_identity(folder / name) == identity for name, identity in content.items())
    except (OSError, ValueError, AttributeError):
        return False


def newest_intact(run_folder: Path) -> Path | None:
    """The checkpoint to resume from, or None. Torn ones are removed, so that nothing counts or loads them later."""
    for folder in sorted(_checkpoints(run_folder), key=step_of, reverse=True):
        if is_intact(folder):
            return folder
        logger.warning("checkpoint %s is torn and is left out", folder.name)
        shutil.rmtree(folder)
    return None


def step_of(folder: Path) -> int:
    """The step after which the checkpoint was taken."""
    match = _FOLDER.fullmatch(folder.name)
    assert match is not None, folder
    return int(match[1])


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checkpoints(run_folder: Path) -> list[Path]:
    if not run_folder.is_dir():
        return []
    return [path for path in run_folder.iterdir() if path.is_dir() and _FOLDER.fullmatch(path.name)]


def _identity(path: Path) -> list[int | str]:
    return [path.stat().st_size, sha256_of(path)]
