"""`sample:clips`: short clips that are made on the spot, because the project ships no binaries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tunesmith.domain.errors import NotFound
from tunesmith.domain.records import Licence
from tunesmith.ports.clock import rfc3339
from tunesmith_scraper.clips.plan import PLAN_VERSION, planned_clips
from tunesmith_scraper.formats.layout import Skipped
from tunesmith_scraper.licences import refuse_unless_allowed
from tunesmith_scraper.media.found import Found, file_sha256
from tunesmith_scraper.media.ledger import Ledger
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import SourceContext, SourceSpec

NAME = "clips"
LICENCE = Licence("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")


def is_sample(url: str) -> bool:
    """Whether `url` names a sample, of media or not."""
    return url.startswith("sample:")


def check(spec: SourceSpec, settings: ScraperSettings) -> None:
    """NotFound for a sample that holds no media."""
    name = spec.url.partition(":")[2]
    if name != NAME:
        raise NotFound(
            f"there is no media sample {name[:60]!r}; media samples: {NAME}",
            metadata={"value": name[:60], "known": NAME},
        )
    if not (spec.licence or spec.licence_url):
        refuse_unless_allowed(LICENCE, settings, source=spec.url)


def files(context: SourceContext, ledger: Ledger) -> tuple[int, Iterator[Found | Skipped]]:
    """The clips, each made only where the store has none of its plan and version yet."""
    clips = planned_clips()

    def made() -> Iterator[Found | Skipped]:
        for clip in clips:
            fields = {"name": f"{clip.name}.mp4", "title": clip.title, "genre": clip.genre}
            address = f"sample:{NAME}/{clip.name}?plan={PLAN_VERSION}"
            known = ledger.known(address, ageless=True)
            if known is not None:
                yield replace(known, fields=fields)
                continue
            # Encoders and arrays take a moment to import; a server that only accepts work does without.
            from tunesmith_scraper.clips.film import write_clip

            path = context.scratch / "media"
            write_clip(clip, path)
            found = Found(
                path=path,
                sha256=file_sha256(path),
                size_bytes=path.stat().st_size,
                url=address,
                final_url=address,
                fetched_at=rfc3339(context.clock.now()),
                licence=LICENCE,
            )
            yield ledger.noting(found, fields)

    return len(clips), made()
