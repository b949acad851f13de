"""Uploads in parts that were begun and never ended: their parts take room and are in no listing of objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from minio.datatypes import ListMultipartUploadsResult

from tunesmith.adapters.minio_connection import MinioConnection
from tunesmith.adapters.minio_errors import listing_failures, refusal_of, s3_failures


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that is under way, or was abandoned by a writer that died."""

    bucket: str
    key: str
    id: str
    started_s: float
    """Seconds since the epoch by the store's clock."""


def list_uploads(connection: MinioConnection) -> Iterator[Upload]:
    """All uploads that have not ended, in all buckets of the store."""
    address = connection.address
    for bucket in address.buckets():
        key_marker = upload_id_marker = ""
        while True:
            with s3_failures(address, bucket=bucket, key=""), listing_failures(address):
                reply = connection.uploads(bucket, key_marker=key_marker, upload_id_marker=upload_id_marker)
                if reply.status != 200:
                    raise refusal_of(reply, address, bucket=bucket, key="")
                page = ListMultipartUploadsResult(reply)
            for upload in page.uploads:
                if upload.object_name and upload.upload_id and upload.initiated_time:
                    yield Upload(bucket, upload.object_name, upload.upload_id, upload.initiated_time.timestamp())
            if not page.is_truncated or not page.next_key_marker:
                break
            key_marker, upload_id_marker = page.next_key_marker, _next_upload_id(reply.data)


def abort_upload(connection: MinioConnection, upload: Upload) -> None:
    """Remove an upload's parts; nothing happens when it has ended meanwhile."""
    with s3_failures(connection.address, bucket=upload.bucket, key=upload.key):
        reply = connection.abort_upload(upload.bucket, upload.key, upload.id)
    if reply.status not in (204, 200, 404):
        raise refusal_of(reply, connection.address, bucket=upload.bucket, key=upload.key)


def _next_upload_id(page: bytes) -> str:
    """The SDK's own field for it is set under a wrong name."""
    found = ElementTree.fromstring(page.decode()).find("{*}NextUploadIdMarker")
    return found.text or "" if found is not None else ""
