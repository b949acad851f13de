"""Stores on a MinIO server, each with a bucket of its own."""

from __future__ import annotations

import secrets

from real_parts import Minio

from fixtures_real_parts import S3
from tunesmith.adapters.minio_setup import make_buckets
from tunesmith.adapters.minio_store import MinioStore


def open_store(server: S3 | Minio, endpoint: str = "", options: str = "") -> MinioStore:
    """A store with new buckets on `server`, reached by way of `endpoint` where that is given."""
    bucket = f"test-{secrets.token_hex(6)}"
    keys = {"access_key": server.access_key, "secret_key": server.secret_key}
    make_buckets(MinioStore.open(f"s3://{bucket}?endpoint={server.endpoint}{options}", **keys).connection)
    return MinioStore.open(f"s3://{bucket}?endpoint={endpoint or server.endpoint}{options}", **keys)
