"""Media files as records: from a folder, from a list of addresses, from one file, or made on the spot.

For recipes that need captions. Each file is stored under its hash, once, and its record names it; what cannot be had is
counted with its reason, and the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tunesmith.domain import keys
from tunesmith.domain.errors import PermissionRefused, ResourceExhausted
from tunesmith.domain.records import Licence, Provenance, Record
from tunesmith.ports.clock import Clock
from tunesmith.ports.store import Store
from tunesmith.recipes.base import Recipe
from tunesmith_scraper import sources
from tunesmith_scraper.formats.layout import Skipped
from tunesmith_scraper.licences import declared_licence, refuse_unless_allowed
from tunesmith_scraper.media import folders, listed, sample
from tunesmith_scraper.media.found import MEDIA_ENDINGS, Found, is_media_name
from tunesmith_scraper.media.ledger import Ledger
from tunesmith_scraper.settings import ScraperSettings, environment_name
from tunesmith_scraper.sources.base import SourceContext, SourceSpec

if TYPE_CHECKING:
    # The HTTP client takes a moment to import; a server that only accepts work does without.
    from tunesmith_scraper.politeness import PoliteFetcher

NEED = "captions"
"""What recipes need whose sources are read here."""

__all__ = ["MEDIA_ENDINGS", "NEED", "Batch", "batch_of", "check_spec"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """The files of one source."""

    num_files: int
    """How many there are to have, the unusable ones included; 0 where that is not known before the end."""
    rows: Generator[Record | Skipped]
    """One for each, in order; a record's file is stored when it comes."""


def check_spec(spec: SourceSpec, recipe: Recipe, *, settings: ScraperSettings, store: Store) -> None:
    """Raise at once, without network, for a spec that can never work."""
    if sample.is_sample(spec.url):
        sample.check(spec, settings)
    elif folders.is_folder(spec.url, settings):
        folders.check(spec)
    else:
        sources.check_spec(spec, listed.as_table(recipe), settings=settings, store=store)


def batch_of(
    spec: SourceSpec,
    recipe: Recipe,
    *,
    store: Store,
    clock: Clock,
    fetcher: PoliteFetcher,
    settings: ScraperSettings,
    scratch: Path,
) -> Batch:
    """The files of a checked spec. Raises what reading a list of them raises; files are spooled to `scratch`.

    The rows raise ResourceExhausted once the files are larger together than `max_collection_media_bytes`.
    """
    declared = declared_licence(spec.licence, spec.licence_url)
    context = SourceContext(
        store=store, clock=clock, fetcher=fetcher, settings=settings, scratch=scratch, admit=_admit_all
    )
    ledger = Ledger(store, clock)
    found: Iterator[Found | Skipped]
    if sample.is_sample(spec.url):
        num_files, found = sample.files(context, ledger)
    elif folders.is_folder(spec.url, settings):
        paths = folders.listing(spec.url, settings)
        num_files, found = len(paths), folders.files(spec.url, paths, context)
    elif _is_one_file(spec):
        num_files, found = 1, listed.one_file(spec, context, ledger)
    else:
        table = sources.rows_of(
            spec,
            listed.as_table(recipe),
            store=store,
            clock=clock,
            fetcher=fetcher,
            # A list of addresses is not what is trained on: each file's own licence is judged.
            settings=settings.model_copy(update={"unknown_licence": "allow"}),
            scratch=scratch,
        )
        rows = list(table)
        num_files, found = len(rows), listed.files(rows, context, ledger)
    return Batch(num_files, _records(found, spec, declared, context))


def _records(
    found: Iterator[Found | Skipped], spec: SourceSpec, declared: Licence | None, context: SourceContext
) -> Generator[Record | Skipped]:
    total_bytes = 0
    for position, one in enumerate(found):
        if isinstance(one, Skipped):
            yield one
            continue
        licence = declared or one.licence
        refusal = None if declared else _refusal(licence, context.settings, source=one.url)
        if refusal:
            yield refusal
            continue
        total_bytes += one.size_bytes
        if total_bytes > context.settings.max_collection_media_bytes:
            raise _too_much(spec, context.settings)
        _keep(one, context.store)
        yield Record.make(
            {"media": one.sha256, **one.fields},
            Provenance(
                source=spec.display_name,
                url=one.url,
                final_url=one.final_url,
                licence=licence,
                fetched_at=one.fetched_at,
                content_hash=one.sha256,
                robots=one.robots,
                position=position,
            ),
        )


def _keep(found: Found, store: Store) -> None:
    """Store the file if it is not there. The same bytes have the same key, so a race of two writers does no harm."""
    if found.path is not None:
        if not store.exists(keys.media(found.sha256)):
            store.put_file(keys.media(found.sha256), found.path)
        found.path.unlink()
    if found.note is not None:
        found.note()


def _refusal(licence: Licence, settings: ScraperSettings, *, source: str) -> Skipped | None:
    try:
        refuse_unless_allowed(licence, settings, source=source)
    except PermissionRefused as error:
        _log.warning("%s", error.message)
        return Skipped(error.reason.lower())
    return None


def _is_one_file(spec: SourceSpec) -> bool:
    """Whether the source is a media file itself, told by the ending of its address or (upload) of its name."""
    scheme, _, _ = spec.url.partition(":")
    if scheme == "upload":
        return is_media_name(spec.name)
    return scheme in ("file", "http", "https") and is_media_name(PurePosixPath(urlsplit(spec.url).path).name)


def _admit_all(_: Licence) -> None:
    """Licences of media are judged file by file: one that is refused is one that is skipped."""


def _too_much(spec: SourceSpec, settings: ScraperSettings) -> ResourceExhausted:
    name = environment_name("max_collection_media_bytes")
    return ResourceExhausted(
        f"the files of {spec.display_name} are larger together than {settings.max_collection_media_bytes} bytes; "
        f"split the source, or raise {name}",
        reason="TOO_MUCH_MEDIA",
        metadata={"limit": str(settings.max_collection_media_bytes), "setting": name, "source": spec.url},
    )
