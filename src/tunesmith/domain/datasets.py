"""Datasets: immutable snapshots of examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.overrides import Ranges, check_ranges, with_overrides

LanguageBy = Literal["both", "column", "detection"]


@dataclass(frozen=True, slots=True)
class CurationSettings:
    """How records become a dataset. Every field is part of the dataset's identity."""

    near_duplicate_similarity: float = 0.85
    """Jaccard similarity of character n-grams from which two answers count as near-twins, in (0, 1]."""
    near_duplicate_chars: int = 3
    """Characters of those n-grams: 3 for names; 9 for texts of a thousand characters, which in any language share a
    third of their 3-grams by chance and a fortieth of their 9-grams (Leskovec, Rajaraman, Ullman, "Mining of Massive
    Datasets", section 3.2.2)."""
    drop_near_duplicates: bool = False
    """Drop near-twins (True), or keep them together on one side of the split (False)."""
    max_word_share: float = 0.0
    """No word may stand in more than this share of the rows; 0 turns balancing by word off."""
    max_language_share: float = 0.0
    """No language may hold more than this share of the rows; 0 turns balancing by language off."""
    validation_share: float = 0.1
    """Share of the rows, by their text, that are held out for early stopping."""
    test_share: float = 0.1
    """Share of the rows, by their text, that are held out for the judge."""
    sample_share: float = 1.0
    """Share of the rows that is used at all, chosen by `seed` and text: the same rows whatever else is collected."""
    keep: str = ""
    """Attribute values whose rows sampling and balancing never leave out, separated by `;`: `Odessa Finch; Ashgrove`,
    or with the attribute's name, `artist=Odessa Finch`."""
    languages: str = ""
    """Languages to use, ISO 639 codes separated by commas; any when empty."""
    language_by: LanguageBy = "both"
    """What decides a row's language where `languages` are given: its `language` `column`, our `detection` from its
    text, or `both`, which drops rows where they disagree."""
    seed: int = 42
    """Decides which rows sampling and balancing drop, and the seed numbers in prompts."""

    def to_json(self) -> dict[str, Any]:
        """The settings by field name."""
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> CurationSettings:
        """The inverse of `to_json`; unknown names and values out of range raise InvalidInput."""
        return CurationSettings().changed(row)

    def changed(self, overrides: Mapping[str, Any]) -> CurationSettings:
        """A copy with `overrides` applied and checked; InvalidInput names the setting, the value and the range."""
        settings = with_overrides(self, overrides, what="curation", ranges=_RANGES)
        settings.check()
        return settings

    def check(self) -> None:
        """Raise InvalidInput for the first setting that cannot work."""
        check_ranges(self, what="curation", ranges=_RANGES)
        if self.language_by not in get_args(LanguageBy):
            raise _unknown("language_by", self.language_by, f"use {', '.join(get_args(LanguageBy))}")
        for code in self.language_codes:
            if not _LANGUAGE.fullmatch(code):
                raise _unknown("languages", self.languages, "use ISO 639 codes such as en or en,es")
        if len(self.kept) > MAX_KEPT:
            raise _unknown("keep", f"{len(self.kept)} values", f"at most {MAX_KEPT} can be kept")

    @property
    def language_codes(self) -> frozenset[str]:
        """`languages`, read; empty for any."""
        return frozenset(code.strip().casefold() for code in self.languages.split(",") if code.strip())

    @property
    def kept(self) -> frozenset[str]:
        """`keep`, read: values, or `attribute=value`, in small letters."""
        parts = (value.casefold().split("=") for value in self.keep.split(";") if value.strip())
        return frozenset("=".join(" ".join(part.split()) for part in value) for value in parts)


MAX_KEPT = 10_000
"""Values of `keep`."""

_LANGUAGE = re.compile(r"[a-z]{2,3}")

_RANGES: Ranges = {
    "near_duplicate_similarity": (0.3, 1.0),
    "near_duplicate_chars": (2, 20),
    "max_word_share": (0.0, 1.0),
    "max_language_share": (0.0, 1.0),
    "validation_share": (0.01, 0.45),
    "test_share": (0.01, 0.45),
    "sample_share": (0.0001, 1.0),
    "seed": (0, 2**32 - 1),
}


def _unknown(name: str, value: str, fix: str) -> InvalidInput:
    return InvalidInput(
        f"curation setting {name}={value[:60]!r} cannot be used: {fix}",
        reason="SETTING_OUT_OF_RANGE",
        metadata={"field": name, "value": value[:60]},
    )


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
