"""`https://…`: one page or file of the web."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tunesmith.ports.clock import rfc3339
from tunesmith.ports.store import Store
from tunesmith_scraper.licences import UNKNOWN, licence_of_headers, refuse_if_reserved
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import Document, SourceContext, SourceSpec

if TYPE_CHECKING:
    # The HTTP client takes a moment to import; a server that only accepts work does without.
    from tunesmith_scraper.fetch import Page


class WebSource:
    """A page fetched politely; its headers may state licence, charset and reservations."""

    def check(self, spec: SourceSpec, *, settings: ScraperSettings, store: Store) -> None:  # noqa: ARG002
        from tunesmith_scraper.fetch import checked_url
        from tunesmith_scraper.network import refuse_private_literal

        url = checked_url(spec.url)
        if not settings.allow_private_addresses:
            refuse_private_literal(url.host)

    def documents(self, spec: SourceSpec, context: SourceContext) -> Iterator[Document]:
        def accept(page: Page) -> None:
            refuse_if_reserved(page.headers, context.settings, source=page.final_url)
            licence = licence_of_headers(page.headers)
            if licence != UNKNOWN:
                context.admit(licence)

        path = context.scratch / "document"
        with path.open("w+b") as sink:
            page, robots = context.fetcher.fetch(spec.url, sink, accept=accept)
        yield Document(
            path=path,
            url=page.url,
            final_url=page.final_url,
            content_hash=page.content_hash,
            fetched_at=rfc3339(context.clock.now()),
            licence=licence_of_headers(page.headers),
            file_name=_file_name(page.final_url) or _file_name(page.url),
            content_type=page.content_type,
            charset=page.charset,
            robots=robots,
        )


def _file_name(url: str) -> str:
    """The last part of the URL's path when it has an ending, else nothing."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    return name if PurePosixPath(name).suffix else ""
