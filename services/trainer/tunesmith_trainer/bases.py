"""Base models: what exactly a name stands for, and how one that was made here reaches other machines."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from uuid import uuid4

from tunesmith.domain import keys
from tunesmith.ports.store import Store
from tunesmith_trainer.torch_backend.builtin import BUILTIN_BASES

HUB_PREFIX = "hub:"
"""Fingerprint of a Hub model is `hub:` and its id; the Hub keeps what an id stands for."""

_EDGE_BYTES = 2**20
"""Read at both ends of a file to fingerprint it: safetensors has its header at the start, last layers at the end."""


def base_fingerprint(base: str) -> str:
    """What `base` stands for on this machine, without loading it.

    A built-in base: the hash of what it is made from. A folder: a hash over its files' names, sizes and both ends. A
    Hub id: `hub:ID`.
    """
    if base in BUILTIN_BASES:
        return BUILTIN_BASES[base].fingerprint()
    folder = Path(base).expanduser()
    return _folder_fingerprint(folder) if folder.is_dir() else HUB_PREFIX + base


def answers_seen_by_base(base: str) -> tuple[str, ...]:
    """Texts that are known to be in the base's own training data; empty for a base that was made elsewhere."""
    return BUILTIN_BASES[base].texts_seen() if base in BUILTIN_BASES else ()


def publish_base(store: Store, folder: Path, fingerprint: str) -> None:
    """Put a base that was made here into the store, so that a generator elsewhere can answer with it. Idempotent."""
    prefix = keys.base_model(fingerprint)
    # config.json last: who finds it finds the whole base.
    names = sorted((path.name for path in folder.iterdir() if path.is_file()), key=lambda name: name == "config.json")
    for name in names:
        if not store.exists(prefix + name):
            store.put_file(prefix + name, folder / name)


def fetch_base(store: Store, base: str, bases_folder: Path) -> bool:
    """Bring a built-in base that was made elsewhere into `bases_folder`; False when the store has none, or it is here.

    An adapter belongs to the very bytes that it was trained on, so those are taken rather than made again.
    """
    if base not in BUILTIN_BASES:
        return False
    folder, prefix = BUILTIN_BASES[base].folder(bases_folder), keys.base_model(base_fingerprint(base))
    if folder.is_dir() or not store.exists(f"{prefix}config.json"):
        return False
    unfinished = folder.with_name(f"{folder.name}.{uuid4().hex}.tmp")
    unfinished.mkdir(parents=True)
    try:
        for info in list(store.list(prefix)):
            store.get_file(info.key, unfinished / info.key.removeprefix(prefix))
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # another process may have brought it meanwhile
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def _folder_fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        size_bytes = path.stat().st_size
        digest.update(f"{path.name}\0{size_bytes}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE_BYTES))
            file.seek(max(0, size_bytes - _EDGE_BYTES))
            digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()
