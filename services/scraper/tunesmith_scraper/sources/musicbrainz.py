"""`musicbrainz:genres`: MusicBrainz' genre list, https://musicbrainz.org/doc/MusicBrainz_API (core data, CC0)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.domain.errors import InvalidInput, NotFound, SourceUnusable
from tunesmith.domain.records import Licence
from tunesmith.ports.clock import rfc3339
from tunesmith.ports.store import Store
from tunesmith_scraper.formats.layout import Format
from tunesmith_scraper.licences import refuse_unless_allowed
from tunesmith_scraper.settings import ScraperSettings, environment_name
from tunesmith_scraper.sources.base import Document, SourceContext, SourceSpec

if TYPE_CHECKING:
    # The HTTP client takes a moment to import; a server that only accepts work does without.
    from tunesmith_scraper.fetch import Page

logger = logging.getLogger(__name__)

_LICENCE = Licence(
    "CC0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/", "MusicBrainz core data is in the public domain"
)
_MIN_INTERVAL_S = 1.0
"""One request a second for each address: https://musicbrainz.org/doc/MusicBrainz_API/Rate_Limiting."""
_PAGE_SIZE = 100
"""The interface's maximum."""
_MAX_PAGES = 1000


class MusicBrainzSource:
    """All genre names: as text in one request, or with format=json in pages that also hold ids and comments.

    robots.txt is not asked: it is about crawlers, and this is the interface that the site offers to programs.
    """

    def check(self, spec: SourceSpec, *, settings: ScraperSettings, store: Store) -> None:  # noqa: ARG002
        if spec.url.partition(":")[2] != "genres":
            raise NotFound(f"{spec.url[:100]!r} is not known; write musicbrainz:genres", metadata={"known": "genres"})
        if spec.format not in ("auto", "text", "json"):
            raise InvalidInput(
                f"musicbrainz:genres comes as text or json, not as {spec.format}; leave the format out",
                reason="UNKNOWN_FORMAT",
            )
        if not (spec.licence or spec.licence_url):
            refuse_unless_allowed(_LICENCE, settings, source=spec.url)

    def documents(self, spec: SourceSpec, context: SourceContext) -> Iterator[Document]:
        if not context.settings.contact:
            logger.warning(
                "MusicBrainz asks programs to name a contact; set %s to your page or e-mail address",
                environment_name("contact"),
            )
        base = f"{context.settings.musicbrainz_url}/ws/2/genre/all"
        if spec.format == "json" or spec.columns:
            yield from self._pages(base, context)
        else:
            yield self._fetched(f"{base}?fmt=txt", "text", context.scratch / "document", context)

    def _pages(self, base: str, context: SourceContext) -> Iterator[Document]:
        """Each page's genres as JSON lines; the hash stays that of the page as it was fetched."""
        offset = 0
        for _ in range(_MAX_PAGES):
            url = f"{base}?fmt=json&limit={_PAGE_SIZE}&offset={offset}"
            document = self._fetched(url, "json", context.scratch / "document", context)
            total, genres = _genres_of(document.path, url)
            if not genres:
                return
            document.path.write_text("".join(f"{json.dumps(genre)}\n" for genre in genres), encoding="utf-8")
            yield document
            offset += len(genres)
            if offset >= total:
                return

    def _fetched(self, url: str, format: Format, path: Path, context: SourceContext) -> Document:
        def accept(_: Page) -> None:
            return None

        with path.open("w+b") as sink:
            page, _ = context.fetcher.fetch(url, sink, accept=accept, robots=False, min_interval_s=_MIN_INTERVAL_S)
        return Document(
            path=path,
            url=page.url,
            final_url=page.final_url,
            content_hash=page.content_hash,
            fetched_at=rfc3339(context.clock.now()),
            licence=_LICENCE,
            format=format,
            charset=page.charset,
        )


def _genres_of(path: Path, url: str) -> tuple[int, list[object]]:
    try:
        row = json.loads(path.read_bytes())
        return int(row["genre-count"]), list(row["genres"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceUnusable(
            f"{url} did not answer with a page of genres ({type(error).__name__}: {error}); try again later, "
            "or leave format=json out",
            reason="BAD_JSON",
            metadata={"url": url},
        ) from error
