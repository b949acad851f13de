"""Datasets read back: the manifest, the shards checked against their hashes, the examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from tunesmith.domain import keys
from tunesmith.domain.datasets import Dataset
from tunesmith.domain.errors import DataLoss, NotFound
from tunesmith.domain.examples import Example, Split
from tunesmith.ports.store import Store


def load_dataset_manifest(recipe: str, dataset_id: str, *, store: Store) -> Dataset:
    """The dataset of that id; NotFound when there is none, DataLoss when its manifest does not parse."""
    key = keys.dataset(recipe, dataset_id)
    try:
        data = store.get(key).data
    except NotFound as error:
        raise NotFound(
            f"dataset {dataset_id} of recipe {recipe} does not exist; build it, or list the datasets there are",
            metadata={"recipe": recipe, "dataset": dataset_id},
        ) from error
    try:
        return Dataset.from_json(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataLoss(
            f"dataset manifest {key} is corrupt ({type(error).__name__}: {error}); "
            "delete the object and build the dataset again",
            metadata={"key": key},
        ) from error


def rows_path(dataset: Dataset, split: Split, *, store: Store, folder: Path) -> Path:
    """A local copy of a split's shard, `<folder>/<dataset id>/<split>.jsonl`, with the hash of the manifest.

    A copy that is there and whole is used again. DataLoss when the stored shard is missing or has another hash.
    """
    path = folder / dataset.id / f"{split}.jsonl"
    expected = dataset.shard_hashes[split]
    if path.exists() and file_sha256(path) == expected:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    key = dataset.shards[split]
    try:
        store.get_file(key, path)
    except NotFound as error:
        raise _shard_lost(dataset, key, "is missing") from error
    found = file_sha256(path)
    if found != expected:
        path.unlink()
        raise _shard_lost(dataset, key, f"has SHA-256 {found} where the manifest says {expected}")
    return path


def iterate_examples(dataset: Dataset, split: Split, *, store: Store, folder: Path) -> Iterator[Example]:
    """The examples of a split in dataset order, in bounded memory. Raises as `rows_path` does.

    Attributes that a row does not have, which the shard holds as empty strings, are left out.
    """
    with rows_path(dataset, split, store=store, folder=folder).open("rb") as lines:
        for line in lines:
            row = json.loads(line)
            row["attributes"] = {name: value for name, value in row["attributes"].items() if value}
            yield Example.from_json(row)


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shard_lost(dataset: Dataset, key: str, what: str) -> DataLoss:
    return DataLoss(
        f"shard {key} of dataset {dataset.id} {what}; delete {keys.dataset(dataset.recipe, dataset.id)} "
        "and build the dataset again",
        metadata={"key": key, "dataset": dataset.id},
    )
