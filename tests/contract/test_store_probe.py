"""The probe at a service's start: real stores pass, and a store that ignores conditions is refused at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from minio.credentials.credentials import Credentials
from minio.signer import sign_v4_s3
from store_faults import Faults, faulty

from contract.minio_buckets import open_store
from fixtures_real_parts import S3
from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.store_probe import prove_conditions
from tunesmith.domain.errors import FailedPrecondition, TunesmithError
from tunesmith.platform import Platform
from tunesmith.rpc.hosting import host
from tunesmith.settings import Settings

NOTHING = Faults()


class Ignoring:
    """Drops one condition from each request, and signs the rest so that the store behind accepts it."""

    def __init__(self, server: S3, condition: str) -> None:
        self._server = server
        self._condition = condition

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        kept = {name.lower(): value for name, value in headers.items()}
        if kept.pop(self._condition, None) is None:
            return headers
        for unsigned in ("authorization", "connection", "accept-encoding", "content-length"):
            kept.pop(unsigned, None)
        signed = sign_v4_s3(
            method=method,
            url=urlsplit(f"http://{kept['host']}{path}"),
            region="us-east-1",
            headers=dict(kept),
            credentials=Credentials(self._server.access_key, self._server.secret_key),
            content_sha256=kept["x-amz-content-sha256"],
            date=datetime.strptime(kept["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
        )
        return {**{name: str(value) for name, value in signed.items()}, "content-length": str(len(body))}


@pytest.fixture(params=["if-none-match", "if-match"])
def ignoring(request: pytest.FixtureRequest, minio_server: S3) -> Iterator[str]:
    """The address of a store that ignores one of the conditions."""
    with faulty(minio_server.endpoint, NOTHING, seed=0, rewrite=Ignoring(minio_server, request.param)) as proxy:
        yield proxy.endpoint


def test_stores_that_keep_conditions_pass_and_nothing_is_left(minio_server: S3, tmp_path: Path) -> None:
    for store in (LocalStore(tmp_path), open_store(minio_server)):
        prove_conditions(store, name="the store")

        assert list(store.list("")) == []


def test_a_store_that_ignores_a_condition_is_refused_within_five_seconds(minio_server: S3, ignoring: str) -> None:
    store = open_store(minio_server, ignoring)
    started_s = time.monotonic()

    with pytest.raises(FailedPrecondition, match=r"the store s3://songs cannot be used: it .* is ignored.*Use MinIO"):
        prove_conditions(store, name="s3://songs")

    assert time.monotonic() - started_s < 5
    assert list(store.list("")) == []


class CheckingThenWriting(LocalStore):
    """A store that looks and then writes, in two steps, as several S3 stores did."""

    def create(self, key: str, data: bytes) -> str:
        """Write if absent, unless somebody is quick."""
        if self.exists(key):
            return super().create(key, data)
        time.sleep(0.005)
        return self.put(key, data)


def test_a_store_that_lets_several_racers_win_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"lets \d of 8 racing writers win that each creates one object"):
        prove_conditions(CheckingThenWriting(tmp_path), name="the store")


async def test_a_service_does_not_start_on_a_store_that_ignores_conditions(
    minio_server: S3, ignoring: str, tmp_path: Path
) -> None:
    bucket = open_store(minio_server, ignoring).connection.address.bucket
    keys = {"s3_access_key": minio_server.access_key, "s3_secret_key": minio_server.secret_key}
    settings = Settings.read(data=tmp_path, store=f"s3://{bucket}?endpoint={ignoring}", **keys)
    platform = Platform.open(settings)

    with pytest.raises(TunesmithError, match="cannot be used"):
        await host([], platform, on_ready=lambda _: None, stop=asyncio.Event())

    platform.close()
