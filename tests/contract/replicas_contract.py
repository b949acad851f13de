"""What everybody who starts servers for model versions must do; an adapter's test gives the fixtures."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from contract.deadline import eventually
from tunesmith.domain.models import ModelVersion
from tunesmith.ports.replicas import Replica, Replicas

RECIPE = "micro_genre"
HUB_BASE = "org/base-1b"


def version(name: str, *, recipe: str = RECIPE, base: str = HUB_BASE, fingerprint: str = "") -> ModelVersion:
    """A version that passed."""
    return ModelVersion(
        id=name,
        recipe=recipe,
        run_id=f"run-{name}",
        dataset_id="ds-1",
        base_model=base,
        base_fingerprint=fingerprint or f"hub:{base}",
        adapter_key=f"runs/{recipe}/run-{name}/adapter/",
        adapter_hash="a" * 64,
        report_id=f"rep-{name}",
        passed=True,
        created_at="2026-01-01T00:00:00.000000Z",
    )


def there(replicas: Replicas) -> dict[str, str]:
    """State by version."""
    return {replica.version: replica.state for replica in replicas.all()}


class ReplicasContract:
    """Subclass it with the two fixtures."""

    TIMEOUT_S = 30.0

    @pytest.fixture
    def opener(self) -> Callable[[], Replicas]:
        """Opens the replicas of one installation, as each of its processes does."""
        raise NotImplementedError

    @pytest.fixture
    def make_ready(self) -> Callable[[ModelVersion], None]:
        """Has the servers of a version that was started answer."""
        raise NotImplementedError

    @pytest.fixture
    def replicas(self, opener: Callable[[], Replicas]) -> Replicas:
        return opener()

    def test_nothing_is_there_at_first(self, replicas: Replicas) -> None:
        assert list(replicas.all()) == []
        replicas.stop(RECIPE, "mv-never")

    def test_a_started_one_becomes_ready(self, replicas: Replicas, make_ready: Callable[[ModelVersion], None]) -> None:
        replicas.start(version("mv-1"))
        [found] = replicas.all()
        assert (found.recipe, found.version) == (RECIPE, "mv-1")
        make_ready(version("mv-1"))
        eventually(lambda: list(replicas.all()) == [Replica(RECIPE, "mv-1", "ready")], timeout_s=self.TIMEOUT_S)

    def test_starting_it_again_is_success_and_starts_nothing(self, opener: Callable[[], Replicas]) -> None:
        processes = [opener() for _ in range(3)]
        with ThreadPoolExecutor(9) as pool:
            list(pool.map(lambda n: processes[n % 3].start(version("mv-1")), range(9)))
        for process in processes:
            assert there(process).keys() == {"mv-1"}

    def test_a_stopped_one_is_gone_and_the_others_stay(self, opener: Callable[[], Replicas]) -> None:
        one, other = opener(), opener()
        for name in ("mv-1", "mv-2"):
            one.start(version(name))
        other.stop(RECIPE, "mv-1")
        other.stop(RECIPE, "mv-1")
        assert there(one).keys() == {"mv-2"}

    def test_a_stopped_one_can_be_started_again(self, replicas: Replicas) -> None:
        replicas.start(version("mv-1"))
        replicas.stop(RECIPE, "mv-1")
        eventually(lambda: _starts(replicas, version("mv-1")), timeout_s=self.TIMEOUT_S)
        assert there(replicas).keys() == {"mv-1"}

    def test_two_recipes_may_call_their_versions_alike(self, replicas: Replicas) -> None:
        replicas.start(version("mv-1"))
        replicas.start(version("mv-1", recipe="lyrics"))
        replicas.stop("lyrics", "mv-1")
        assert [(r.recipe, r.version) for r in replicas.all()] == [(RECIPE, "mv-1")]


def _starts(replicas: Replicas, wanted: ModelVersion) -> bool:
    from tunesmith.domain.errors import Unavailable

    try:
        replicas.start(wanted)
    except Unavailable:
        return False
    return True
