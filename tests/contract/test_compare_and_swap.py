"""Racing writers on every store: exactly one winner each round, and nobody is told wrong, even when replies are lost.

A short sample of `benchmarks/compare_and_swap.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from compare_and_swap import ALL_FAULTS, race
from store_faults import Faults, faulty

from contract.minio_buckets import open_store
from fixtures_real_parts import S3
from tunesmith.adapters.local_store import LocalStore
from tunesmith.ports.store import Store

KINDS = ("create", "replace", "count")
NUM_WRITERS = 32

HALF_LOST = Faults(error_after=0.25, cut_after=0.25)
"""More than any store does, so that a few rounds are enough to strike winners."""


class TestEveryStore:
    """Nothing goes wrong on the way."""

    @pytest.fixture(params=["local", "minio"])
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Store:
        """Each adapter."""
        if request.param == "local":
            return LocalStore(tmp_path / "store")
        server = request.getfixturevalue("minio_server")
        return open_store(server)

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_32_writers_exactly_one_wins_each_round(self, store: Store, kind: str) -> None:
        tally = race(store, kind=kind, writers=NUM_WRITERS, rounds=5)

        assert tally.is_right, tally
        assert (tally.wins, tally.unknown) == (5, 0)


class TestFaultyReplies:
    """A proxy stands before the store."""

    @pytest.fixture(params=[HALF_LOST, ALL_FAULTS], ids=["half-lost", "all-faults"])
    def faults(self, request: pytest.FixtureRequest) -> Faults:
        """What goes wrong."""
        assert isinstance(request.param, Faults)
        return request.param

    @pytest.fixture
    def store(self, minio_server: S3, faults: Faults) -> Iterator[Store]:
        """A store whose replies are lost, doubled or late."""
        with faulty(minio_server.endpoint, faults, seed=3) as proxy:
            yield open_store(minio_server, proxy.endpoint)
        assert sum(proxy.struck.values()) > 0

    @pytest.mark.parametrize("kind", KINDS)
    def test_no_outcome_is_misreported(self, store: Store, kind: str) -> None:
        tally = race(store, kind=kind, writers=NUM_WRITERS, rounds=10)

        assert tally.is_right, tally
        assert tally.wins + tally.unknown >= 10
