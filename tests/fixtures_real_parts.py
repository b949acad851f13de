"""Fixtures: a real Kafka broker and a real MinIO server. Endpoints given by the environment win.

Where the machine cannot bring a part, its tests are left out with a line that says what would; with CI=true they fail.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest
import real_parts as parts

Server = TypeVar("Server", bound=parts.Server)


@dataclass(frozen=True)
class S3:
    """Where a MinIO server answers, and keys that may do everything."""

    endpoint: str
    access_key: str
    secret_key: str


def left_out(reason: str) -> NoReturn:
    """Leave the test out, but never in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must test this: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a broker that the whole session shares: every test uses topics of its own."""
    if given := os.environ.get("TUNESMITH_TEST_KAFKA"):
        yield given
        return
    try:
        broker = parts.kafka(tmp_path_factory.mktemp("kafka"))
    except parts.PartMissing as missing:
        left_out(str(missing))
    with parts.running(broker):
        yield broker.address


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A MinIO server that the whole session shares: every test uses buckets of its own."""
    if given := os.environ.get("TUNESMITH_TEST_S3"):
        yield S3(given, os.environ["TUNESMITH_S3_ACCESS_KEY"], os.environ["TUNESMITH_S3_SECRET_KEY"])
        return
    try:
        server = parts.minio(tmp_path_factory.mktemp("minio"))
    except parts.PartMissing as missing:
        left_out(str(missing))
    with parts.running(server):
        yield S3(server.endpoint, server.access_key, server.secret_key)


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Callable[..., parts.Kafka]]:
    """Starts brokers of the test's own, to be killed and started again; arguments as of `parts.kafka`."""
    with _owned(parts.kafka, tmp_path / "kafka") as start:
        yield start


@pytest.fixture
def own_minio(tmp_path: Path) -> Iterator[Callable[..., parts.Minio]]:
    """Starts MinIO servers of the test's own; arguments as of `parts.minio`."""
    with _owned(parts.minio, tmp_path / "minio") as start:
        yield start


@contextmanager
def _owned(make: Callable[..., Server], folder: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers under `folder` and kills them at the end."""
    started: list[Server] = []

    def start(name: str = "", **how: object) -> Server:
        try:
            server = make(folder / name if name else folder, **how)
        except parts.PartMissing as missing:
            left_out(str(missing))
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()
