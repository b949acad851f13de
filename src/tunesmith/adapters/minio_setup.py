"""Prepares an S3 store: buckets."""

from __future__ import annotations

from minio.error import S3Error

from tunesmith.adapters.minio_connection import MinioConnection
from tunesmith.adapters.minio_errors import s3_failures

_EXISTS = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}


def make_buckets(connection: MinioConnection) -> list[str]:
    """Make the buckets that are missing; returns their names."""
    made = []
    for bucket in connection.address.buckets():
        with s3_failures(connection.address, bucket=bucket, key=""):
            try:
                connection.client.make_bucket(bucket, connection.address.region)
            except S3Error as error:
                if error.code not in _EXISTS:
                    raise
            else:
                made.append(bucket)
    return made
