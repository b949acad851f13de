"""What was fetched from where: a killed collection does not fetch again what is stored already."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from tunesmith.domain import keys
from tunesmith.domain.errors import NotFound
from tunesmith.domain.ids import canonical_json, sha256_hex
from tunesmith.domain.records import Licence
from tunesmith.ports.clock import Clock
from tunesmith.ports.store import Store
from tunesmith_scraper.media.found import Found

MAX_AGE = timedelta(hours=24)
"""As long as RFC 9309 lets a crawler go without looking at robots.txt again; older entries are fetched anew."""


class Ledger:
    """Entries by address, in the store. An entry is a hint: a corrupt one is as good as none."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def known(self, url: str, *, ageless: bool = False) -> Found | None:
        """The stored file that `url` gave, without its fields; None when it must be had anew."""
        try:
            row = json.loads(self._store.get(keys.media_source(sha256_hex(url.encode()))).data)
            found = Found(
                path=None,
                sha256=row["media"],
                size_bytes=row["size_bytes"],
                url=url,
                final_url=row["final_url"],
                fetched_at=row["fetched_at"],
                licence=Licence(**row["licence"]),
                robots=row["robots"],
            )
            age = self._clock.now() - datetime.fromisoformat(found.fetched_at)
        except (NotFound, ValueError, KeyError, TypeError):
            return None
        fresh = ageless or timedelta(0) <= age < MAX_AGE
        return found if fresh and self._store.exists(keys.media(found.sha256)) else None

    def noting(self, found: Found, fields: Mapping[str, str]) -> Found:
        """`found` with `fields`, which enters itself once it is stored."""

        def note() -> None:
            licence = found.licence
            row = {
                "url": found.url,
                "final_url": found.final_url,
                "media": found.sha256,
                "size_bytes": found.size_bytes,
                "fetched_at": found.fetched_at,
                "licence": {"id": licence.id, "url": licence.url, "raw_text": licence.raw_text},
                "robots": found.robots,
            }
            self._store.put(keys.media_source(sha256_hex(found.url.encode())), canonical_json(row))

        return replace(found, fields=fields, note=note)
