"""No version becomes champion that is served otherwise than it was judged: planted faults on real engines."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from publishable import PROMPTS, build_lora, set_theta
from published_world import RECIPE, World

from contract.deadline import eventually
from doubles.fake_clock import FakeClock
from tunesmith.adapters.generator_serving import GeneratorServing
from tunesmith.domain import keys
from tunesmith.domain.errors import FailedPrecondition, Interrupted, NotFound, TunesmithError, Unavailable
from tunesmith.domain.models import ModelVersion, Report
from tunesmith.domain.parity import NotAsJudged, Probes, ServedAnswers, ServedToken
from tunesmith.embedded import session
from tunesmith.ports.language_model import Adapter
from tunesmith.ports.serving import ServingBackend
from tunesmith_generator.handlers import Serving
from tunesmith_generator.known import KnownAnswers
from tunesmith_generator.parity import answer_probes
from tunesmith_generator.reload import ModelTable
from tunesmith_generator.runners.embedded import EmbeddedRunner
from tunesmith_generator.runners.exchange import EngineSettings
from tunesmith_trainer import registry
from tunesmith_trainer.evaluation.checked_page import with_check
from tunesmith_trainer.messages import report_message
from tunesmith_trainer.parity import ParityGate, find_check
from tunesmith_trainer.torch_backend.loading import load_model
from tunesmith_trainer.torch_backend.merging import save_merged
from tunesmith_trainer.torch_backend.probing import make_probes

NUM_TOKENS = 16


class Judged:
    """A world whose version was judged with probes."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.store = self.world.store
        self.clock = FakeClock()
        loaded = load_model(self.world.base, adapter=folder / "adapter", dtype="float32")
        self.probes = make_probes(
            loaded.model, loaded.tokenizer, list(PROMPTS), max_new_tokens=NUM_TOKENS, stop=("|<stop>|",)
        )
        self.version = self.with_probes("mv-judged", self.probes)

    def with_probes(self, name: str, probes: Probes | None) -> ModelVersion:
        version = self.world.put_version(name, passed=True)
        report = registry.get_report(self.store, RECIPE, version.report_id)
        self.store.put(
            keys.report(RECIPE, report.id), registry.canonical_json(replace(report, probes=probes).to_json())
        )
        return version

    def promote(self, backend: ServingBackend | None, *, version: ModelVersion | None = None, **gate: object) -> None:
        parity = ParityGate(
            store=self.store,
            clock=self.clock,
            backend=backend,
            patience_s=60.0,
            **gate,  # type: ignore[arg-type]
        )
        registry.promote(
            self.store,
            self.clock,
            RECIPE,
            (version or self.version).id,
            cause="test",
            expected=None,
            served_as_judged=parity.require,
        )

    def champion(self) -> str:
        found = registry.champion(self.store, RECIPE)
        return found.version if found else ""

    def detail(self, version: ModelVersion | None = None) -> str:
        check = find_check(self.store, RECIPE, (version or self.version).id)
        assert check is not None
        return check.detail


class MergedFolder(EmbeddedRunner):
    """The embedded engine as a server that was started with one merged model, whatever it is asked for."""

    async def load(self, adapter: Adapter) -> None:
        await super().load(Adapter(adapter.name, "", "", "merged", "merged"))


class Engine:
    """A ServingBackend over an engine of this process, that serves what lies in `folder`."""

    def __init__(self, judged: Judged, folder: Path, *, merged: bool) -> None:
        self._judged, self._folder, self._kind = judged, folder, MergedFolder if merged else EmbeddedRunner

    def answer_probes(self, recipe: str, version: str, probes: Probes, *, timeout_s: float) -> ServedAnswers:
        return asyncio.run(self._answer(recipe, version, probes))

    async def _answer(self, recipe: str, version: str, probes: Probes) -> ServedAnswers:
        store = self._judged.store
        runner = self._kind(
            store,
            resolve_base=lambda _name, _fingerprint: self._folder,
            cache_dir=self._judged.world.folder / "engine",
            settings=EngineSettings(device="cpu", num_threads=1),
        )
        table = ModelTable(store, runner, FakeClock(), recipes=(RECIPE,), max_loaded_adapters=2)
        serving = Serving(table, runner, KnownAnswers(store), max_new_tokens_limit=1024, concurrency=8)
        try:
            answered = await answer_probes(
                recipe,
                version,
                [probe.prompt for probe in probes.probes],
                max_new_tokens=probes.max_new_tokens,
                stop=probes.stop,
                serving=serving,
            )
        finally:
            await table.close()
            await runner.close()
        tokens = tuple(tuple(ServedToken(t.id, t.text, t.logprob) for t in row) for row in answered.tokens)
        return ServedAnswers(tokens, answered.adapter_hash, "engine", "float32")


@pytest.fixture(scope="module")
def judged_once(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return Judged(tmp_path_factory.mktemp("judged"))


@pytest.fixture
def judged(judged_once: Judged) -> Judged:
    """With no champion and the adapter's own bytes, whatever another test did."""
    world, store = judged_once.world, judged_once.store
    for key in (keys.champion(RECIPE), *(info.key for info in list(store.list(f"models/{RECIPE}/parity/")))):
        store.delete(key)
    weights = world.folder / "adapter" / "adapter_model.safetensors"
    store.put_file(world.adapter_key + weights.name, weights)
    world.adapter_hash = judged_once.version.adapter_hash
    return judged_once


@pytest.fixture(scope="module")
def merged_once(judged_once: Judged) -> Path:
    folder = judged_once.world.folder
    save_merged(judged_once.world.base, folder / "adapter", folder / "merged")
    return folder / "merged"


@pytest.fixture
def merged(merged_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(merged_once, tmp_path / "merged"))


@pytest.mark.heavy
def test_the_generator_of_a_running_server_agrees_over_grpc(judged: Judged) -> None:
    with session(judged.world.folder / "data") as address:
        generator = GeneratorServing(lambda: address)
        assert not generator.is_used(RECIPE, "mv-judged")
        judged.promote(generator)
        eventually(lambda: generator.is_used(RECIPE, "mv-judged"))
        assert not generator.is_used(RECIPE, "mv-passed")
        assert not generator.is_used("lyrics", "mv-judged")
    with pytest.raises(Unavailable):
        generator.is_used(RECIPE, "mv-judged")
    assert judged.champion() == "mv-judged"
    assert judged.detail().startswith(f"served = judged: {len(PROMPTS)} of {len(PROMPTS)} prompts, largest difference ")
    check = find_check(judged.store, RECIPE, "mv-judged")
    assert check is not None
    assert check.num_compared == check.num_tokens == sum(len(probe.tokens) for probe in judged.probes.probes)
    assert check.largest_difference < check.tolerance / 10, "the noise lies far within"


def test_a_merged_model_agrees(judged: Judged, merged: Path) -> None:
    judged.promote(Engine(judged, merged, merged=True))
    assert judged.champion() == "mv-judged"


def test_a_merged_model_with_a_wrong_rope_theta_is_refused(judged: Judged, merged: Path) -> None:
    set_theta(merged, 10_000.0)
    with pytest.raises(NotAsJudged, match=r"mv-judged may not become champion: .*prompt 1 .*token \d+: expected "):
        judged.promote(Engine(judged, merged, merged=True))
    assert judged.champion() == ""


@pytest.mark.parametrize("theta", [900_000.0, 1_100_000.0])
def test_even_a_rope_theta_that_is_off_by_a_tenth_is_refused(judged: Judged, merged: Path, theta: float) -> None:
    set_theta(merged, theta)
    with pytest.raises(NotAsJudged):
        judged.promote(Engine(judged, merged, merged=True))


def test_a_refusal_is_a_failed_gate_of_the_report_and_stands_on_its_page(judged: Judged, merged: Path) -> None:
    set_theta(merged, 10_000.0)
    with pytest.raises(NotAsJudged):
        judged.promote(Engine(judged, merged, merged=True))
    check = find_check(judged.store, RECIPE, "mv-judged")
    assert check is not None
    report = report_message(registry.get_report(judged.store, RECIPE, judged.version.report_id), check)
    assert not report.passed
    assert [(gate.name, gate.passed, gate.detail) for gate in report.gates][-1] == ("parity", False, check.detail)
    page = with_check(b"<p>drawn</p><!--served--><p>more</p>", check).decode()
    assert page.startswith('<p>drawn</p><p class="detail"><span class="badge bad">')
    assert "what is served is not what was judged: prompt 1" in page


def test_an_adapter_of_other_bytes_is_refused(judged: Judged, tmp_path: Path) -> None:
    other = build_lora(judged.world.base, tmp_path / "other-adapter", seed=7)
    judged.store.put_file(judged.world.adapter_key + "adapter_model.safetensors", other / "adapter_model.safetensors")
    with pytest.raises(NotAsJudged, match="adapter mv-judged is corrupt"):
        judged.promote(Engine(judged, judged.world.base, merged=False))
    assert judged.champion() == ""


def test_an_adapter_that_was_exchanged_with_its_hash_is_refused_by_its_answers(judged: Judged, tmp_path: Path) -> None:
    other = build_lora(judged.world.base, tmp_path / "other-adapter", seed=7) / "adapter_model.safetensors"
    judged.store.put_file(judged.world.adapter_key + "adapter_model.safetensors", other)
    judged.world.adapter_hash = hashlib.sha256(other.read_bytes()).hexdigest()
    version = judged.with_probes("mv-exchanged", judged.probes)
    with pytest.raises(NotAsJudged, match="prompt 1 "):
        judged.promote(Engine(judged, judged.world.base, merged=False), version=version)


class Absent:
    """A backend that does not answer, or not before it was asked `times` times."""

    def __init__(self, error: TunesmithError, *, then: ServingBackend | None = None, times: int = 10**9) -> None:
        self.error, self.then, self.times, self.asked = error, then, times, 0

    def answer_probes(self, recipe: str, version: str, probes: Probes, *, timeout_s: float) -> ServedAnswers:
        self.asked += 1
        if self.asked <= self.times:
            raise self.error
        assert self.then is not None
        return self.then.answer_probes(recipe, version, probes, timeout_s=timeout_s)


@pytest.fixture
def judges_own(judged: Judged) -> ServingBackend:
    """Answers with the judge's own tokens."""

    class Own:
        def answer_probes(self, recipe: str, version: str, probes: Probes, *, timeout_s: float) -> ServedAnswers:
            rows = tuple(tuple(ServedToken(t.id, t.text, t.logprob) for t in p.tokens) for p in probes.probes)
            return ServedAnswers(rows, judged.world.adapter_hash, "own", "float32")

    return Own()


def test_a_generator_that_starts_is_waited_for(judged: Judged, judges_own: ServingBackend) -> None:
    starting = Absent(Unavailable("nobody listens"), then=judges_own, times=5)
    told: list[str] = []
    judged.promote(starting, waiting=told.append)
    assert judged.champion() == "mv-judged"
    assert told == ["nobody listens"] * 5


def test_a_replica_that_gets_the_version_later_is_waited_for(judged: Judged, judges_own: ServingBackend) -> None:
    judged.promote(Absent(NotFound("adapter mv-judged is not served here"), then=judges_own, times=3))
    assert judged.champion() == "mv-judged"


def test_a_generator_that_never_answers_ends_the_wait_with_the_fix(judged: Judged) -> None:
    gone = Absent(Unavailable("nobody listens"))
    with pytest.raises(Unavailable, match=r"within 60 s \(nobody listens\); start it.*tunesmith promote") as raised:
        judged.promote(gone)
    assert raised.value.reason == "SERVING_UNAVAILABLE"
    assert judged.champion() == ""
    assert 5 < gone.asked < 40


def test_a_worker_that_is_asked_to_stop_stops_waiting(judged: Judged) -> None:
    with pytest.raises(Interrupted):
        judged.promote(Absent(Unavailable("nobody listens")), should_stop=lambda: True)


def test_where_it_is_switched_off_that_is_what_is_kept(judged: Judged) -> None:
    judged.promote(None)
    assert judged.champion() == "mv-judged"
    assert judged.detail() == "not checked: TUNESMITH_SERVING=none"


def test_a_report_without_probes_has_to_be_made_again(judged: Judged, judges_own: ServingBackend) -> None:
    old = judged.with_probes("mv-old", None)
    with pytest.raises(FailedPrecondition, match=r"judge its run again \(`tunesmith judge micro_genre run-1"):
        judged.promote(judges_own, version=old)
    assert judged.champion() == ""


def test_promoting_again_after_a_crash_between_check_and_alias_is_harmless(
    judged: Judged, judges_own: ServingBackend
) -> None:
    def crash(version: ModelVersion, report: Report) -> None:
        ParityGate(judged.store, judged.clock, judges_own, patience_s=1.0).require(version, report)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.promote(
            judged.store, judged.clock, RECIPE, "mv-judged", cause="test", expected=None, served_as_judged=crash
        )
    assert judged.champion() == ""
    judged.promote(judges_own)
    judged.promote(Absent(Unavailable("not asked for the champion itself")))
    assert judged.champion() == "mv-judged"
    champion = registry.champion(judged.store, RECIPE)
    assert champion is not None
    assert champion.rev == 1


def test_the_judges_noise_is_measured_and_half_precision_is_noisier(judged: Judged) -> None:
    assert 0 < judged.probes.noise < 1e-4
    assert judged.probes.half_noise > 10 * judged.probes.noise
