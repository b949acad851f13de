"""Datasets: immutable snapshots of examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.domain.overrides import Ranges, with_overrides


@dataclass(frozen=True, slots=True)
class CurationSettings:
    """How records become a dataset. Every field is part of the dataset's identity."""

    near_duplicate_similarity: float = 0.85
    """Jaccard similarity of character 3-grams from which two answers count as near-twins, in (0, 1]."""
    drop_near_duplicates: bool = False
    """Drop near-twins (True), or keep them together on one side of the split (False)."""
    max_word_share: float = 0.0
    """No word may stand in more than this share of the rows; 0 turns balancing by word off."""
    max_language_share: float = 0.0
    """No language may hold more than this share of the rows; 0 turns balancing by language off."""
    seed: int = 42
    """Decides which rows balancing drops, and the seed numbers in prompts."""

    def to_json(self) -> dict[str, Any]:
        """The settings by field name."""
        return {
            "near_duplicate_similarity": self.near_duplicate_similarity,
            "drop_near_duplicates": self.drop_near_duplicates,
            "max_word_share": self.max_word_share,
            "max_language_share": self.max_language_share,
            "seed": self.seed,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> CurationSettings:
        """The inverse of `to_json`; unknown names and values out of range raise InvalidInput."""
        return CurationSettings().changed(row)

    def changed(self, overrides: Mapping[str, Any]) -> CurationSettings:
        """A copy with `overrides` applied and checked; InvalidInput names the setting, the value and the range."""
        return with_overrides(self, overrides, what="curation", ranges=_RANGES)


_RANGES: Ranges = {
    "near_duplicate_similarity": (0.3, 1.0),
    "max_word_share": (0.0, 1.0),
    "max_language_share": (0.0, 1.0),
    "seed": (0, 2**32 - 1),
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """The manifest of a dataset: what is in it, what was left out and why, and where it came from."""

    id: str
    recipe: str
    shards: Mapping[str, str]
    """Object key of the JSON-lines shard by split name."""
    shard_hashes: Mapping[str, str]
    """Hex SHA-256 of the shard by split name."""
    num_examples: Mapping[str, int]
    """Number of examples by split name."""
    num_records: int
    dropped: Mapping[str, int]
    """Number of dropped rows by reason; with `num_examples` it adds up to `num_records`."""
    distributions: Mapping[str, Mapping[str, int]]
    """Counts by attribute and value, and `word`, `length` histograms; at most 100 values each."""
    settings: Mapping[str, Any]
    collections: tuple[str, ...]
    licences: Mapping[str, int]
    created_at: str

    def to_json(self) -> dict[str, Any]:
        """The manifest as its object in the store."""
        return {
            "id": self.id,
            "recipe": self.recipe,
            "shards": dict(self.shards),
            "shard_hashes": dict(self.shard_hashes),
            "num_examples": dict(self.num_examples),
            "num_records": self.num_records,
            "dropped": dict(self.dropped),
            "distributions": {k: dict(v) for k, v in self.distributions.items()},
            "settings": dict(self.settings),
            "collections": list(self.collections),
            "licences": dict(self.licences),
            "created_at": self.created_at,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Dataset:
        """The inverse of `to_json`."""
        return Dataset(
            id=row["id"],
            recipe=row["recipe"],
            shards=dict(row["shards"]),
            shard_hashes=dict(row["shard_hashes"]),
            num_examples=dict(row["num_examples"]),
            num_records=row["num_records"],
            dropped=dict(row["dropped"]),
            distributions={k: dict(v) for k, v in row["distributions"].items()},
            settings=dict(row["settings"]),
            collections=tuple(row["collections"]),
            licences=dict(row["licences"]),
            created_at=row["created_at"],
        )
