from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from contract.tiny_models import FINGERPRINT, OTHER_FINGERPRINT, Tiny, build_adapter, build_base
from tunesmith.adapters.local_store import LocalStore
from tunesmith_generator.runners.embedded import EmbeddedRunner
from tunesmith_generator.runners.exchange import EngineSettings

MakeRunner = Callable[..., Awaitable[EmbeddedRunner]]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Adapters `v1`, `v2` on one base and `w1` on another, and a base with a sliding window."""
    folder = tmp_path_factory.mktemp("tiny")
    store = LocalStore(folder / "store")
    bases = {
        FINGERPRINT: build_base(folder / "base"),
        OTHER_FINGERPRINT: build_base(folder / "other", seed=1),
        "sliding": build_base(folder / "sliding", sliding_window=8),
    }
    placed = [("v1", FINGERPRINT), ("v2", FINGERPRINT), ("w1", OTHER_FINGERPRINT)]
    adapters = {
        name: build_adapter(store, bases[on], name=name, seed=seed, folder=folder / name, fingerprint=on)
        for seed, (name, on) in enumerate(placed)
    }
    return Tiny(store, bases, adapters)


@pytest.fixture
async def make_runner(tiny: Tiny, tmp_path: Path) -> AsyncIterator[MakeRunner]:
    """Makes runners with the named adapters loaded, and closes them."""
    made: list[EmbeddedRunner] = []

    async def make(*names: str, **settings: int) -> EmbeddedRunner:
        runner = EmbeddedRunner(
            tiny.store,
            resolve_base=lambda _model, fingerprint: tiny.bases[fingerprint],
            cache_dir=tmp_path / "cache",
            settings=EngineSettings(device="cpu", num_threads=1, **settings),  # type: ignore[arg-type]
        )
        made.append(runner)
        for name in names:
            await runner.load(tiny.adapters[name])
        return runner

    yield make
    for runner in made:
        await runner.close()
