"""Publishing: the files of a model version as a folder that other programs load."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.catalogue import read_object
from tunesmith.domain import keys
from tunesmith.domain.errors import AlreadyExists, FailedPrecondition, Interrupted, NotFound
from tunesmith.domain.ids import canonical_json, check_name, content_id
from tunesmith.domain.jobs import Progress, ProgressReporter
from tunesmith.domain.models import ModelVersion
from tunesmith.domain.publications import Form, Publication, PublishedFile
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.store import Store
from tunesmith.servable import ADAPTER_FILES, fetch_adapter
from tunesmith_trainer import registry
from tunesmith_trainer.bases import HUB_PREFIX, base_fingerprint, fetch_base

PUBLICATION_VERSION = 1
"""Part of every publication's identity; raised when the same weights would give other files."""

UNPUBLISHED_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
"""Files that can run code when they are loaded."""


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """Which model version to publish, and how."""

    recipe: str
    version: str
    form: Form

    def to_json(self) -> dict[str, Any]:
        """The request as it is kept in a job."""
        return {"recipe": self.recipe, "version": self.version, "form": self.form}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> PublishRequest:
        """The inverse of `to_json`."""
        return PublishRequest(row["recipe"], row["version"], row["form"])


def publication_id(version: ModelVersion, form: Form) -> str:
    """The same weights in the same form are the same publication."""
    return content_id("pub", [PUBLICATION_VERSION, form, version.adapter_hash, version.base_fingerprint])


def publish(
    request: PublishRequest,
    *,
    store: Store,
    clock: Clock,
    scratch: Path,
    bases_folder: Path,
    report: ProgressReporter,
    should_stop: Callable[[], bool],
) -> tuple[Publication, bool]:
    """Put the files of a model version into the store, or find them; the flag says that they were there.

    Raises NotFound, DataLoss (the adapter is not the one that was judged), FailedPrecondition (its base has changed
    since), BaseModelUnavailable (no tokenizer, say), Interrupted.
    """
    version = registry.get_version(store, request.recipe, request.version)
    name = publication_id(version, request.form)
    if store.exists(keys.publication(name)):
        return get_publication(store, name), True
    _check_base(version)
    shutil.rmtree(scratch, ignore_errors=True)
    folder = scratch / "publication"
    folder.mkdir(parents=True)
    try:
        report(Progress("load", message="fetching the adapter"))
        adapter = scratch / "adapter"
        adapter.mkdir()
        fetch_adapter(store, version.id, version.adapter_key, version.adapter_hash, adapter)
        # Importing PyTorch takes seconds; a publication that exists should not wait for it.
        from tunesmith_trainer.torch_backend.base_models import resolve_base
        from tunesmith_trainer.torch_backend.merging import save_merged, save_tokenizer

        fetch_base(store, version.base_model, bases_folder)
        base = resolve_base(version.base_model, bases_folder, should_stop=should_stop)
        dtype = ""
        if request.form == "merged":
            report(Progress("merge", message=f"merging the adapter into {version.base_model}"))
            dtype = save_merged(base, adapter, folder)
        else:
            save_tokenizer(base, folder)
            for file in ADAPTER_FILES:
                shutil.copyfile(adapter / file, folder / file)
            _write_config(folder / "adapter_config.json", base_model=published_base_name(version.base_model))
        files = _stored(store, name, folder, report=report, should_stop=should_stop)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    made = Publication(
        id=name,
        form=request.form,
        adapter_hash=version.adapter_hash,
        base_fingerprint=version.base_fingerprint,
        dtype=dtype,
        files=files,
        created_at=rfc3339(clock.now()),
    )
    try:
        store.create(keys.publication(name), canonical_json(made.to_json()))
    except AlreadyExists:
        return get_publication(store, name), True
    return made, False


def get_publication(store: Store, name: str) -> Publication:
    """A publication; NotFound, DataLoss."""
    check_name(name, what="publication_id")
    return read_object(store, keys.publication(name), Publication.from_json, what=f"publication {name!r}")


def published_base_name(base_model: str) -> str:
    """How a base is called outside: a Hub id or built-in name as it is, a folder of this machine by its name alone."""
    return Path(base_model).name if Path(base_model).expanduser().is_absolute() else base_model


def _check_base(version: ModelVersion) -> None:
    """FailedPrecondition when the name of the base stands for something else than when the adapter was trained."""
    now = base_fingerprint(version.base_model)
    if now == version.base_fingerprint:
        return
    if now == HUB_PREFIX + version.base_model and not version.base_fingerprint.startswith(HUB_PREFIX):
        raise NotFound(
            f"base model {version.base_model!r} of version {version.id} is not on this machine any more; put the "
            "folder back where it was",
            reason="BASE_MISSING",
            metadata={"base_model": version.base_model},
        )
    raise FailedPrecondition(
        f"base model {version.base_model!r} is another one than version {version.id} was trained on (its fingerprint "
        f"is {now[:16]}, then it was {version.base_fingerprint[:16]}); put the former one back, or train again",
        reason="BASE_CHANGED",
        metadata={"base_model": version.base_model, "now": now, "then": version.base_fingerprint},
    )


def _write_config(path: Path, *, base_model: str) -> None:
    config = json.loads(path.read_text("utf-8")) | {"base_model_name_or_path": base_model}
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _stored(
    store: Store, name: str, folder: Path, *, report: ProgressReporter, should_stop: Callable[[], bool]
) -> tuple[PublishedFile, ...]:
    """Put the folder's files into the store; those that could run code are left out."""
    paths = [path for path in sorted(folder.iterdir()) if path.suffix not in UNPUBLISHED_SUFFIXES]
    found = []
    for number, path in enumerate(paths, start=1):
        if should_stop():
            raise Interrupted("publishing was asked to stop; the next attempt begins anew")
        store.put_file(keys.published_file(name, path.name), path)
        found.append(PublishedFile(path.name, path.stat().st_size, sha256_of(path)))
        report(Progress("store", number, len(paths), "files", path.name))
    return tuple(found)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
