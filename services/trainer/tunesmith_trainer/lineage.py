"""Where a thing came from, down to source rows; or what came of a source row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tunesmith.catalogue import list_objects, read_object
from tunesmith.domain import keys
from tunesmith.domain.datasets import Dataset
from tunesmith.domain.errors import DataLoss, InvalidInput, NotFound
from tunesmith.domain.examples import SPLITS
from tunesmith.domain.models import ModelVersion
from tunesmith.domain.records import Collection, Record
from tunesmith.domain.runs import Run
from tunesmith.ports.store import Store
from tunesmith.recipes.base import Recipe
from tunesmith.stored_collections import read_collection

DEFAULT_ROWS = 20
MAX_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Node:
    """One thing in the chain."""

    kind: str
    """`model`, `run`, `dataset`, `collection`, `record` or `answer`."""
    id: str
    summary: str
    facts: Mapping[str, str]


@dataclass(slots=True)
class Trace:
    """Things by id, and which was derived from which: (derived, origin)."""

    max_rows: int
    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[str, str]] = field(default_factory=list)
    truncated: bool = False

    def add(self, node: Node) -> bool:
        """Add a node unless it is there; tells whether it is new."""
        if any(known.id == node.id for known in self.nodes):
            return False
        self.nodes.append(node)
        return True

    def link(self, derived: str, origin: str) -> None:
        """`derived` was made from `origin`."""
        if (derived, origin) not in self.edges:
            self.edges.append((derived, origin))


def checked_max_rows(asked: int) -> int:
    """The number of source rows to return; InvalidInput when it is out of range."""
    if not 0 <= asked <= MAX_ROWS:
        raise InvalidInput(
            f"max_rows={asked} is out of range: 1 to {MAX_ROWS}, or 0 for {DEFAULT_ROWS}",
            metadata={"field": "max_rows"},
        )
    return asked or DEFAULT_ROWS


def trace(store: Store, recipe: Recipe, subject: str, *, max_rows: int) -> Trace:
    """The lineage of `subject`: a model version, run, dataset, collection or record id, or the text of an answer.

    From a model the trace goes down to collections and the first rows; from a record or an answer it goes up to the
    datasets, runs and models that hold it, too. NotFound when nothing is known by that name.
    """
    if not subject:
        raise InvalidInput("subject is empty; send an id, or an answer's text", metadata={"field": "subject"})
    found = Trace(max_rows)
    for attempt in (_from_version, _from_run, _from_dataset, _from_collection, _from_row):
        try:
            attempt(store, recipe, subject, found)
        except (NotFound, InvalidInput):  # InvalidInput: an answer's text is no object key
            continue
        return found
    raise NotFound(
        f"nothing is known of {subject[:80]!r} in recipe {recipe.name!r}: no model version, run, dataset, collection "
        "or record has that id, and no dataset holds that answer",
        metadata={"subject": subject[:80]},
    )


def _from_version(store: Store, recipe: Recipe, subject: str, found: Trace) -> None:
    version = read_object(
        store, keys.model_version(recipe.name, subject), ModelVersion.from_json, what=f"model version {subject!r}"
    )
    _add_version(version, found)
    _from_run(store, recipe, version.run_id, found)


def _from_run(store: Store, recipe: Recipe, subject: str, found: Trace) -> None:
    run = read_object(store, keys.run(recipe.name, subject), Run.from_json, what=f"run {subject!r}")
    _add_run(run, found)
    _from_dataset(store, recipe, run.dataset_id, found)


def _from_dataset(store: Store, recipe: Recipe, subject: str, found: Trace) -> None:
    dataset = read_object(store, keys.dataset(recipe.name, subject), Dataset.from_json, what=f"dataset {subject!r}")
    _add_dataset(dataset, found)
    for collection_id in dataset.collections:
        found.link(dataset.id, collection_id)
        _from_collection(store, recipe, collection_id, found)


def _from_collection(store: Store, recipe: Recipe, subject: str, found: Trace) -> None:
    collection = read_collection(store, recipe.name, subject)
    _add_collection(collection, found)
    for record in _records(store, collection):
        if sum(node.kind == "record" for node in found.nodes) >= found.max_rows:
            found.truncated = True
            return
        _add_record(record, found)
        found.link(collection.id, record.id)


def _from_row(store: Store, recipe: Recipe, subject: str, found: Trace) -> None:
    """From a record's id or an answer's text: its records below, and the datasets, runs and models above."""
    identity = recipe.identity(subject)
    runs = list_objects(store, f"runs/{recipe.name}/", Run.from_json, what="run", suffix="/run.json")
    versions = list_objects(store, f"models/{recipe.name}/versions/", ModelVersion.from_json, what="model version")
    datasets = list_objects(
        store, f"datasets/{recipe.name}/", Dataset.from_json, what="dataset", suffix="/manifest.json"
    )
    for dataset in datasets:
        examples = _examples_of_answer(store, dataset, recipe, identity)
        rows = [
            row for row in _lineage_rows(store, dataset) if subject == row["record_id"] or row["example_id"] in examples
        ]
        if not rows:
            continue
        _add_dataset(dataset, found)
        for row in rows[: found.max_rows]:
            _add_row(store, recipe, dataset, row, found)
        found.truncated |= len(rows) > found.max_rows
        for run in (run for run in runs if run.dataset_id == dataset.id):
            _add_run(run, found)
            for version in (version for version in versions if version.run_id == run.id):
                _add_version(version, found)
    if not found.nodes:
        raise NotFound(f"no dataset holds {subject[:80]!r}")


def _add_row(store: Store, recipe: Recipe, dataset: Dataset, row: Mapping[str, str], found: Trace) -> None:
    found.add(Node("answer", row["example_id"], f"example in split {row['split']}", {"split": row["split"]}))
    found.link(dataset.id, row["example_id"])
    found.link(row["example_id"], row["record_id"])
    collection = read_collection(store, recipe.name, row["collection_id"])
    _add_collection(collection, found)
    found.link(row["record_id"], collection.id)
    for record in _records(store, collection):
        if record.id == row["record_id"]:
            _add_record(record, found)
            return


def _add_version(version: ModelVersion, found: Trace) -> None:
    facts = {"adapter_hash": version.adapter_hash, "report": version.report_id, "base_model": version.base_model}
    found.add(Node("model", version.id, "passed its gates" if version.passed else "did not pass its gates", facts))
    found.link(version.id, version.run_id)


def _add_run(run: Run, found: Trace) -> None:
    facts = {"base_model": run.base_model, "base_fingerprint": run.base_fingerprint, "num_steps": str(run.num_steps)}
    found.add(Node("run", run.id, f"tuned {run.base_model}", facts))
    found.link(run.id, run.dataset_id)


def _add_dataset(dataset: Dataset, found: Trace) -> None:
    counts = ", ".join(f"{split} {dataset.num_examples.get(split, 0)}" for split in SPLITS)
    found.add(Node("dataset", dataset.id, counts, {f"licence {k}": str(v) for k, v in dataset.licences.items()}))


def _add_collection(collection: Collection, found: Trace) -> None:
    facts = {f"licence {k}": str(v) for k, v in collection.licences.items()}
    found.add(Node("collection", collection.id, f"{collection.num_records} records from {collection.source}", facts))


def _add_record(record: Record, found: Trace) -> None:
    source = record.provenance
    facts = {
        "url": source.final_url or source.url,
        "position": str(source.position),
        "licence": source.licence.id,
        "fetched_at": source.fetched_at,
        "content_hash": source.content_hash,
    }
    found.add(Node("record", record.id, ", ".join(record.fields.values())[:120], facts))


def _records(store: Store, collection: Collection) -> Iterator[Record]:
    for shard in collection.shards:
        for row in _json_lines(store, shard):
            yield Record.from_json(row)


def _lineage_rows(store: Store, dataset: Dataset) -> Iterator[Mapping[str, str]]:
    return _json_lines(store, keys.dataset_lineage(dataset.recipe, dataset.id))


def _examples_of_answer(store: Store, dataset: Dataset, recipe: Recipe, identity: str) -> set[str]:
    return {
        row["id"]
        for split in SPLITS
        for row in _json_lines(store, dataset.shards[split])
        if recipe.identity(row["answer"]) == identity
    }


def _json_lines(store: Store, key: str) -> Iterator[dict[str, str]]:
    try:
        for line in store.get(key).data.splitlines():
            yield json.loads(line)
    except (NotFound, ValueError) as error:
        raise DataLoss(
            f"the stored rows {key} are missing or corrupt: {error}; build what they belong to again",
            metadata={"key": key},
        ) from error
