"""The kinds of sources, by the scheme of their URL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.records import Licence, Provenance, Record
from tunesmith.ports.clock import Clock
from tunesmith.ports.store import Store
from tunesmith.recipes.base import Recipe
from tunesmith_scraper import formats
from tunesmith_scraper.formats.detection import format_of
from tunesmith_scraper.formats.encoding import checked_encoding
from tunesmith_scraper.formats.html_page import check_selector
from tunesmith_scraper.formats.layout import FORMATS, Layout, Row, Skipped
from tunesmith_scraper.licences import UNKNOWN, declared_licence, refuse_unless_allowed
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources import listenbrainz
from tunesmith_scraper.sources.base import Document, Source, SourceContext, SourceSpec, format_named
from tunesmith_scraper.sources.local_file import LocalFileSource
from tunesmith_scraper.sources.musicbrainz import MusicBrainzSource
from tunesmith_scraper.sources.sample import SampleSource
from tunesmith_scraper.sources.upload import UploadSource
from tunesmith_scraper.sources.web import WebSource

if TYPE_CHECKING:
    # The HTTP client takes a moment to import; a server that only accepts work does without.
    from tunesmith_scraper.politeness import PoliteFetcher

SOURCES: dict[str, Source] = {
    "sample": SampleSource(),
    "file": LocalFileSource(),
    "upload": UploadSource(),
    "http": WebSource(),
    "https": WebSource(),
    "musicbrainz": MusicBrainzSource(),
}

_LISTENBRAINZ = listenbrainz.ListenBrainzSource()
"""For the addresses of its site, whatever their scheme."""

_FIELD = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_NAME_CHARS = 200
_MAX_COLUMNS = 64
_LINE_TO_FIELD = 8
"""A line may hold several fields at their limit."""


def check_spec(spec: SourceSpec, recipe: Recipe, *, settings: ScraperSettings, store: Store) -> None:
    """Raise at once, without network, for a spec that can never work for `recipe`."""
    source = _source_of(spec)
    format_named(spec.format)
    _check_name(spec.name)
    _check_format(spec, recipe)
    _check_columns(spec)
    declared = declared_licence(spec.licence, spec.licence_url)
    if declared is not None:
        refuse_unless_allowed(declared, settings, source=spec.display_name)
    source.check(spec, settings=settings, store=store)


def rows_of(
    spec: SourceSpec,
    recipe: Recipe,
    *,
    store: Store,
    clock: Clock,
    fetcher: PoliteFetcher,
    settings: ScraperSettings,
    scratch: Path,
) -> Iterator[Record | Skipped]:
    """The records of a checked spec in source order, and what was skipped. Documents are spooled to `scratch`."""
    declared = declared_licence(spec.licence, spec.licence_url)

    def admit(licence: Licence) -> None:
        if declared is None:
            refuse_unless_allowed(licence, settings, source=spec.display_name)

    context = SourceContext(store=store, clock=clock, fetcher=fetcher, settings=settings, scratch=scratch, admit=admit)
    position = 0
    for document in _source_of(spec).documents(spec, context):
        for row in _records_of(document, spec, recipe, declared, context, position):
            yield row
            position += 1


def _records_of(
    document: Document,
    spec: SourceSpec,
    recipe: Recipe,
    declared: Licence | None,
    context: SourceContext,
    position: int,
) -> Iterator[Record | Skipped]:
    settings = context.settings
    stated: list[Licence] = [] if document.licence == UNKNOWN else [document.licence]

    def admit(licence: Licence) -> None:
        context.admit(licence)
        stated.append(licence)

    needed = recipe.record_fields
    layout = Layout(
        path=document.path,
        source=spec.display_name,
        encoding=checked_encoding(document.path, charset=document.charset, source=spec.display_name),
        needed=needed,
        columns={field: field for field in (*needed, *recipe.optional_fields)} | dict(spec.columns or document.columns),
        mapped=frozenset(spec.columns),
        optional=frozenset(recipe.optional_fields) - spec.columns.keys() - document.columns.keys(),
        selector=spec.selector,
        attribute=spec.attribute,
        max_line_chars=settings.max_field_chars * _LINE_TO_FIELD,
        max_parsed_bytes=settings.max_parsed_bytes,
        admit=admit,
    )
    wanted = document.format if spec.format == "auto" else spec.format
    format = format_of(layout, wanted, file_name=document.file_name, content_type=document.content_type)
    licence: Licence | None = None
    for number, row in enumerate(formats.rows(layout, format), start=position):
        if licence is None:
            # Only now: a page's own licence links are known once its reader has begun.
            licence = declared or (stated[0] if stated else UNKNOWN)
            context.admit(licence)
        fields = _kept_fields(row, needed, settings.max_field_chars)
        if isinstance(fields, Skipped):
            yield fields
            continue
        yield Record.make(
            fields,
            Provenance(
                source=spec.display_name,
                url=document.url,
                final_url=document.final_url,
                licence=licence,
                fetched_at=document.fetched_at,
                content_hash=document.content_hash,
                robots=document.robots,
                position=number,
            ),
        )


def _kept_fields(row: Row, needed: tuple[str, ...], max_field_chars: int) -> Row:
    """The row without its blank optional fields, or why it is skipped."""
    if isinstance(row, Skipped):
        return row
    for field, value in row.items():
        if field in needed and not value.strip():
            return Skipped(f"blank_{field}")
        if len(value) > max_field_chars:
            return Skipped("too_long")
        if _SURROGATE.search(value):
            return Skipped("not_unicode")
    return {field: value for field, value in row.items() if value.strip()}


def _source_of(spec: SourceSpec) -> Source:
    scheme = spec.url.partition(":")[0].lower() if ":" in spec.url else ""
    if scheme in ("http", "https") and listenbrainz.is_playlist(spec.url):
        return _LISTENBRAINZ
    if scheme not in SOURCES:
        raise InvalidInput(
            f"the source {spec.url[:200]!r} is of no known kind; write sample:genres, file:///folder/list.csv, "
            "upload:SHA256, https://host/list.csv or musicbrainz:genres",
            reason="UNKNOWN_SCHEME",
            metadata={"value": spec.url[:200], "known": ",".join(SOURCES)},
        )
    return SOURCES[scheme]


def _check_name(name: str) -> None:
    if len(name) > _MAX_NAME_CHARS or (name and not name.isprintable()):
        raise InvalidInput(
            f"the source name {name[:60]!r} is not one line of at most {_MAX_NAME_CHARS} characters",
            reason="BAD_SOURCE_NAME",
        )


def _check_format(spec: SourceSpec, recipe: Recipe) -> None:
    if spec.format == "html" or (spec.format == "auto" and spec.selector):
        check_selector(spec.selector)
    elif spec.selector:
        raise InvalidInput(
            f"a selector goes with format=html, not with format={spec.format}; remove one of them",
            reason="SELECTOR_WITHOUT_HTML",
        )
    if spec.attribute and not spec.selector:
        raise InvalidInput(
            f"attribute={spec.attribute[:60]!r} needs a selector of the elements that have it",
            reason="SELECTOR_MISSING",
        )
    only_first = spec.format in ("text", "html") or bool(spec.selector)
    if only_first and len(recipe.record_fields) > 1:
        raise InvalidInput(
            f"a list or page fills only {recipe.record_fields[0]!r}, but {recipe.name} needs "
            f"{', '.join(recipe.record_fields)}; use format={FORMATS[2]} or {FORMATS[3]}",
            reason="FIELDS_MISSING",
        )
    if only_first and spec.columns:
        raise InvalidInput(
            "columns go with format=csv and format=json; a list or page has none", reason="COLUMNS_WITHOUT_TABLE"
        )


def _check_columns(spec: SourceSpec) -> None:
    if len(spec.columns) > _MAX_COLUMNS:
        raise InvalidInput(f"{len(spec.columns)} columns are named, the limit is {_MAX_COLUMNS}", reason="BAD_COLUMNS")
    for field, column in spec.columns.items():
        if not _FIELD.fullmatch(field) or not column.strip():
            raise InvalidInput(
                f"columns {field[:60]!r}={column[:60]!r} is not a field and its column; write for example name='Genre' "
                "(a field is lower-case letters, digits and '_')",
                reason="BAD_COLUMNS",
                metadata={"field": field[:60], "column": column[:60]},
            )
