"""The language models of the generator, held to one contract."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contract.fake_language_model import FakeLanguageModel
from contract.language_model_contract import LanguageModelContract, LoadingContract, Spare, Subject
from contract.tiny_models import FINGERPRINT, build_adapter, build_base
from tunesmith.adapters.local_store import LocalStore
from tunesmith.ports.language_model import Adapter
from tunesmith_generator.runners.embedded import EmbeddedRunner
from tunesmith_generator.runners.exchange import EngineSettings

NUM_SLOTS = 4
MAX_NEW_TOKENS = 200


def noise(adapter: Adapter | None, prompt: str, seed: int | None) -> str:
    """A long text that depends on everything."""
    name = adapter.name if adapter else "base"
    return "".join(hashlib.sha256(f"{name} {prompt} {seed} {n}".encode()).hexdigest() for n in range(8))


class TestFakeLanguageModel(LanguageModelContract, LoadingContract):
    @pytest.fixture
    async def subject(self) -> Subject:
        model = FakeLanguageModel(noise, num_slots=NUM_SLOTS, max_new_tokens_limit=MAX_NEW_TOKENS)
        for name in ("v1", "v12"):
            await model.load(Adapter(name, name, name, "tiny", FINGERPRINT))
        return Subject(model, "v1", "v12", NUM_SLOTS, MAX_NEW_TOKENS)

    @pytest.fixture
    def spare(self) -> Spare:
        return Spare(Adapter("v123", "hash", "key/", "tiny", FINGERPRINT))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalStore, Path, tuple[Adapter, ...]]:
    """A base, and three adapters whose names contain each other: PEFT's substring trap."""
    folder = tmp_path_factory.mktemp("tiny")
    store = LocalStore(folder / "store")
    base = build_base(folder / "base")
    adapters = tuple(
        build_adapter(store, base, name=name, seed=seed, folder=folder / name)
        for seed, name in enumerate(["v1", "v12", "v123"])
    )
    return store, base, adapters


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
class TestEmbeddedRunner(LanguageModelContract, LoadingContract):
    @pytest.fixture
    async def subject(
        self, tiny: tuple[LocalStore, Path, tuple[Adapter, ...]], tmp_path: Path
    ) -> AsyncIterator[Subject]:
        store, base, adapters = tiny
        model = EmbeddedRunner(
            store,
            resolve_base=lambda _model, _fingerprint: base,
            cache_dir=tmp_path,
            settings=EngineSettings(
                max_batch_size=NUM_SLOTS, queue_limit=64, max_new_tokens_limit=MAX_NEW_TOKENS, device="cpu"
            ),
        )
        for adapter in adapters[:2]:
            await model.load(adapter)
        yield Subject(model, "v1", "v12", NUM_SLOTS, MAX_NEW_TOKENS)
        await model.close()

    @pytest.fixture
    def spare(self, tiny: tuple[LocalStore, Path, tuple[Adapter, ...]]) -> Spare:
        return Spare(tiny[2][2])
