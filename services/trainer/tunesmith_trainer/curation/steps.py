"""The steps from stored records to unique examples, as generators; what a step leaves out is counted, not raised."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from tunesmith.domain.errors import DataLoss, NotFound
from tunesmith.domain.examples import Dropped, Example
from tunesmith.domain.records import Collection, Record
from tunesmith.ports.store import Store
from tunesmith.recipes.base import Recipe
from tunesmith_trainer.curation.drops import EXACT_DUPLICATE, Drops


@dataclass(frozen=True, slots=True)
class Row:
    """A record on its way: as read, as stored (`line`), and the number of its collection."""

    record: Record
    line: bytes
    collection: int


@dataclass(frozen=True, slots=True)
class Usable:
    """A row that the recipe made an example of; `identity` is what it counts as."""

    row: Row
    example: Example
    identity: str


@dataclass(frozen=True, slots=True)
class Sighting:
    """A usable row and the number of its answer; numbers go from 0 in the order in which answers first appear."""

    usable: Usable
    number: int
    is_first: bool


def in_reading_order(collections: Sequence[Collection]) -> tuple[Collection, ...]:
    """Each collection once, older ones first, ties by id.

    The caller's order does not matter, and a collection that comes later neither renumbers earlier rows nor takes
    over as the first of a pair of duplicates.
    """
    return tuple(sorted({c.id: c for c in collections}.values(), key=lambda c: (c.created_at, c.id)))


def read_rows(collections: Sequence[Collection], *, store: Store, folder: Path) -> Iterator[Row]:
    """The records of all shards in order, one shard at a time on disk. DataLoss names what is missing or corrupt."""
    local = folder / "record-shard.jsonl"
    for number, collection in enumerate(collections):
        num_rows = 0
        for key in collection.shards:
            try:
                store.get_file(key, local)
            except NotFound as error:
                raise DataLoss(
                    f"record shard {key} of collection {collection.id} is gone; collect {collection.source} again",
                    metadata={"key": key, "collection": collection.id},
                ) from error
            for row in _read_shard(local, key=key, collection=number):
                num_rows += 1
                yield row
        if num_rows != collection.num_records:
            raise DataLoss(
                f"collection {collection.id} promises {collection.num_records} records and its shards hold "
                f"{num_rows}; collect {collection.source} again",
                metadata={"collection": collection.id, "value": str(num_rows), "limit": str(collection.num_records)},
            )


def _read_shard(path: Path, *, key: str, collection: int) -> Iterator[Row]:
    with path.open("rb") as lines:
        for line_number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = Record.from_json(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise DataLoss(
                    f"line {line_number} of record shard {key} is not a record ({type(error).__name__}: {error}); "
                    "collect the source again",
                    metadata={"key": key, "line": str(line_number)},
                ) from error
            yield Row(record, line.rstrip(b"\n"), collection)


def usable_rows(rows: Iterable[Row], recipe: Recipe, drops: Drops) -> Iterator[Usable]:
    """Rows that the recipe can use; the others are counted in `drops` under the recipe's reasons."""
    for row in rows:
        example = recipe.example(row.record, index=0)
        if isinstance(example, Dropped):
            drops.add(example)
        else:
            yield Usable(row, example, recipe.duplicate_key(example))


def sightings(rows: Iterable[Usable], drops: Drops) -> Iterator[Sighting]:
    """Every usable row with the number of its answer; all but the first of an identity count as exact duplicates.

    Duplicates are passed on because the lineage of a kept answer names every record that gave it.
    """
    numbers: dict[bytes, int] = {}
    for usable in rows:
        digest = blake2b(usable.identity.encode(), digest_size=16).digest()
        known = numbers.get(digest)
        if known is None:
            numbers[digest] = number = len(numbers)
        else:
            number = known
            drops.add(Dropped(EXACT_DUPLICATE, usable.example.answer))
        yield Sighting(usable, number, is_first=known is None)
