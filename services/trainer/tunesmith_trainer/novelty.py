"""How much of a dataset is new: its examples that an earlier training did not have."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from tunesmith.domain import keys
from tunesmith.domain.errors import DataLoss, NotFound
from tunesmith.ports.store import Store

DIGEST_BYTES = 8
"""Of an example's id. Two of a million ids share one with a chance of 3e-8."""

MAX_COMPARED = 16
"""Trained datasets that a new one is compared with, the newest; older ones hold less."""


class Novelty:
    """Counts new examples. Not thread-safe; counts are remembered, for datasets never change."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self._store = store
        self._scratch = scratch
        self._counts: dict[tuple[str, str], tuple[int, int]] = {}

    def against(self, recipe: str, dataset_id: str, trained: Iterable[str]) -> tuple[int, int]:
        """Examples of the dataset (all splits, told apart by id) that the nearest trained dataset has not, and how many
        that one has; all of them, and 0, when there is none.

        The nearest is the one that leaves the fewest new: a dataset that is part of one that was trained on has none.
        `trained` comes newest first. NotFound or DataLoss when the dataset itself cannot be read; trained ones that
        cannot are left out.
        """
        newest = list(dict.fromkeys(trained))
        if dataset_id in newest:
            return 0, self._pair(recipe, dataset_id, dataset_id)[1]
        found = []
        for other in newest[:MAX_COMPARED]:
            try:
                found.append(self._pair(recipe, dataset_id, other))
            except (NotFound, DataLoss):
                # The dataset itself is at fault when it is the one that cannot be read.
                example_digests(self._store, recipe, dataset_id, scratch=self._scratch)
        if found:
            return min(found)
        return len(example_digests(self._store, recipe, dataset_id, scratch=self._scratch)), 0

    def _pair(self, recipe: str, one: str, other: str) -> tuple[int, int]:
        key = (f"{recipe}/{one}", f"{recipe}/{other}")
        if key not in self._counts:
            mine, theirs = (example_digests(self._store, recipe, i, scratch=self._scratch) for i in (one, other))
            self._counts[key] = (len(mine - theirs), len(theirs))
        return self._counts[key]


def example_digests(store: Store, recipe: str, dataset_id: str, *, scratch: Path) -> frozenset[bytes]:
    """A digest of DIGEST_BYTES for each example of a dataset.

    Kept beside the dataset; made from its lineage when it is not there yet. NotFound, DataLoss.
    """
    key = keys.dataset_example_ids(recipe, dataset_id)
    try:
        data = store.get(key).data
    except NotFound:
        data = b"".join(sorted(_digests_of_lineage(store, recipe, dataset_id, scratch)))
        store.put(key, data)
    if len(data) % DIGEST_BYTES:
        raise DataLoss(
            f"the stored object {key} is corrupt: {len(data)} bytes are no whole number of digests; delete it, it is "
            "made again",
            metadata={"key": key},
        )
    return frozenset(data[start : start + DIGEST_BYTES] for start in range(0, len(data), DIGEST_BYTES))


def _digests_of_lineage(store: Store, recipe: str, dataset_id: str, scratch: Path) -> set[bytes]:
    key = keys.dataset_lineage(recipe, dataset_id)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="novelty-") as folder:
        path = Path(folder, "lineage")
        store.get_file(key, path)
        try:
            with path.open("rb") as lines:
                return {
                    blake2b(json.loads(line)["example_id"].encode(), digest_size=DIGEST_BYTES).digest()
                    for line in lines
                }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataLoss(
                f"the lineage {key} is corrupt ({type(error).__name__}: {error}); build the dataset again",
                metadata={"key": key},
            ) from error
