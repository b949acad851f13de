"""`sample:genres`, `sample:lyrics`, `sample:playlists`: data that ships with the project."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import resources

from tunesmith.domain.errors import NotFound
from tunesmith.domain.records import Licence
from tunesmith.ports.clock import rfc3339
from tunesmith.ports.store import Store
from tunesmith_scraper.licences import refuse_unless_allowed
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import Document, JoinSpec, SourceContext, SourceSpec
from tunesmith_scraper.sources.presets import LYRICS_PAIR, PRESETS

_LICENCE = Licence("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")
_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "genres": {"family": "family"},
    "playlists": {name: name for name in ("prompt", "reply", "mood", "style")},
    "lyrics": PRESETS[LYRICS_PAIR].columns,
    "lyrics_artists": {},
}
"""Columns to collect by sample."""
_JOINS: Mapping[str, JoinSpec | None] = {
    "lyrics": replace(PRESETS[LYRICS_PAIR].join or JoinSpec(""), url="sample:lyrics_artists"),
}


class SampleSource:
    """A CSV of the package."""

    def check(self, spec: SourceSpec, *, settings: ScraperSettings, store: Store) -> None:  # noqa: ARG002
        name = spec.url.partition(":")[2]
        if name not in _COLUMNS:
            raise NotFound(
                f"there is no sample {name[:60]!r}; samples: {', '.join(_COLUMNS)}",
                metadata={"value": name[:60], "known": ",".join(_COLUMNS)},
            )
        if not (spec.licence or spec.licence_url):
            refuse_unless_allowed(_LICENCE, settings, source=spec.url)

    def documents(self, spec: SourceSpec, context: SourceContext) -> Iterator[Document]:
        name = spec.url.partition(":")[2]
        data = resources.files("tunesmith_scraper").joinpath("samples", f"{name}.csv").read_bytes()
        path = context.scratch / "document"
        path.write_bytes(data)
        yield Document(
            path=path,
            url=spec.url,
            final_url=spec.url,
            content_hash=hashlib.sha256(data).hexdigest(),
            fetched_at=rfc3339(context.clock.now()),
            licence=_LICENCE,
            format="csv",
            columns=_COLUMNS[name],
            join=_JOINS.get(name),
        )
