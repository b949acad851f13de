"""Adapter files from the store, checked before anything reads them. Free of PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.ports.language_model import Adapter
from tunesmith.ports.store import Store
from tunesmith.servable import fetch_adapter


@contextmanager
def fetched(adapter: Adapter, *, store: Store, cache_dir: Path) -> Iterator[Path]:
    """A folder with the adapter's two files, there while the block runs; raises what `fetch_adapter` raises.

    Nothing is kept afterwards: the weights are in memory then, and files that are not kept cannot go stale.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix="adapter-") as name:
        fetch_adapter(store, adapter.name, adapter.key, adapter.hash, Path(name))
        yield Path(name)
