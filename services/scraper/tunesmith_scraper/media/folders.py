"""`file:///folder`: the media files below a folder of the machine that the scraper runs on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith.domain.errors import InvalidInput, ResourceExhausted, TunesmithError
from tunesmith.ports.clock import rfc3339
from tunesmith_scraper.formats.layout import Skipped
from tunesmith_scraper.media.found import Found, is_media_name
from tunesmith_scraper.settings import ScraperSettings, environment_name
from tunesmith_scraper.sources.base import SourceContext, SourceSpec
from tunesmith_scraper.sources.local_file import opened, path_of, path_under_roots
from tunesmith_scraper.sources.spool import spool

_log = logging.getLogger(__name__)


def is_folder(url: str, settings: ScraperSettings) -> bool:
    """Whether `url` names a folder under a root; PermissionRefused for what lies outside all roots."""
    return url.startswith("file:") and path_under_roots(path_of(url), settings).is_dir()


def check(spec: SourceSpec) -> None:
    """A folder has no rows, so nothing that says how to read them."""
    if spec.columns or spec.selector or spec.attribute or spec.format != "auto":
        raise InvalidInput(
            f"{spec.url[:200]} is a folder of media files; it has no format, columns or selector",
            reason="FOLDER_WITHOUT_ROWS",
            metadata={"value": spec.url[:200]},
        )


def listing(url: str, settings: ScraperSettings) -> list[str]:
    """Paths below the folder, relative to it, in the order of their names; hidden files and folders are left out.

    Linked folders are listed as what they are, not entered. ResourceExhausted past `max_records`.
    """
    folder = path_under_roots(path_of(url), settings)
    found: list[str] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        names = [name for name in (*files, *linked) if not name.startswith(".")]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in names]
        if len(found) > settings.max_records:
            name = environment_name("max_records")
            raise ResourceExhausted(
                f"{url} holds more than {settings.max_records} files; name a smaller folder, or raise {name}",
                reason="TOO_MANY_RECORDS",
                metadata={"limit": str(settings.max_records), "setting": name, "source": url},
            )
    return sorted(found)


def files(url: str, paths: Sequence[str], context: SourceContext) -> Iterator[Found | Skipped]:
    """The listed files: skipped are those of other kinds, links out of the folder, what cannot be read or is too
    large."""
    folder = path_under_roots(path_of(url), context.settings)
    for name in paths:
        yield _file(folder, name, context)


def _file(folder: Path, name: str, context: SourceContext) -> Found | Skipped:
    path = folder / name
    if path.is_dir():
        return Skipped("linked_folder")
    if not is_media_name(name):
        return Skipped("not_media")
    if not name.isprintable() or len(name) > context.settings.max_field_chars:
        return Skipped("bad_name")
    copy = context.scratch / "media"
    try:
        if not path_under_roots(path, context.settings).is_relative_to(folder):
            return Skipped("outside_folder")
        with os.fdopen(opened(path, context.settings), "rb") as file:
            sha256 = spool(
                file, copy, max_bytes=context.settings.max_media_bytes, source=str(path), setting="max_media_bytes"
            )
    except TunesmithError as error:
        _log.warning("%s", error.message)
        return Skipped(error.reason.lower())
    address = path.as_uri()
    return Found(
        path=copy,
        sha256=sha256,
        size_bytes=copy.stat().st_size,
        url=address,
        final_url=path.resolve().as_uri(),
        fetched_at=rfc3339(context.clock.now()),
        fields={"name": name},
    )
