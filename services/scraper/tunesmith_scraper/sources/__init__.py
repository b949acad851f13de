"""The kinds of sources, by the scheme of their URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
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
from tunesmith_scraper.formats.layout import FORMATS, JOIN_KEY, Format, Layout, Row, Skipped
from tunesmith_scraper.licences import UNKNOWN, declared_licence, refuse_unless_allowed
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources import listenbrainz
from tunesmith_scraper.sources.base import Document, JoinSpec, Source, SourceContext, SourceSpec, format_named
from tunesmith_scraper.sources.joining import JoinIndex
from tunesmith_scraper.sources.local_file import LocalFileSource
from tunesmith_scraper.sources.musicbrainz import MusicBrainzSource
from tunesmith_scraper.sources.presets import with_preset
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
    spec = with_preset(spec)
    source = _source_of(spec.url)
    format_named(spec.format)
    _check_name(spec.name)
    _check_format(spec, recipe)
    _check_columns(spec.columns)
    declared = declared_licence(spec.licence, spec.licence_url)
    if declared is not None:
        refuse_unless_allowed(declared, settings, source=spec.display_name)
    source.check(spec, settings=settings, store=store)
    if spec.join is not None:
        _check_join(spec, spec.join)
        _source_of(spec.join.url).check(_second(spec, spec.join), settings=settings, store=store)


def rows_of(
    spec: SourceSpec,
    recipe: Recipe,
    *,
    store: Store,
    clock: Clock,
    fetcher: PoliteFetcher,
    settings: ScraperSettings,
    scratch: Path,
) -> Generator[Record | Skipped]:
    """The records of a checked spec in source order, and what was skipped. Documents are spooled to `scratch`.

    A table to join with is read first and indexed there.
    """
    spec = with_preset(spec)
    declared = declared_licence(spec.licence, spec.licence_url)
    context = SourceContext(
        store=store,
        clock=clock,
        fetcher=fetcher,
        settings=settings,
        scratch=scratch,
        admit=_admission(spec, settings),
    )
    position = 0
    with ExitStack() as open_tables:
        joined: _Joined | None = None
        for document in _source_of(spec.url).documents(spec, context):
            join = spec.join or document.join
            if join is not None and joined is None:
                joined = _joined(_second(spec, join), join, recipe, context, open_tables)
            for row in _records_of(document, spec, recipe, declared, context, position, joined):
                yield row
                position += 1


def _admission(spec: SourceSpec, settings: ScraperSettings) -> Callable[[Licence], None]:
    """Refuses licences that may not be collected, unless the caller vouches for another one."""
    declared = declared_licence(spec.licence, spec.licence_url)

    def admit(licence: Licence) -> None:
        if declared is None:
            refuse_unless_allowed(licence, settings, source=spec.display_name)

    return admit


@dataclass(frozen=True, slots=True)
class _Joined:
    """The second table, read."""

    join: JoinSpec
    index: JoinIndex
    licence: Licence
    """As the table states it."""


def _second(spec: SourceSpec, join: JoinSpec) -> SourceSpec:
    """The second table as a source of its own."""
    return SourceSpec(
        url=join.url,
        format=join.format,
        columns={JOIN_KEY: join.other_key, **join.columns},
        licence=spec.licence,
        licence_url=spec.licence_url,
        name=join.name,
        skip_undecodable=spec.skip_undecodable,
    )


def _joined(
    spec: SourceSpec, join: JoinSpec, recipe: Recipe, context: SourceContext, open_tables: ExitStack
) -> _Joined:
    folder = context.scratch / "join"
    folder.mkdir()
    inner = replace(context, scratch=folder, admit=_admission(spec, context.settings))
    settings = context.settings
    index = open_tables.enter_context(
        JoinIndex(folder / "index.sqlite", source=spec.display_name, max_rows=settings.max_records)
    )
    licence = UNKNOWN
    for document in _source_of(spec.url).documents(spec, inner):
        licence = document.licence
        inner.admit(licence)
        layout = _layout(document, spec, (JOIN_KEY,), (), {}, inner)
        format = _table_format(layout, document, spec.format)
        needed = (JOIN_KEY, *(field for field in recipe.record_fields if field in join.columns))
        index.fill(_kept_fields(row, needed, settings.max_field_chars) for row in formats.rows(layout, format))
    return _Joined(join, index, licence)


def _format(layout: Layout, document: Document, wanted: Format) -> Format:
    return format_of(layout, wanted, file_name=document.file_name, content_type=document.content_type)


def _table_format(layout: Layout, document: Document, wanted: Format) -> Format:
    """As `_format`; what looks like a plain list is a table whose key has another name, which its reader then says."""
    found = _format(layout, document, wanted)
    return "csv" if found == "text" else found


def _layout(
    document: Document,
    spec: SourceSpec,
    needed: tuple[str, ...],
    optional: tuple[str, ...],
    more_columns: Mapping[str, str],
    context: SourceContext,
) -> Layout:
    settings = context.settings
    errors = "surrogateescape" if spec.skip_undecodable else "strict"
    encoding = checked_encoding(document.path, charset=document.charset, source=spec.display_name, errors=errors)
    return Layout(
        path=document.path,
        source=spec.display_name,
        encoding=encoding,
        errors=errors,
        needed=needed,
        columns={field: field for field in (*needed, *optional)}
        | dict(spec.columns or document.columns)
        | dict(more_columns),
        mapped=frozenset({*spec.columns, *more_columns}),
        optional=frozenset(optional) - spec.columns.keys() - document.columns.keys(),
        selector=spec.selector,
        attribute=spec.attribute,
        max_line_chars=settings.max_field_chars * _LINE_TO_FIELD,
        max_parsed_bytes=settings.max_parsed_bytes,
        admit=context.admit,
    )


def _records_of(
    document: Document,
    spec: SourceSpec,
    recipe: Recipe,
    declared: Licence | None,
    context: SourceContext,
    position: int,
    joined: _Joined | None,
) -> Iterator[Record | Skipped]:
    settings = context.settings
    stated: list[Licence] = [] if document.licence == UNKNOWN else [document.licence]

    def admit(licence: Licence) -> None:
        context.admit(licence)
        stated.append(licence)

    needed, optional, more_columns = recipe.record_fields, recipe.optional_fields, dict[str, str]()
    if joined is not None:
        needed = (*(field for field in needed if field not in joined.join.columns), JOIN_KEY)
        optional = tuple(field for field in optional if field not in joined.join.columns)
        more_columns[JOIN_KEY] = joined.join.key
    layout = _layout(document, spec, needed, optional, more_columns, replace(context, admit=admit))
    wanted = document.format if spec.format == "auto" else spec.format
    format = _table_format(layout, document, wanted) if joined else _format(layout, document, wanted)
    licence: Licence | None = None
    for number, row in enumerate(formats.rows(layout, format), start=position):
        if licence is None:
            # Only now: a page's own licence links are known once its reader has begun.
            licence = declared or (stated[0] if stated else UNKNOWN)
            context.admit(licence)
            if joined is not None and declared is None:
                licence = _both(licence, joined.licence)
        fields = _kept_fields(row, needed, settings.max_field_chars)
        if joined is not None and not isinstance(fields, Skipped):
            fields = _with_joined(fields, joined.index)
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
                joined=joined.join.url if joined else "",
            ),
        )


def _with_joined(fields: Mapping[str, str], index: JoinIndex) -> Row:
    found = index.fields_of(fields[JOIN_KEY])
    if isinstance(found, Skipped):
        return found
    return {field: value for field, value in fields.items() if field != JOIN_KEY} | dict(found)


def _both(one: Licence, other: Licence) -> Licence:
    """The licence of a record made from two tables: both, as an SPDX expression; unknown where either is."""
    if one.id == other.id or UNKNOWN.id in (one.id, other.id):
        return one if one.id in (other.id, UNKNOWN.id) else other
    return Licence(f"{one.id} AND {other.id}", one.url, "\n".join(filter(None, (one.raw_text, other.url))))


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


def _source_of(url: str) -> Source:
    scheme = url.partition(":")[0].lower() if ":" in url else ""
    if scheme in ("http", "https") and listenbrainz.is_playlist(url):
        return _LISTENBRAINZ
    if scheme not in SOURCES:
        raise InvalidInput(
            f"the source {url[:200]!r} is of no known kind; write sample:genres, file:///folder/list.csv, "
            "upload:SHA256, https://host/list.csv or musicbrainz:genres",
            reason="UNKNOWN_SCHEME",
            metadata={"value": url[:200], "known": ",".join(SOURCES)},
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


def _check_columns(columns: Mapping[str, str]) -> None:
    if len(columns) > _MAX_COLUMNS:
        raise InvalidInput(f"{len(columns)} columns are named, the limit is {_MAX_COLUMNS}", reason="BAD_COLUMNS")
    for field, column in columns.items():
        if not _FIELD.fullmatch(field) or field == JOIN_KEY or not column.strip():
            raise InvalidInput(
                f"columns {field[:60]!r}={column[:60]!r} is not a field and its column; write for example name='Genre' "
                f"(a field is lower-case letters, digits and '_', and not {JOIN_KEY!r})",
                reason="BAD_COLUMNS",
                metadata={"field": field[:60], "column": column[:60]},
            )


def _check_join(spec: SourceSpec, join: JoinSpec) -> None:
    _check_name(join.name)
    _check_columns(join.columns)
    if not join.key.strip() or not join.other_key.strip():
        raise InvalidInput(
            f"the join with {join.url[:200]!r} does not say on what; name the key's column in both tables, for example "
            "key='ALink' other_key='Link' (--join-on ALink=Link)",
            reason="JOIN_WITHOUT_KEY",
        )
    if not join.columns:
        raise InvalidInput(
            f"the join with {join.url[:200]!r} takes no column; name at least one, for example genres='Genres' "
            "(--join-column genres=Genres)",
            reason="JOIN_WITHOUT_COLUMNS",
        )
    if twice := sorted(set(spec.columns) & set(join.columns)):
        raise InvalidInput(f"the field {twice[0]!r} is read from both tables; take it from one", reason="BAD_COLUMNS")
    if join.format == "html" or spec.selector or spec.format in ("text", "html"):
        raise InvalidInput("only tables (format csv or json) are joined", reason="JOIN_WITHOUT_TABLE")
