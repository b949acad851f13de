"""The generator's remote backends, held to the port's contract against servers that answer from a real model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from contract.language_model_contract import LanguageModelContract, LoadingContract, Spare, Subject
from contract.tiny_models import FINGERPRINT, Tiny, build_adapter, build_base
from doubles.model_server import MAX_TOTAL_TOKENS, ModelServer, serving
from tunesmith.adapters.local_store import LocalStore
from tunesmith_generator.backends import BackendList, read_backend
from tunesmith_generator.reload import bare_base
from tunesmith_generator.runners.embedded import EmbeddedRunner
from tunesmith_generator.runners.exchange import EngineSettings
from tunesmith_generator.runners.remote import RemoteRunner, RemoteSettings
from tunesmith_generator.servers import connector

NUM_SLOTS = 4
SETTINGS = RemoteSettings(max_new_tokens_limit=200, check_interval_s=0.2, backoff_s=0.01, max_wait_s=2.0)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("served")
    store = LocalStore(folder / "store")
    base = build_base(folder / "base")
    adapters = {
        name: build_adapter(store, base, name=name, seed=seed, folder=folder / name)
        for seed, name in enumerate(["v1", "v12", "v123"])
    }
    return Tiny(store, {FINGERPRINT: base}, adapters)


@pytest.fixture
async def engine(served: Tiny, tmp_path: Path) -> AsyncIterator[EmbeddedRunner]:
    """The model behind the servers."""
    runner = EmbeddedRunner(
        served.store,
        resolve_base=lambda _model, _fingerprint: served.bases[FINGERPRINT],
        cache_dir=tmp_path / "cache",
        settings=EngineSettings(
            max_batch_size=NUM_SLOTS, queue_limit=64, max_new_tokens_limit=MAX_TOTAL_TOKENS, device="cpu"
        ),
    )
    await runner.load(bare_base("tiny", FINGERPRINT))
    yield runner
    await runner.close()


def runner_for(setting: str, served: Tiny, folder: Path) -> RemoteRunner:
    backend = read_backend(setting)
    return RemoteRunner(
        BackendList(backend), connector(backend, store=served.store, cache_dir=folder, api_key=""), SETTINGS
    )


class _Remote(LanguageModelContract, LoadingContract):
    LACKS: frozenset[str] = frozenset()

    async def setting(self, servers: AsyncExitStack, engine: EmbeddedRunner, served: Tiny, folder: Path) -> str:
        raise NotImplementedError

    @pytest.fixture
    async def subject(self, served: Tiny, engine: EmbeddedRunner, tmp_path: Path) -> AsyncIterator[Subject]:
        async with AsyncExitStack() as servers:
            model = runner_for(await self.setting(servers, engine, served, tmp_path), served, tmp_path)
            for name in ("v1", "v12"):
                await model.load(served.adapters[name])
            yield Subject(model, "v1", "v12", NUM_SLOTS, SETTINGS.max_new_tokens_limit, self.LACKS)
            await model.close()

    @pytest.fixture
    def spare(self, served: Tiny) -> Spare:
        return Spare(served.adapters["v123"])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
class TestTextGenerationInference(_Remote):
    async def setting(self, servers: AsyncExitStack, engine: EmbeddedRunner, served: Tiny, folder: Path) -> str:
        for adapter in served.adapters.values():
            await engine.load(adapter)
        urls = []
        for _ in range(2):
            server = ModelServer(engine, served.store, FINGERPRINT, "tiny", started_with=tuple(served.adapters))
            urls.append((await servers.enter_async_context(serving(server))).url)
        return f"tgi+{','.join(urls)}"


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
class TestVllm(_Remote):
    LACKS = frozenset({"typical_p"})

    async def setting(self, servers: AsyncExitStack, engine: EmbeddedRunner, served: Tiny, folder: Path) -> str:
        server = ModelServer(engine, served.store, FINGERPRINT, "tiny")
        url = (await servers.enter_async_context(serving(server))).url
        return f"openai+{url}?adapters={folder / 'shared'}"
