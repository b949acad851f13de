"""Where integration tests run: on the embedded store and bus, and on a real MinIO and a real Kafka.

A test that asks for `place` runs once on each. TUNESMITH_TEST_PLACES=embedded leaves the real ones out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from fixtures_real_parts import S3
from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.sqlite_bus import SqliteBus
from tunesmith.domain.events import Event
from tunesmith.ports.bus import EventBus
from tunesmith.ports.clock import Clock
from tunesmith.ports.store import Store

PLACES = tuple(os.environ.get("TUNESMITH_TEST_PLACES", "embedded,real").split(","))


@dataclass
class Place:
    """Opens stores and buses; each folder stands for a system of its own, also where nothing lies in it."""

    name: Literal["embedded", "real"]
    parts: pytest.FixtureRequest
    """Starts the real ones when they are first needed."""
    _prepared: set[str] = field(default_factory=set)

    @property
    def join_s(self) -> float:
        """After so long without a message a new member of a group has nothing to expect."""
        return 0.05 if self.name == "embedded" else 4.0

    @property
    def silence_s(self) -> float:
        """After so long without a message a member has nothing to expect."""
        return 0.02 if self.name == "embedded" else 0.3

    def events(self, bus: EventBus, topics: Sequence[str], *, group: str = "reader") -> list[Event]:
        """What `group` has not read yet; it is committed."""
        subscription = bus.subscribe(group, topics)
        try:
            found = []
            patience_s = self.join_s
            while messages := subscription.poll(timeout_s=patience_s, max_messages=256):
                patience_s = self.silence_s
                for message in messages:
                    assert message.event is not None, message.decode_error
                    found.append(message.event)
                    subscription.commit(message)
            return found
        finally:
            subscription.close()

    @property
    def _s3(self) -> S3 | None:
        return self.parts.getfixturevalue("minio_server") if self.name == "real" else None

    def environment(self, folder: Path) -> dict[str, str]:
        """The settings with which a process opens the system of `folder`; none for the embedded one."""
        s3 = self._s3
        if s3 is None:
            return {}
        return {
            "TUNESMITH_STORE": self._store_url(folder, s3),
            "TUNESMITH_S3_ACCESS_KEY": s3.access_key,
            "TUNESMITH_S3_SECRET_KEY": s3.secret_key,
            "TUNESMITH_BUS": f"kafka://{self.parts.getfixturevalue('kafka_broker')}",
            "TUNESMITH_KAFKA_PARTITIONS": "2",
            "TUNESMITH_KAFKA_TOPIC_PREFIX": f"{_name_of(folder)}.",
        }

    def shared_environment(self, folder: Path) -> dict[str, str]:
        """The settings with which processes of other data folders open the system of `folder`."""
        embedded = {"TUNESMITH_STORE": f"file://{folder}/store", "TUNESMITH_BUS": f"sqlite://{folder}/bus.sqlite"}
        return self.environment(folder) or embedded

    def _store_url(self, folder: Path, s3: S3) -> str:
        return f"s3://{_name_of(folder)}?endpoint={s3.endpoint}"

    def store(self, folder: Path) -> Store:
        """The store of `folder`'s system."""
        s3 = self._s3
        if s3 is None:
            return LocalStore(folder / "store")
        from tunesmith.adapters.minio_setup import make_buckets
        from tunesmith.adapters.minio_store import MinioStore

        url = self._store_url(folder, s3)
        store = MinioStore.open(url, access_key=s3.access_key, secret_key=s3.secret_key)
        if url not in self._prepared:
            make_buckets(store.connection)
            self._prepared.add(url)
        return store

    def bus(self, folder: Path, *, clock: Clock) -> EventBus:
        """The bus of `folder`'s system; its topics are not made."""
        if self.name == "embedded":
            return SqliteBus(folder / "bus.sqlite", clock=clock)
        from tunesmith.platform import Platform
        from tunesmith.settings import Settings

        with variables(self.environment(folder)):
            return Platform.open(Settings.read(data=folder)).bus


def _name_of(folder: Path) -> str:
    """A name that can be a bucket's and a topic's, another one for each folder."""
    return "t" + hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:20]


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the time of a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture(scope="session", params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    """Embedded, then real."""
    return Place(request.param, request)
