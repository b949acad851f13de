"""The MinIO adapter against the store's contract, on a real MinIO."""

from __future__ import annotations

import secrets
from functools import partial

import pytest

from contract.store_contract import Opener, StoreContract
from fixtures_real_parts import S3
from tunesmith.adapters.minio_setup import make_buckets
from tunesmith.adapters.minio_store import MinioStore


class TestMinioStore(StoreContract):
    """One bucket."""

    @pytest.fixture
    def opener(self, minio_server: S3) -> Opener:
        """A bucket of its own for each test."""
        url = f"s3://test-{secrets.token_hex(6)}?endpoint={minio_server.endpoint}"
        opener = partial(MinioStore.open, url, access_key=minio_server.access_key, secret_key=minio_server.secret_key)
        make_buckets(opener().connection)
        return opener
