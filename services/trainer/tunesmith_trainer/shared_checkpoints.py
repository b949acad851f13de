"""Checkpoints in the store, for a training that goes on where another disk is.

Files lie under their SHA-256, and a manifest for each step, written last, names those of one checkpoint and of the best
one so far. What a killed writer left, or two at once, is therefore either whole or not found.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunesmith.domain.errors import DataLoss, NotFound, TunesmithError
from tunesmith.domain.ids import canonical_json
from tunesmith.ports.store import Store
from tunesmith_trainer.torch_backend.checkpoints import newest_intact, sha256_of, step_of

logger = logging.getLogger(__name__)

KEPT = 2
"""Manifests that are kept: should the newest turn out torn, the one before it serves."""

MAX_SHARE = 0.1
"""Of a training's time that may go into storing checkpoints; some are passed over when the store is slow."""

_BESIDE = ("metrics.jsonl", "dtype")
"""What a resumed training reads beside its checkpoints."""


class SharedCheckpoints:
    """The checkpoints of one run, in `work_folder`/checkpoints and under `prefix` of the store."""

    def __init__(
        self, store: Store, prefix: str, work_folder: Path, *, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._work = work_folder
        self._should_stop = should_stop
        self._next_s = 0.0

    def fetch(self) -> int:
        """Bring the newest whole checkpoint here, unless a later one is here; returns its step, 0 for none."""
        here = newest_intact(self._work / "checkpoints")
        for key in reversed(self._manifests()):
            step = int(Path(key).stem)
            if here is not None and step_of(here) >= step:
                return 0
            try:
                self._bring(self._read(key))
            except (NotFound, DataLoss) as error:
                logger.warning("checkpoint %s of the store is not whole and is left out: %s", step, error)
                continue
            logger.info("checkpoint of step %d was brought from the store", step)
            return step
        return 0

    def put(self, folder: Path) -> None:
        """Store a sealed checkpoint. A store that does not take it costs repeated steps after a loss, no more."""
        began_s = time.monotonic()
        if began_s < self._next_s and not self._should_stop():
            return
        try:
            self._put(folder)
        except TunesmithError as error:
            logger.warning("checkpoint %s was not stored: %s", folder.name, error)
        now_s = time.monotonic()
        self._next_s = now_s + (now_s - began_s) * (1 / MAX_SHARE - 1)

    def remove(self) -> None:
        """Remove all of the run's checkpoints from the store: manifests first, so that none is found half gone."""
        for key in [*self._manifests(), *(info.key for info in self._store.list(f"{self._prefix}files/"))]:
            self._store.delete(key)

    def _put(self, folder: Path) -> None:
        checkpoints = folder.parent
        best = int(json.loads((folder / "trainer_state.json").read_text("utf-8")).get("best_global_step") or 0)
        folders = {folder.name: folder}
        if best and (checkpoints / f"checkpoint-{best}").is_dir():
            folders[f"checkpoint-{best}"] = checkpoints / f"checkpoint-{best}"
        paths = {
            **{f"checkpoints/{name}/{path.name}": path for name, f in folders.items() for path in sorted(f.iterdir())},
            **{name: self._work / name for name in _BESIDE if (self._work / name).is_file()},
        }
        files = {name: sha256_of(path) for name, path in paths.items()}
        for name, digest in files.items():
            if not self._store.exists(self._file(digest)):
                self._store.put_file(self._file(digest), paths[name])
        self._store.put(f"{self._prefix}{step_of(folder):09d}.json", canonical_json({"files": files}))
        self._forget_old()

    def _forget_old(self) -> None:
        manifests = self._manifests()
        for key in manifests[:-KEPT]:
            self._store.delete(key)
        needed = {self._file(digest) for key in manifests[-KEPT:] for digest in self._read(key).values()}
        for info in list(self._store.list(f"{self._prefix}files/")):
            if info.key not in needed:
                self._store.delete(info.key)

    def _bring(self, files: Mapping[str, str]) -> None:
        """All files of a manifest, checked, then moved into place; DataLoss for one that is not what it should be."""
        fetched = self._work / "fetched"
        shutil.rmtree(fetched, ignore_errors=True)
        for name, digest in files.items():
            path = fetched / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._store.get_file(self._file(digest), path)
            if sha256_of(path) != digest:
                raise DataLoss(f"{name} has not the bytes that were stored", metadata={"name": name})
        shutil.rmtree(self._work / "checkpoints", ignore_errors=True)
        for path in sorted(fetched.iterdir()):
            path.rename(self._work / path.name)
        shutil.rmtree(fetched, ignore_errors=True)

    def _read(self, key: str) -> dict[str, str]:
        try:
            files: Any = json.loads(self._store.get(key).data)["files"]
            if all(_is_inside(name) for name in files):
                return {str(name): str(digest) for name, digest in files.items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            pass
        raise DataLoss(f"the manifest {key} is corrupt", metadata={"key": key})

    def _manifests(self) -> list[str]:
        """Keys of manifests, by step."""
        keys = (info.key for info in self._store.list(self._prefix))
        return sorted(key for key in keys if key.endswith(".json") and "/" not in key.removeprefix(self._prefix))

    def _file(self, digest: str) -> str:
        return f"{self._prefix}files/{digest}"


def _is_inside(name: str) -> bool:
    """Whether a name of a manifest is one of a training's own files."""
    parts = name.split("/")
    return name in _BESIDE or (len(parts) == 3 and parts[0] == "checkpoints" and not {"", ".", ".."} & set(parts))
