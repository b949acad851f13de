"""Adapter files from the store, checked before anything reads them. Free of PyTorch."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.domain.errors import DataLoss, NotFound
from tunesmith.ports.language_model import Adapter
from tunesmith.ports.store import Store

WEIGHTS = "adapter_model.safetensors"
FILES = ("adapter_config.json", WEIGHTS)
"""All that is fetched: whatever else lies there (a pickle, say) never reaches this machine."""


@contextmanager
def fetched(adapter: Adapter, *, store: Store, cache_dir: Path) -> Iterator[Path]:
    """A folder with the adapter's two files, there while the block runs.

    Nothing is kept afterwards: the weights are in memory then, and files that are not kept cannot go stale.
    Raises NotFound when a file is missing and DataLoss when the weights are not those of `adapter.hash`.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix="adapter-") as name:
        folder = Path(name)
        for file in FILES:
            _fetch(adapter, file, store=store, folder=folder)
        with (folder / WEIGHTS).open("rb") as weights:
            actual = hashlib.file_digest(weights, "sha256").hexdigest()
        if actual != adapter.hash:
            raise DataLoss(
                f"adapter {adapter.name} is corrupt: {adapter.key}{WEIGHTS} has SHA-256 {actual}, expected "
                f"{adapter.hash}; tune it again",
                reason="ADAPTER_HASH_MISMATCH",
                metadata={"adapter": adapter.name, "actual": actual, "expected": adapter.hash},
            )
        yield folder


def _fetch(adapter: Adapter, file: str, *, store: Store, folder: Path) -> None:
    try:
        store.get_file(f"{adapter.key}{file}", folder / file)
    except NotFound as error:
        raise NotFound(
            f"adapter {adapter.name} cannot be loaded: {adapter.key}{file} is not in the store; tune it again",
            reason="ADAPTER_FILES_MISSING",
            metadata={"adapter": adapter.name, "key": f"{adapter.key}{file}"},
        ) from error
