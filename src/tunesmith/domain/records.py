"""Records: what a source gave, with where it came from and what may be done with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.domain.ids import content_id


@dataclass(frozen=True, slots=True)
class Licence:
    """What the source says about reuse. `id` is an SPDX identifier or `unknown`."""

    id: str
    url: str = ""
    raw_text: str = ""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a record came from. Times are RFC 3339 in UTC; `content_hash` is the SHA-256 of the fetched body."""

    source: str
    url: str
    final_url: str
    licence: Licence
    fetched_at: str
    content_hash: str
    robots: str = "not-applicable"
    """`allowed`, `no-robots-file` or `not-applicable` (files and samples)."""
    position: int = 0
    """Row of the record in its source, from 0."""
    joined: str = ""
    """URL of the second table that some fields came from; empty where none did."""


@dataclass(frozen=True, slots=True)
class Record:
    """One collected item, immutable. `fields` holds strings by name (`name`, `title`, `lyrics`, ...)."""

    id: str
    fields: Mapping[str, str]
    provenance: Provenance

    @staticmethod
    def make(fields: Mapping[str, str], provenance: Provenance) -> Record:
        """A record whose id follows from its fields and its source, not from when it was fetched."""
        return Record(content_id("rec", [provenance.source, dict(fields)]), dict(fields), provenance)

    def to_json(self) -> dict[str, Any]:
        """The record as one JSON row of a shard."""
        p = self.provenance
        return {
            "id": self.id,
            "fields": dict(self.fields),
            "provenance": {
                "source": p.source,
                "url": p.url,
                "final_url": p.final_url,
                "licence": {"id": p.licence.id, "url": p.licence.url, "raw_text": p.licence.raw_text},
                "fetched_at": p.fetched_at,
                "content_hash": p.content_hash,
                "robots": p.robots,
                "position": p.position,
                **({"joined": p.joined} if p.joined else {}),
            },
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`; raises KeyError or TypeError on a row of another shape."""
        p = row["provenance"]
        return Record(
            row["id"],
            dict(row["fields"]),
            Provenance(
                source=p["source"],
                url=p["url"],
                final_url=p["final_url"],
                licence=Licence(**p["licence"]),
                fetched_at=p["fetched_at"],
                content_hash=p["content_hash"],
                robots=p["robots"],
                position=p["position"],
                joined=p.get("joined", ""),
            ),
        )


@dataclass(frozen=True, slots=True)
class Collection:
    """An immutable set of records made by one collect job: shards in the store and their counts."""

    id: str
    recipe: str
    source: str
    num_records: int
    shards: tuple[str, ...]
    """Object keys of JSON-lines shards, in record order."""
    licences: Mapping[str, int] = field(default_factory=dict)
    """Number of records by licence id."""
    created_at: str = ""
    derived_from: str = ""
    """Id of the collection whose records these are, with fields added (captions, written pairs); empty for collected
    ones. A derived record keeps the id and the provenance of the record it was made from."""
    derived_by: str = ""
    """What added the fields, with its version (`signal-audio 1, signal-video 1`)."""

    def to_json(self) -> dict[str, Any]:
        """The collection as its manifest object."""
        return {
            "id": self.id,
            "recipe": self.recipe,
            "source": self.source,
            "num_records": self.num_records,
            "shards": list(self.shards),
            "licences": dict(self.licences),
            "created_at": self.created_at,
            "derived_from": self.derived_from,
            "derived_by": self.derived_by,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Collection:
        """The inverse of `to_json`."""
        return Collection(
            id=row["id"],
            recipe=row["recipe"],
            source=row["source"],
            num_records=row["num_records"],
            shards=tuple(row["shards"]),
            licences=dict(row["licences"]),
            created_at=row["created_at"],
            derived_from=row.get("derived_from", ""),
            derived_by=row.get("derived_by", ""),
        )
