"""Collections in the store: shards of records, and the manifest that is written last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from tunesmith.catalogue import read_object
from tunesmith.domain import keys
from tunesmith.domain.errors import AlreadyExists
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.records import Collection, Record
from tunesmith.ports.store import Store

MAX_SHARD_RECORDS = 5_000
MAX_SHARD_CHARS = 8 * 2**20
"""A shard ends when its fields hold so many characters, so that long lyrics do not make shards of gigabytes.

Only fields are counted: where shards end then follows from the records, and two attempts cut alike.
"""


def read_collection(store: Store, recipe: str, collection_id: str) -> Collection:
    """A collection's manifest; NotFound, DataLoss."""
    key = keys.collection(recipe, collection_id)
    return read_object(store, key, Collection.from_json, what=f"collection {collection_id!r} of recipe {recipe}")


def create_once(store: Store, key: str, data: bytes) -> bool:
    """Whether this call created it. What an earlier or parallel attempt stored stays: its key says that it is equal."""
    try:
        store.create(key, data)
    except AlreadyExists:
        return False
    return True


class RecordSpool:
    """Writes records to shard files in a folder, so that memory does not grow with their number. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._shard_records = 0
        self._shard_chars = 0
        self.paths: list[Path] = []
        self.num_records = 0
        self.licences: Counter[str] = Counter()
        """Records by the id of their licence."""

    def __enter__(self) -> RecordSpool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, record: Record) -> None:
        """Append a record to the last shard, or to a new one when that is full."""
        chars = sum(len(value) for value in record.fields.values())
        full = self._shard_records == MAX_SHARD_RECORDS or self._shard_chars + chars > MAX_SHARD_CHARS
        if self._file is None or (full and self._shard_records):
            self._file = self._next_shard()
        self._file.write(canonical_json(record.to_json()) + b"\n")
        self._shard_records += 1
        self._shard_chars += chars
        self.num_records += 1
        self.licences[record.provenance.licence.id] += 1

    def shard_keys(self, recipe: str, collection_id: str) -> tuple[str, ...]:
        """Where the shards belong in the store, in order."""
        return tuple(keys.record_shard(recipe, collection_id, number) for number in range(len(self.paths)))

    def _next_shard(self) -> BinaryIO:
        if self._file is not None:
            self._file.close()
        path = self._folder / f"shard-{len(self.paths):05d}.jsonl"
        self.paths.append(path)
        self._shard_records = self._shard_chars = 0
        return path.open("wb")


def publish_collection(
    store: Store, collection: Collection, shards: Sequence[Path], *, before_each: Callable[[], None] = lambda: None
) -> tuple[Collection, bool]:
    """Store the shards, then the manifest; or give back the first manifest of that id, and True.

    `before_each` is called before each shard; what it raises ends this, and nothing points to what was stored.
    """
    manifest_key = keys.collection(collection.recipe, collection.id)
    if not store.exists(manifest_key):
        for key, path in zip(collection.shards, shards, strict=True):
            before_each()
            create_once(store, key, path.read_bytes())
        if create_once(store, manifest_key, canonical_json(collection.to_json())):
            return collection, False
    return read_collection(store, collection.recipe, collection.id), True
