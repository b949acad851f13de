"""The files that a server of one model version is started with, from the store: the adapter, and a base made here.

A base of the Hub is fetched by the server itself; the folder of an adapter is named by its version, that of a base by
its fingerprint, by which the generator recognises them.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.catalogue import read_object
from tunesmith.domain import keys
from tunesmith.domain.errors import BaseModelUnavailable, DataLoss, NotFound
from tunesmith.domain.ids import check_name
from tunesmith.domain.models import ModelVersion
from tunesmith.ports.store import Store

WEIGHTS = "adapter_model.safetensors"
ADAPTER_FILES = ("adapter_config.json", WEIGHTS)

_HUB, _BUILTIN = "hub:", "builtin:"


def adapter_folder(version: ModelVersion) -> str:
    """Where `fetch_servable` puts the adapter, below its folder."""
    return f"adapters/{version.id}"


def base_folder(version: ModelVersion) -> str:
    """Where it puts the base, below its folder; empty for a base of the Hub."""
    return "" if version.base_fingerprint.startswith(_HUB) else version.base_fingerprint


def check_fetchable(version: ModelVersion) -> None:
    """BaseModelUnavailable for a base that is neither on the Hub nor in the store."""
    if version.base_fingerprint.startswith(_HUB) or version.base_model.startswith(_BUILTIN):
        return
    raise BaseModelUnavailable(
        f"model version {version.id} lies on {version.base_model}, a folder of the machine that trained it, from which "
        "no server elsewhere can be started; put the base on the Hub and train on its id",
        reason="BASE_NOT_SHARED",
        metadata={"version": version.id, "base_model": version.base_model},
    )


def fetch_servable(store: Store, recipe: str, version: str, folder: Path) -> ModelVersion:
    """Bring the files into `folder`; those that are there whole stay. Idempotent, and safe to be killed.

    Raises NotFound, DataLoss (the adapter is not the one that was judged), BaseModelUnavailable.
    """
    check_name(recipe, what="recipe")
    check_name(version, what="model version")
    found = read_object(
        store,
        keys.model_version(recipe, version),
        ModelVersion.from_json,
        what=f"model version {version!r} of {recipe}",
    )
    check_fetchable(found)
    with _whole(folder / adapter_folder(found)) as target:
        if target is not None:
            fetch_adapter(store, found.id, found.adapter_key, found.adapter_hash, target)
    if base := base_folder(found):
        with _whole(folder / base) as target:
            if target is not None:
                _fetch_base(store, found, target)
    return found


def fetch_adapter(store: Store, name: str, key: str, expected_hash: str, folder: Path) -> None:
    """Bring the adapter's two files from below `key` into `folder`; whatever else lies there (a pickle) stays there.

    NotFound when one is missing, DataLoss unless the weights have the SHA-256 `expected_hash`.
    """
    for file in ADAPTER_FILES:
        try:
            store.get_file(f"{key}{file}", folder / file)
        except NotFound as error:
            raise NotFound(
                f"adapter {name} cannot be loaded: {key}{file} is not in the store; tune it again",
                reason="ADAPTER_FILES_MISSING",
                metadata={"adapter": name, "key": f"{key}{file}"},
            ) from error
    with (folder / WEIGHTS).open("rb") as weights:
        actual = hashlib.file_digest(weights, "sha256").hexdigest()
    if actual != expected_hash:
        raise DataLoss(
            f"adapter {name} is corrupt: {key}{WEIGHTS} has SHA-256 {actual}, expected {expected_hash}; tune it again",
            reason="ADAPTER_HASH_MISMATCH",
            metadata={"adapter": name, "actual": actual, "expected": expected_hash},
        )


def _fetch_base(store: Store, version: ModelVersion, target: Path) -> None:
    prefix = keys.base_model(version.base_fingerprint)
    names = [info.key.removeprefix(prefix) for info in store.list(prefix)]
    # It is put there last.
    if "config.json" not in names:
        raise BaseModelUnavailable(
            f"base model {version.base_model!r} ({version.base_fingerprint[:16]}) is not in the store; train a model "
            "on it first",
            metadata={"base_model": version.base_model},
        )
    for name in names:
        store.get_file(prefix + name, target / name)


@contextmanager
def _whole(target: Path) -> Iterator[Path | None]:
    """A folder to fill, which becomes `target` when the block ends well; None when `target` is there."""
    if target.is_dir():
        yield None
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".fetching-", dir=target.parent))
    try:
        yield unfinished
        # Its server may run as another user.
        unfinished.chmod(0o755)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
