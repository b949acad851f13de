"""A champion changes on servers that load nothing at run time, while people ask: every answer comes.

Everything is the shipped code but the machine that starts servers: those are text-generation-inference's double, which
answers from a real model, appear in the list file when they are ready, and leave it when they are let go.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from publishable import PROMPTS, build_lora
from published_world import RECIPE, World

from contract.deadline import eventually
from doubles.kubernetes_api import FakeCluster
from doubles.model_server import MAX_TOTAL_TOKENS, ModelServer
from doubles.replica_host import HostedReplicas, ReplicaHost
from tunesmith.adapters.kubernetes_replica import replica_name
from tunesmith.adapters.kubernetes_settings import KubernetesSettings
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain import keys
from tunesmith.domain.errors import TunesmithError
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.models import ModelVersion
from tunesmith.domain.parity import NotAsJudged, Probes, ServedAnswers, ServedToken
from tunesmith.embedded import session
from tunesmith.jobs.ticking import Ticker
from tunesmith.ports.language_model import Adapter, GenerationParameters
from tunesmith_generator.backends import BackendList, read_backend
from tunesmith_generator.handlers import Serving
from tunesmith_generator.known import KnownAnswers
from tunesmith_generator.parity import answer_probes
from tunesmith_generator.reload import ModelTable, bare_base
from tunesmith_generator.runners.embedded import EmbeddedRunner
from tunesmith_generator.runners.exchange import EngineSettings
from tunesmith_generator.runners.remote import RemoteRunner, RemoteSettings
from tunesmith_generator.servers import connector
from tunesmith_proto.trainer.v1 import models_pb2, models_pb2_grpc
from tunesmith_trainer import bootstrap, registry, replicas, servicer
from tunesmith_trainer.parity import ParityGate
from tunesmith_trainer.replicas import Asker, ReplicaKeeper, Wishes
from tunesmith_trainer.torch_backend.loading import load_model
from tunesmith_trainer.torch_backend.probing import make_probes

T = TypeVar("T")

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


class Models:
    """Two judged versions on one base, and a third whose adapter was exchanged after it was judged."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.store, self.base = self.world.store, self.world.base
        self.versions = {name: self._judged(name, seed) for seed, name in enumerate(["mv-old", "mv-new", "mv-bad"])}
        other = build_lora(self.base, folder / "exchanged", seed=9) / "adapter_model.safetensors"
        self.store.put_file(self.versions["mv-bad"].adapter_key + other.name, other)

    def _judged(self, name: str, seed: int) -> ModelVersion:
        folder = build_lora(self.base, self.world.folder / name, seed=seed)
        self.world.adapter_key = keys.adapter(RECIPE, f"run-{name}")
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            self.store.put_file(self.world.adapter_key + file, folder / file)
        self.world.adapter_hash = _sha256(folder / "adapter_model.safetensors")
        version = self.world.put_version(name, passed=True)
        loaded = load_model(self.base, adapter=folder, dtype="float32")
        probes = make_probes(loaded.model, loaded.tokenizer, list(PROMPTS), max_new_tokens=12, stop=())
        report = registry.get_report(self.store, RECIPE, version.report_id).to_json() | {"probes": probes.to_json()}
        self.store.put(keys.report(RECIPE, version.report_id), canonical_json(report))
        return version


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Cluster:
    """The generator with its runner, and a machine that starts a server for each version; on a loop in a thread."""

    def __init__(self, models: Models, folder: Path) -> None:
        self.models, self.folder = models, folder
        self.store = models.store
        self.list_file = folder / "servers"
        self.list_file.write_text("")
        self.urls: dict[str, str] = {}
        self.servers: dict[str, tuple[ModelServer, EmbeddedRunner]] = {}
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.host = ReplicaHost()
        self.host.begun = lambda version: self._later(self._begin(version))
        self.host.ended = lambda version: self._later(self._end(version))
        self.answered: Counter[str] = Counter()
        self.failures: list[TunesmithError] = []
        self.do(self._open())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop)

    async def _open(self) -> None:
        backend = read_backend(f"tgi+file://{self.list_file}")
        self.runner = RemoteRunner(
            BackendList(backend),
            connector(backend, store=self.store, cache_dir=self.folder, api_key=""),
            RemoteSettings(max_new_tokens_limit=200, check_interval_s=0.1, backoff_s=0.02, max_wait_s=5.0),
        )
        self.table = ModelTable(self.store, self.runner, SystemClock(), recipes=(RECIPE,), max_loaded_adapters=4)
        self.serving = Serving(self.table, self.runner, KnownAnswers(self.store), 200, 8)

    async def _begin(self, version: ModelVersion) -> None:
        engine = EmbeddedRunner(
            self.store,
            resolve_base=lambda _name, _fingerprint: self.models.base,
            cache_dir=self.folder / f"cache-{version.id}",
            settings=EngineSettings(max_new_tokens_limit=MAX_TOTAL_TOKENS, device="cpu", num_threads=1),
        )
        # What lies in the store now, whatever was judged: the server is told no hash.
        served = self.store.get(f"{version.adapter_key}adapter_model.safetensors").data
        digest = hashlib.sha256(served).hexdigest()
        await engine.load(bare_base(version.base_model, version.base_fingerprint))
        await engine.load(
            Adapter(version.id, digest, version.adapter_key, version.base_model, version.base_fingerprint)
        )
        server = ModelServer(
            engine,
            self.store,
            version.base_fingerprint,
            f"/models/{version.base_fingerprint}",
            started_with=(version.id,),
        )
        await server.start()
        self.servers[version.id] = (server, engine)
        self._list(version.id, server.url)
        self.host.set(version.id, "ready")

    async def _end(self, name: str) -> None:
        """As a pod that is deleted: out of the list, then the end of what it is at, then gone."""
        self._list(name, "")
        server, engine = self.servers.pop(name)
        await asyncio.sleep(0.5)
        while sum(server.num_running.values()):
            await asyncio.sleep(0.02)
        await server.stop()
        await engine.close()

    def _list(self, name: str, url: str) -> None:
        if url:
            self.urls[name] = url
        else:
            self.urls.pop(name, None)
        written = self.list_file.with_suffix(".new")
        written.write_text("\n".join(self.urls.values()))
        written.replace(self.list_file)

    # what the trainer asks of the generator

    def answer_probes(self, recipe: str, version: str, probes: Probes, *, timeout_s: float) -> ServedAnswers:
        found = self.do(
            answer_probes(
                recipe,
                version,
                [probe.prompt for probe in probes.probes],
                max_new_tokens=probes.max_new_tokens,
                stop=probes.stop,
                serving=self.serving,
            )
        )
        rows = tuple(tuple(ServedToken(t.id, t.text, t.logprob) for t in row) for row in found.tokens)
        # A server of this kind cannot know its adapter's hash.
        return ServedAnswers(rows, "", "tgi", "float32")

    def is_used(self, recipe: str, version: str) -> bool:
        async def look() -> bool:
            served = self.table.champion(recipe)
            return (served is not None and served.version == version) or self.table.loaded().get(version, 0) > 0

        return self.do(look())

    # people

    async def ask(self) -> None:
        parameters = GenerationParameters(max_new_tokens=12, do_sample=False)
        async with self.table.lease(RECIPE) as served:
            await self.runner.generate("12->", parameters, adapter=served.adapter.name)
        self.answered[served.version] += 1

    async def people(self, stop: asyncio.Event) -> None:
        async def one() -> None:
            while not stop.is_set():
                try:
                    await self.ask()
                except TunesmithError as error:
                    self.failures.append(error)

        async def watch() -> None:
            while not stop.is_set():
                await self.table.poll_once()
                await asyncio.sleep(0.1)

        await asyncio.gather(watch(), *(one() for _ in range(4)))

    async def _close(self) -> None:
        await self.table.close()
        await self.runner.close()
        for server, engine in self.servers.values():
            await server.stop()
            await engine.close()

    def close(self) -> None:
        self.do(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("swap"))


@pytest.fixture
def cluster(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """With the trainer's loop on it, which looks ten times a second."""
    monkeypatch.setattr(replicas, "GRACE_S", 0.5)
    monkeypatch.setattr(replicas, "RENEW_S", 0.1)
    models.store.delete(keys.champion(RECIPE))
    cluster = Cluster(models, tmp_path)
    keeper = ReplicaKeeper(models.store, SystemClock(), HostedReplicas(cluster.host), cluster, recipes=lambda: [RECIPE])
    loop = Ticker("replicas", keeper.look, interval_s=0.1)
    loop.start()
    yield cluster
    loop.stop()
    cluster.close()


def promote(cluster: Cluster, name: str) -> None:
    clock = SystemClock()
    gate = ParityGate(cluster.store, clock, cluster, patience_s=60.0, servers=Asker(Wishes(cluster.store), clock, 60.0))
    registry.promote(cluster.store, clock, RECIPE, name, cause="test", expected=None, served_as_judged=gate.require)


def test_the_champion_changes_while_people_ask_and_no_request_fails(cluster: Cluster) -> None:
    promote(cluster, "mv-old")
    stop = asyncio.Event()
    asking = asyncio.run_coroutine_threadsafe(cluster.people(stop), cluster.loop)
    try:
        eventually(lambda: cluster.answered["mv-old"] >= 8)
        promote(cluster, "mv-new")
        eventually(lambda: cluster.host.names() == {"mv-new"} and set(cluster.servers) == {"mv-new"}, timeout_s=60.0)
        so_far = cluster.answered["mv-new"]
        eventually(lambda: cluster.answered["mv-new"] >= so_far + 8)
        # And one that is served otherwise than judged leaves everything as it is.
        with pytest.raises(NotAsJudged):
            promote(cluster, "mv-bad")
        eventually(lambda: set(cluster.servers) == {"mv-new"}, timeout_s=60.0)
        so_far = cluster.answered["mv-new"]
        eventually(lambda: cluster.answered["mv-new"] >= so_far + 8)
    finally:
        cluster.loop.call_soon_threadsafe(stop.set)
        asking.result(60)
    assert cluster.failures == []
    assert set(cluster.answered) == {"mv-old", "mv-new"}
    assert cluster.host.most == 2
    assert list(cluster.store.list(f"models/{RECIPE}/replicas/")) == []


def test_promoting_over_grpc_starts_a_server_on_the_cluster_and_goes_on_when_asked_again(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All four services in one process; its embedded generator stands for the one that answers from the server."""
    monkeypatch.setattr(servicer, "PROMOTE_PATIENCE_S", 1.0)
    monkeypatch.setattr(replicas, "RENEW_S", 0.1)
    monkeypatch.setattr(bootstrap, "LOOK_INTERVAL_S", 0.1)
    kubernetes = FakeCluster(tmp_path)
    template = {"metadata": {"name": "tgi"}, "template": {"spec": {"containers": [{"name": "tgi"}]}}}
    kubernetes.write("podtemplates", template, change="ADDED")
    monkeypatch.setenv("TUNESMITH_SERVING_REPLICAS", "kubernetes")
    monkeypatch.setenv("TUNESMITH_KUBERNETES_KUBECONFIG", str(kubernetes.kubeconfig))
    models.store.delete(keys.champion(RECIPE))
    of_the_hub = replace(models.versions["mv-old"], base_fingerprint="hub:org/base")
    models.store.put(keys.model_version(RECIPE, "mv-old"), canonical_json(of_the_hub.to_json()))
    name = replica_name(RECIPE, "mv-old", KubernetesSettings())
    try:
        with session(models.world.folder / "data") as address, grpc.insecure_channel(address) as channel:
            promote = models_pb2_grpc.ModelServiceStub(channel).PromoteModel  # type: ignore[no-untyped-call]
            request = models_pb2.PromoteModelRequest(recipe=RECIPE, version="mv-old")
            with pytest.raises(grpc.RpcError, match="is not champion yet: its server is not ready"):
                promote(request, timeout=60)
            assert registry.champion(models.store, RECIPE) is None
            eventually(lambda: kubernetes.get("deployments", name))
            kubernetes.set_deployment(name, {"readyReplicas": 1})
            eventually(lambda: (w := Wishes(models.store).find(RECIPE, "mv-old")) is not None and w.state == "ready")
            assert promote(request, timeout=120).champion.version == "mv-old"
            eventually(lambda: Wishes(models.store).find(RECIPE, "mv-old") is None)
            assert kubernetes.get("deployments", name)
            refused = models_pb2.PromoteModelRequest(recipe=RECIPE, version="mv-new")
            with pytest.raises(grpc.RpcError, match=r"no server could be started with it: .* put the base on the Hub"):
                promote(refused, timeout=60)
    finally:
        kubernetes.close()
        models.store.put(keys.model_version(RECIPE, "mv-old"), canonical_json(models.versions["mv-old"].to_json()))
