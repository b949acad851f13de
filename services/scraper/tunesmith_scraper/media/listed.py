"""Media files by their addresses: the rows of a list or table, or one file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

from tunesmith.domain.errors import SourceUnusable, TunesmithError
from tunesmith.domain.records import Licence, Record
from tunesmith.ports.clock import rfc3339
from tunesmith.recipes.base import Recipe
from tunesmith_scraper import sources
from tunesmith_scraper.formats.layout import Skipped
from tunesmith_scraper.licences import (
    UNKNOWN,
    declared_licence,
    licence_of_headers,
    refuse_if_reserved,
    refuse_unless_allowed,
)
from tunesmith_scraper.media.found import Found
from tunesmith_scraper.media.ledger import Ledger
from tunesmith_scraper.sources.base import SourceContext, SourceSpec

if TYPE_CHECKING:
    # The HTTP client takes a moment to import; a server that only accepts work does without.
    from tunesmith_scraper.fetch import Page

URL_FIELD = "url"
OPTIONAL_FIELDS = ("name", "title", "genre", "licence", "licence_url")
"""Columns of a list that are read where they are there."""

_CONTAINER_TYPES = frozenset(
    {"", "application/mp4", "application/octet-stream", "application/ogg", "binary/octet-stream"}
    | {"application/x-matroska"}
)
"""Media types, beside `video/…`, under which servers send video files."""

_log = logging.getLogger(__name__)


def as_table(recipe: Recipe) -> Recipe:
    """The recipe as the reader of a list sees it: what is collected first is addresses."""
    return replace(recipe, record_fields=(URL_FIELD,), optional_fields=OPTIONAL_FIELDS)


def files(rows: Sequence[Record | Skipped], context: SourceContext, ledger: Ledger) -> Iterator[Found | Skipped]:
    """The files that the rows of a list name, fetched politely, one after the other."""
    for row in rows:
        yield row if isinstance(row, Skipped) else _counted(row, context, ledger)


def one_file(spec: SourceSpec, context: SourceContext, ledger: Ledger) -> Iterator[Found | Skipped]:
    """The file that the source itself is. Its failure is the collection's, and so is raised."""
    if spec.url.startswith(("http:", "https:")):
        yield _fetched(spec.url, {"name": _file_name(spec.url)}, UNKNOWN, context, ledger)
        return
    for document in sources.SOURCES[spec.url.partition(":")[0]].documents(spec, context):
        yield Found(
            path=document.path,
            sha256=document.content_hash,
            size_bytes=document.path.stat().st_size,
            url=document.url,
            final_url=document.final_url,
            fetched_at=document.fetched_at,
            fields={"name": spec.name or document.file_name},
        )


def _counted(row: Record, context: SourceContext, ledger: Ledger) -> Found | Skipped:
    fields = dict(row.fields)
    try:
        listed_at = row.provenance.final_url
        address = fields.pop(URL_FIELD).strip()
        url = urljoin(listed_at, address) if listed_at.startswith(("http:", "https:")) else address
        stated = declared_licence(fields.pop("licence", ""), fields.pop("licence_url", "")) or row.provenance.licence
        if stated.id != UNKNOWN.id:
            # Before any byte moves.
            refuse_unless_allowed(stated, context.settings, source=url)
        fields.setdefault("name", _file_name(url) or url)
        return _fetched(url, fields, stated, context, ledger)
    except TunesmithError as error:
        _log.warning("%s", error.message)
        return Skipped(error.reason.lower())
    except ValueError as error:  # urljoin, urlsplit: an address in brackets that is none
        _log.warning("%s: %s", row.fields[URL_FIELD][:200], error)
        return Skipped("url_refused")


def _fetched(url: str, fields: Mapping[str, str], stated: Licence, context: SourceContext, ledger: Ledger) -> Found:
    from tunesmith_scraper.fetch import Limits, checked_url

    url = str(checked_url(url))
    known = ledger.known(url)
    if known is not None:
        return replace(known, fields=fields, licence=_either(stated, known.licence))

    def accept(page: Page) -> None:
        refuse_if_reserved(page.headers, context.settings, source=page.final_url)
        licence = licence_of_headers(page.headers)
        if stated.id == UNKNOWN.id:
            refuse_unless_allowed(licence, context.settings, source=page.final_url)
        if not (page.content_type.startswith("video/") or page.content_type in _CONTAINER_TYPES):
            raise SourceUnusable(
                f"{page.final_url} is {page.content_type!r}, not a video; name the address of the file itself",
                reason="NOT_MEDIA",
                metadata={"url": page.final_url, "content_type": page.content_type},
            )

    path = context.scratch / "media"
    with path.open("w+b") as sink:
        page, robots = context.fetcher.fetch(url, sink, accept=accept, limits=Limits.of_media(context.settings))
    found = Found(
        path=path,
        sha256=page.content_hash,
        size_bytes=page.size_bytes,
        url=url,
        final_url=page.final_url,
        fetched_at=rfc3339(context.clock.now()),
        licence=licence_of_headers(page.headers),
        robots=robots,
    )
    noting = ledger.noting(found, fields)
    return replace(noting, licence=_either(stated, found.licence))


def _either(stated: Licence, header: Licence) -> Licence:
    """What the list says of a file, else what the file's server says."""
    return header if stated.id == UNKNOWN.id else stated


def _file_name(url: str) -> str:
    return PurePosixPath(unquote(urlsplit(url).path)).name
