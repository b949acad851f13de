"""A training that goes on where another disk is, from the store alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from micro_training import MICRO_TRAINING, micro_train

from tunesmith.adapters.local_store import LocalStore
from tunesmith.domain.errors import Interrupted, Unavailable
from tunesmith_trainer.shared_checkpoints import KEPT, SharedCheckpoints
from tunesmith_trainer.torch_backend.training import TrainingOutcome

PREFIX = "runs/r/run-1/checkpoints/"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def shared(store: LocalStore, work: Path) -> SharedCheckpoints:
    work.mkdir(exist_ok=True)
    # Asked to stop all the time, it stores every checkpoint, however slow the machine is.
    return SharedCheckpoints(store, PREFIX, work, should_stop=lambda: True)


def interrupted_after(steps: int, base: Path, store: LocalStore, work: Path) -> None:
    checkpoints = shared(store, work)
    checkpoints.fetch()
    stops = iter([False] * (steps - 1))
    with pytest.raises(Interrupted):
        micro_train(base, work, should_stop=lambda: next(stops, True), on_sealed=checkpoints.put)


def manifests(store: LocalStore) -> list[str]:
    return [info.key for info in store.list(PREFIX) if info.key.endswith(".json")]


@pytest.mark.heavy
def test_every_attempt_on_another_disk_gives_the_identical_adapter(
    micro_base: Path, undisturbed: TrainingOutcome, store: LocalStore, tmp_path: Path
) -> None:
    interrupted_after(5, micro_base, store, tmp_path / "node1")
    interrupted_after(6, micro_base, store, tmp_path / "node2")

    last = shared(store, tmp_path / "node3")
    assert last.fetch() == 11
    outcome = micro_train(micro_base, tmp_path / "node3", on_sealed=last.put)

    assert outcome.adapter_hash == undisturbed.adapter_hash
    assert outcome.metrics_path.read_text().count("\n") == undisturbed.metrics_path.read_text().count("\n")
    assert len(manifests(store)) == KEPT
    last.remove()
    assert list(store.list(PREFIX)) == []


@pytest.mark.heavy
def test_a_checkpoint_that_is_not_whole_is_passed_over_for_the_one_before(
    micro_base: Path, undisturbed: TrainingOutcome, store: LocalStore, tmp_path: Path
) -> None:
    interrupted_after(9, micro_base, store, tmp_path / "node1")
    newest, older = shared(store, tmp_path)._read(manifests(store)[-1]), manifests(store)[0]
    torn = set(newest.values()) - set(shared(store, tmp_path)._read(older).values())
    store.put(f"{PREFIX}files/{min(torn)}", b"half of it")

    second = shared(store, tmp_path / "node2")
    assert second.fetch() == 8
    assert micro_train(micro_base, tmp_path / "node2").adapter_hash == undisturbed.adapter_hash


def test_what_is_here_and_later_is_kept(store: LocalStore, tmp_path: Path) -> None:
    shared(store, tmp_path / "a").put(checkpoint(tmp_path / "a", 4))
    checkpoint(tmp_path / "b", 8)

    assert shared(store, tmp_path / "b").fetch() == 0
    assert (tmp_path / "b/checkpoints/checkpoint-8").is_dir()
    assert shared(store, tmp_path / "c").fetch() == 4


def test_the_best_checkpoint_travels_with_the_newest(store: LocalStore, tmp_path: Path) -> None:
    checkpoint(tmp_path / "a", 4)
    shared(store, tmp_path / "a").put(checkpoint(tmp_path / "a", 8, best=4))

    shared(store, tmp_path / "b").fetch()

    assert sorted(p.name for p in (tmp_path / "b/checkpoints").iterdir()) == ["checkpoint-4", "checkpoint-8"]


def test_a_manifest_cannot_write_outside_of_the_training(store: LocalStore, tmp_path: Path) -> None:
    shared(store, tmp_path / "a").put(checkpoint(tmp_path / "a", 4))
    [key] = manifests(store)
    store.put(key, store.get(key).data.replace(b"checkpoints/checkpoint-4/weights", b"checkpoints/../../weights"))

    assert shared(store, tmp_path / "b").fetch() == 0
    assert not (tmp_path / "weights").exists()


def test_a_store_that_does_not_answer_does_not_end_a_training(store: LocalStore, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise Unavailable("no store")

    monkeypatch.setattr(store, "put_file", refuse)

    shared(store, tmp_path / "a").put(checkpoint(tmp_path / "a", 4))

    assert manifests(store) == []


@pytest.mark.heavy
def test_a_killed_attempt_is_followed_by_one_with_smaller_batches_and_the_same_steps(
    micro_base: Path, tmp_path: Path
) -> None:
    settings = replace(MICRO_TRAINING, adapter_dropout=0.0, batch_size=6, epochs=2)

    whole = micro_train(micro_base, tmp_path / "whole", settings)
    parts = micro_train(micro_base, tmp_path / "parts", settings, memory_kills=2)

    assert (whole.batch_size, parts.batch_size) == (6, 1)
    assert parts.num_steps == whole.num_steps
    assert parts.train_loss == pytest.approx(whole.train_loss, rel=1e-3), "each step learned from the same rows"


def checkpoint(work: Path, step: int, *, best: int = 0) -> Path:
    """A checkpoint that is sealed, but was never trained."""
    from tunesmith_trainer.torch_backend.checkpoints import seal

    folder = work / "checkpoints" / f"checkpoint-{step}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "weights").write_text(f"weights of {step}")
    (folder / "trainer_state.json").write_text(f'{{"best_global_step": {best or step}}}')
    seal(folder)
    return folder
