"""`https://listenbrainz.org/playlist/MBID`: a playlist of ListenBrainz, as JSPF from its documented interface.

https://listenbrainz.readthedocs.io/en/latest/users/api/playlist.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tunesmith.domain.errors import InvalidInput
from tunesmith.ports.clock import rfc3339
from tunesmith.ports.store import Store
from tunesmith_scraper.licences import UNKNOWN
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import Document, SourceContext, SourceSpec

if TYPE_CHECKING:
    # The HTTP client takes a moment to import; a server that only accepts work does without.
    from tunesmith_scraper.fetch import Page

_MIN_INTERVAL_S = 1.0
"""ListenBrainz states its pace in each answer's headers; one request a second has always been within it."""
_HOSTS = ("listenbrainz.org", "www.listenbrainz.org")
_PATH = re.compile(r"/playlist/(?P<mbid>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})/?")


def is_playlist(url: str) -> bool:
    """Whether `url` is a playlist's page."""
    parts = urlsplit(url)
    return parts.hostname in _HOSTS and parts.path.startswith("/playlist/")


class ListenBrainzSource:
    """One public playlist. ListenBrainz states no licence for playlists; one that the JSPF itself states is honoured.

    robots.txt is not asked: it is about crawlers, and this is the interface that the site offers to programs.
    """

    def check(self, spec: SourceSpec, *, settings: ScraperSettings, store: Store) -> None:  # noqa: ARG002
        _mbid(spec.url)
        if spec.format not in ("auto", "jspf"):
            raise InvalidInput(
                f"a ListenBrainz playlist comes as jspf, not as {spec.format}; leave the format out",
                reason="UNKNOWN_FORMAT",
            )

    def documents(self, spec: SourceSpec, context: SourceContext) -> Iterator[Document]:
        def accept(_: Page) -> None:
            return None

        path = context.scratch / "document"
        url = f"{context.settings.listenbrainz_url}/1/playlist/{_mbid(spec.url)}?fetch_metadata=true"
        with path.open("w+b") as sink:
            page, _ = context.fetcher.fetch(url, sink, accept=accept, robots=False, min_interval_s=_MIN_INTERVAL_S)
        yield Document(
            path=path,
            url=spec.url,
            final_url=page.final_url,
            content_hash=page.content_hash,
            fetched_at=rfc3339(context.clock.now()),
            licence=UNKNOWN,
            format="jspf",
            charset=page.charset,
        )


def _mbid(url: str) -> str:
    match = _PATH.fullmatch(urlsplit(url).path)
    if match is None:
        raise InvalidInput(
            f"{url[:200]!r} names no playlist; write https://listenbrainz.org/playlist/ and its MBID (a UUID)",
            reason="BAD_PLAYLIST_URL",
            metadata={"value": url[:200]},
        )
    return match["mbid"].lower()
