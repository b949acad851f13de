"""`file:///…`: a regular file under one of the allowed folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tunesmith.domain.errors import InvalidInput, NotFound, PermissionRefused
from tunesmith.ports.clock import rfc3339
from tunesmith.ports.store import Store
from tunesmith_scraper.licences import UNKNOWN
from tunesmith_scraper.settings import ScraperSettings, environment_name
from tunesmith_scraper.sources.base import Document, SourceContext, SourceSpec
from tunesmith_scraper.sources.spool import spool


class LocalFileSource:
    """A file of the machine that the scraper runs on."""

    def check(self, spec: SourceSpec, *, settings: ScraperSettings, store: Store) -> None:  # noqa: ARG002
        os.close(opened(path_of(spec.url), settings))

    def documents(self, spec: SourceSpec, context: SourceContext) -> Iterator[Document]:
        copy = context.scratch / "document"
        with os.fdopen(opened(path_of(spec.url), context.settings), "rb") as file:
            content_hash = spool(file, copy, max_bytes=context.settings.max_upload_bytes, source=spec.url)
        yield Document(
            path=copy,
            url=spec.url,
            final_url=path_of(spec.url).resolve().as_uri(),
            content_hash=content_hash,
            fetched_at=rfc3339(context.clock.now()),
            licence=UNKNOWN,
            file_name=path_of(spec.url).name,
        )


def path_of(url: str) -> Path:
    """The path that a file URL names; InvalidInput for another URL."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path or parts.query:
        raise InvalidInput(
            f"{url[:200]!r} is not a file URL; write file:/// and the absolute path, with %3F for '?'",
            reason="BAD_FILE_URL",
            metadata={"value": url[:200]},
        )
    return Path(path)


def path_under_roots(path: Path, settings: ScraperSettings) -> Path:
    """The true path of a file or folder under a root; PermissionRefused for another one.

    Whether a path outside the roots exists is not told.
    """
    true_path = _true_path(path)
    if not any(true_path.is_relative_to(root.resolve()) for root in settings.file_roots):
        setting = environment_name("file_roots")
        roots = ", ".join(map(str, settings.file_roots)) or "none"
        raise PermissionRefused(
            f"{path} is not under an allowed folder (allowed: {roots}); add its folder to {setting}, "
            "or upload the file",
            reason="FILE_OUTSIDE_ROOTS",
            metadata={"path": str(path), "setting": setting},
        )
    return true_path


def opened(path: Path, settings: ScraperSettings) -> int:
    """A descriptor of the regular file, opened only after its true path was found to lie under a root."""
    true_path = path_under_roots(path, settings)
    try:
        # Not blocking: opening a FIFO must not wait for its writer.
        descriptor = os.open(true_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}; check the path", metadata={"path": str(path)}) from None
    except OSError as error:
        raise PermissionRefused(
            f"{path} cannot be opened ({error.strerror}); check its permissions",
            reason="FILE_UNREADABLE",
            metadata={"path": str(path)},
        ) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise InvalidInput(
            f"{path} is not a regular file; name a file", reason="NOT_A_FILE", metadata={"path": str(path)}
        )
    if not _is_still(true_path, found):
        os.close(descriptor)
        raise PermissionRefused(f"{path} was changed while it was opened; try again", reason="FILE_CHANGED")
    return descriptor


def _true_path(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise InvalidInput(f"{path} cannot be followed ({error})", reason="BAD_FILE_URL") from error


def _is_still(true_path: Path, found: os.stat_result) -> bool:
    """Whether the opened file is the one that the judged path still names: no folder became a link meanwhile."""
    try:
        return true_path.resolve(strict=True) == true_path and os.path.samestat(true_path.stat(), found)
    except OSError:
        return False
