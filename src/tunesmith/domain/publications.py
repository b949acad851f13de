"""Publications: the files of a model version, put together so that other programs load them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Form = Literal["adapter", "merged"]
"""The adapter for its base model, or the base model with the adapter merged into its weights."""


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file of a publication."""

    name: str
    size_bytes: int
    sha256: str
    """Hex, of its bytes."""


@dataclass(frozen=True, slots=True)
class Publication:
    """Files under `keys.published_file(id, name)`. The id follows from the weights and the form."""

    id: str
    form: Form
    adapter_hash: str
    base_fingerprint: str
    dtype: str
    """Number format of merged weights; empty for an adapter."""
    files: tuple[PublishedFile, ...]
    """By name."""
    created_at: str

    def to_json(self) -> dict[str, Any]:
        """The publication as its object in the store."""
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Publication:
        """The inverse of `to_json`."""
        return Publication(
            id=row["id"],
            form=row["form"],
            adapter_hash=row["adapter_hash"],
            base_fingerprint=row["base_fingerprint"],
            dtype=row["dtype"],
            files=tuple(PublishedFile(**file) for file in row["files"]),
            created_at=row["created_at"],
        )
