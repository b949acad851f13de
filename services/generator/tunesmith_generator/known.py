"""What a model was trained on, so that an answer which merely recites it is recognised."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from dataclasses import dataclass

from tunesmith.domain import keys
from tunesmith.domain.datasets import Dataset
from tunesmith.domain.errors import DataLoss, NotFound
from tunesmith.domain.examples import Example
from tunesmith.domain.ids import sha256_hex
from tunesmith.ports.store import Store
from tunesmith.recipes.base import Recipe

logger = logging.getLogger(__name__)

MAX_DATASETS = 8
"""Training sets remembered; the least recently used one goes."""


@dataclass(frozen=True, slots=True)
class KnownIdentities:
    """The identities of a training split. An empty `dataset_id` means that nothing was there to compare with."""

    dataset_id: str
    identities: frozenset[str]


NOTHING_KNOWN = KnownIdentities("", frozenset())


class KnownAnswers:
    """Identities by dataset, read from the store once. Use from one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tasks: OrderedDict[str, asyncio.Task[KnownIdentities]] = OrderedDict()

    async def of(self, recipe: Recipe, dataset_id: str) -> KnownIdentities:
        """The identities of the dataset's training split; NOTHING_KNOWN without a dataset, or when it was deleted.

        Raises DataLoss when the shard is not what its manifest says.
        """
        if not dataset_id:
            return NOTHING_KNOWN
        task = self._tasks.get(dataset_id)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(asyncio.to_thread(self._read, recipe, dataset_id))
            self._tasks[dataset_id] = task
        self._tasks.move_to_end(dataset_id)
        while len(self._tasks) > MAX_DATASETS:
            self._tasks.popitem(last=False)
        # Shielded, because several requests wait for one reading and any of them may be cancelled.
        return await asyncio.shield(task)

    def _read(self, recipe: Recipe, dataset_id: str) -> KnownIdentities:
        try:
            manifest = self._store.get(keys.dataset(recipe.name, dataset_id)).data
            dataset = Dataset.from_json(json.loads(manifest))
            shard = self._store.get(dataset.shards["train"]).data
        except NotFound:
            logger.warning("dataset %s of %s is gone: its answers cannot be recognised", dataset_id, recipe.name)
            return NOTHING_KNOWN
        if sha256_hex(shard) != dataset.shard_hashes["train"]:
            raise DataLoss(
                f"training shard {dataset.shards['train']} of dataset {dataset_id} is corrupt: SHA-256 "
                f"{sha256_hex(shard)}, expected {dataset.shard_hashes['train']}; build the dataset again",
                metadata={"key": dataset.shards["train"]},
            )
        examples = (Example.from_json(json.loads(line)) for line in shard.decode().split("\n") if line)
        return KnownIdentities(dataset_id, frozenset(recipe.identity(example.answer) for example in examples))
