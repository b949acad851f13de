"""`upload:<sha256>`: bytes that a client sent before."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunesmith.domain import keys
from tunesmith.domain.errors import DataLoss, InvalidInput, NotFound
from tunesmith.ports.clock import rfc3339
from tunesmith.ports.store import Store
from tunesmith_scraper.licences import UNKNOWN
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import Document, SourceContext, SourceSpec
from tunesmith_scraper.sources.spool import spool

_SHA256 = re.compile(r"[0-9a-f]{64}")


class UploadSource:
    """An upload; the spec's name says how it was called and, by its ending, what format it has."""

    def check(self, spec: SourceSpec, *, settings: ScraperSettings, store: Store) -> None:  # noqa: ARG002
        sha256 = _sha256_of(spec.url)
        if not store.exists(keys.upload(sha256)):
            raise NotFound(f"there is no upload {sha256}; send the file again", metadata={"sha256": sha256})

    def documents(self, spec: SourceSpec, context: SourceContext) -> Iterator[Document]:
        sha256 = _sha256_of(spec.url)
        stored = context.scratch / "upload"
        context.store.get_file(keys.upload(sha256), stored)
        path = context.scratch / "document"
        with stored.open("rb") as file:
            content_hash = spool(file, path, max_bytes=context.settings.max_upload_bytes, source=spec.display_name)
        stored.unlink()
        if content_hash != sha256:
            raise DataLoss(
                f"the upload {sha256} is corrupt: its bytes have the hash {content_hash}; send the file again",
                reason="CORRUPT_UPLOAD",
                metadata={"key": keys.upload(sha256)},
            )
        yield Document(
            path=path,
            url=spec.url,
            final_url=spec.url,
            content_hash=content_hash,
            fetched_at=rfc3339(context.clock.now()),
            licence=UNKNOWN,
            file_name=spec.name,
        )


def _sha256_of(url: str) -> str:
    sha256 = url.partition(":")[2]
    if not _SHA256.fullmatch(sha256):
        raise InvalidInput(
            f"{url[:100]!r} is not an upload; write upload: and the 64 hex digits that UploadSource answered",
            reason="BAD_UPLOAD_URL",
            metadata={"value": url[:100]},
        )
    return sha256
