"""The session file of a `tunesmith run`: the request ids that let an interrupted one continue the very same jobs."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.domain.ids import canonical_json, sha256_hex

FOLDER = "run-sessions"
STEPS = ("collect", "derive", "curate", "tune", "judge")


@dataclass(frozen=True, slots=True)
class RunSession:
    """One begun run. A file, because the ids must be there before the first call and outlive any crash."""

    path: Path
    request_ids: Mapping[str, str]
    """UUID that each step sends as its request id, by step."""
    continued: bool
    """An earlier run with the same options was interrupted, and these are its ids."""

    @staticmethod
    def begin(data: Path, options: object, *, fresh: bool) -> RunSession:
        """The session of a run with these options: the interrupted one's if there is one (and not `fresh`)."""
        path = data / FOLDER / f"{sha256_hex(canonical_json(options))}.json"
        if not fresh and (request_ids := _read(path)):
            return RunSession(path, request_ids, continued=True)
        request_ids = {step: str(uuid.uuid4()) for step in STEPS}
        write_atomically(path, json.dumps({"request_ids": request_ids, "options": options}).encode())
        return RunSession(path, request_ids, continued=False)

    def end(self) -> None:
        """Forget the session: the next run with these options starts anew."""
        self.path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, str] | None:
    """The ids in a session file; None when there is none that is whole."""
    try:
        request_ids = json.loads(path.read_bytes())["request_ids"]
        return {step: str(uuid.UUID(request_ids[step])) for step in STEPS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either there as a whole or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
