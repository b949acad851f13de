"""What every source kind has in common: the spec that names it, the document it yields, what it works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.records import Licence
from tunesmith.ports.clock import Clock
from tunesmith.ports.store import Store
from tunesmith_scraper.formats.layout import FORMATS
from tunesmith_scraper.formats.layout import Format as Format
from tunesmith_scraper.settings import ScraperSettings

if TYPE_CHECKING:
    # The HTTP client takes a moment to import; a server that only accepts work does without.
    from tunesmith_scraper.politeness import PoliteFetcher


@dataclass(frozen=True, slots=True)
class JoinSpec:
    """A second table that gives some of the records' fields: those of its row whose key is that of the first's."""

    url: str
    """As `SourceSpec.url`."""
    key: str = ""
    """Column of the first table."""
    other_key: str = ""
    """Column of this table whose value equals the first table's `key`."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Record field -> column of this table."""
    format: Format = "auto"
    name: str = ""
    """Display name; the URL when empty."""

    def to_json(self) -> dict[str, Any]:
        """The join by field name."""
        return {
            "url": self.url,
            "key": self.key,
            "other_key": self.other_key,
            "columns": dict(self.columns),
            "format": self.format,
            "name": self.name,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> JoinSpec:
        """The inverse of `to_json`."""
        return JoinSpec(
            row["url"],
            row["key"],
            row["other_key"],
            dict(row["columns"]),
            format_named(row["format"]),
            row["name"],
        )


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """What to collect from, as a caller says it. Everything in it is part of the collection's identity."""

    url: str
    """`sample:genres`, `file:///…`, `upload:<sha256>`, `http(s)://…` or `musicbrainz:genres`."""
    format: Format = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Record field -> column (CSV) or key (JSON). Needed fields that are not named are read from their own name;
    other columns are collected only when they are named here."""
    selector: str = ""
    """CSS selector whose matches are the records (HTML)."""
    attribute: str = ""
    """Attribute of each match to take instead of its text (HTML)."""
    licence: str = ""
    """SPDX id that the caller vouches for; it overrides what the source states."""
    licence_url: str = ""
    name: str = ""
    """Display name, recorded as the records' source; the URL when empty."""
    join: JoinSpec | None = None
    preset: str = ""
    """Name of a known table shape (`presets.PRESETS`) that fills the columns and the join's keys."""
    skip_undecodable: bool = False
    """Skip and count rows with bytes that do not decode (`not_unicode`), instead of refusing the whole source."""

    @property
    def display_name(self) -> str:
        """What records give as their source."""
        return self.name or self.url

    def to_json(self) -> dict[str, Any]:
        """The spec by field name; `join`, `preset` and `skip_undecodable` only where they are set."""
        row: dict[str, Any] = {
            "url": self.url,
            "format": self.format,
            "columns": dict(self.columns),
            "selector": self.selector,
            "attribute": self.attribute,
            "licence": self.licence,
            "licence_url": self.licence_url,
            "name": self.name,
        }
        if self.join is not None:
            row["join"] = self.join.to_json()
        if self.preset:
            row["preset"] = self.preset
        if self.skip_undecodable:
            row["skip_undecodable"] = True
        return row

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> SourceSpec:
        """The inverse of `to_json`; all but `url` may be missing. An unknown format raises InvalidInput."""
        return SourceSpec(
            url=row["url"],
            format=format_named(row.get("format") or "auto"),
            columns=dict(row.get("columns", {})),
            selector=row.get("selector", ""),
            attribute=row.get("attribute", ""),
            licence=row.get("licence", ""),
            licence_url=row.get("licence_url", ""),
            name=row.get("name", ""),
            join=JoinSpec.from_json(row["join"]) if row.get("join") else None,
            preset=row.get("preset", ""),
            skip_undecodable=row.get("skip_undecodable", False),
        )


def format_named(value: str) -> Format:
    """`value` as a Format; InvalidInput lists the known ones."""
    for known in FORMATS:
        if value == known:
            return known
    raise InvalidInput(
        f"format {value[:40]!r} is unknown; known formats: {', '.join(FORMATS)}",
        reason="UNKNOWN_FORMAT",
        metadata={"value": value[:40], "known": ",".join(FORMATS)},
    )


@dataclass(frozen=True, slots=True)
class Document:
    """Bytes that a source gave, spooled to a file, and where they came from."""

    path: Path
    url: str
    final_url: str
    content_hash: str
    """Hex SHA-256 of the (decompressed) bytes."""
    fetched_at: str
    licence: Licence
    """What the source states before its content is read; id `unknown` when it states nothing."""
    format: Format = "auto"
    """The format where the source kind knows it."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Columns to collect when the spec names none."""
    join: JoinSpec | None = None
    """The table to join with when the spec names none."""
    file_name: str = ""
    """Where the format may be told from: the last part of the URL's path, or of the display name."""
    content_type: str = ""
    charset: str = ""
    robots: str = "not-applicable"


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What sources work with. `scratch` is a folder of the running collection, removed at its end."""

    store: Store
    clock: Clock
    fetcher: PoliteFetcher
    settings: ScraperSettings
    scratch: Path
    admit: Callable[[Licence], None]
    """Raises PermissionRefused for a licence that may not be collected; called before bytes move where it can be."""


class Source(Protocol):
    """One kind of source."""

    def check(self, spec: SourceSpec, *, settings: ScraperSettings, store: Store) -> None:
        """Raise at once for a spec that cannot work: InvalidInput, NotFound or PermissionRefused. No network."""
        ...

    def documents(self, spec: SourceSpec, context: SourceContext) -> Iterator[Document]:
        """The source's documents in order, each valid until the next is asked for."""
        ...
