"""What must not change the adapter: being killed, a torn checkpoint, being asked to stop, less memory."""

import json
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import micro_training
import pytest
import torch
from micro_training import MICRO_TRAINING, micro_train
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from tunesmith.domain.errors import Interrupted, InvalidInput, ResourceExhausted
from tunesmith_trainer.torch_backend.checkpoints import newest_intact
from tunesmith_trainer.torch_backend.training import TrainingOutcome

pytestmark = pytest.mark.heavy


def test_a_run_killed_at_a_random_step_gives_the_identical_adapter(
    micro_base: Path, undisturbed: TrainingOutcome, tmp_path: Path
) -> None:
    kill_after = random.randrange(3, undisturbed.num_steps - 1)
    metrics = tmp_path / "metrics.jsonl"
    with subprocess.Popen([sys.executable, micro_training.__file__, str(micro_base), str(tmp_path)]) as child:
        while child.poll() is None and _num_steps(metrics) < kill_after:
            time.sleep(0.005)
        child.kill()

    resumed = micro_train(micro_base, tmp_path)

    assert resumed.adapter_hash == undisturbed.adapter_hash, f"killed after step {kill_after}"
    assert _steps(metrics) == _steps(undisturbed.metrics_path)


def test_two_runs_give_the_identical_adapter_folder(
    micro_base: Path, undisturbed: TrainingOutcome, tmp_path: Path
) -> None:
    again = micro_train(micro_base, tmp_path)

    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (again.adapter_folder / name).read_bytes() == (undisturbed.adapter_folder / name).read_bytes()


def test_a_torn_newest_checkpoint_is_skipped(micro_base: Path, undisturbed: TrainingOutcome, tmp_path: Path) -> None:
    stops = iter([False] * 9)
    with pytest.raises(Interrupted, match="step 10 of"):
        micro_train(micro_base, tmp_path, should_stop=lambda: next(stops, True))
    newest = newest_intact(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.name == "checkpoint-10"
    optimizer = newest / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-100])

    resumed = micro_train(micro_base, tmp_path)

    assert resumed.adapter_hash == undisturbed.adapter_hash


def test_memory_running_out_halves_the_batch_and_doubles_accumulation(micro_base: Path, tmp_path: Path) -> None:
    outcome = micro_train(micro_base, tmp_path, extra_callbacks=[_OutOfMemoryAbove(batch_size=2, from_step=5)])

    assert outcome.batch_size == 2
    assert outcome.num_steps == max(_steps(outcome.metrics_path))


def test_memory_running_out_at_batch_size_one_says_what_to_lower(micro_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ResourceExhausted, match="lower max_length"):
        micro_train(micro_base, tmp_path, extra_callbacks=[_OutOfMemoryAbove(batch_size=0, from_step=0)])


def test_a_loss_that_is_not_a_number_stops_the_run(micro_base: Path, tmp_path: Path) -> None:
    poisoned = shutil.copytree(micro_base, tmp_path / "poisoned")
    weights = load_file(poisoned / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(InvalidInput, match=r"loss became nan at step 1 .*lower the learning rate"):
        micro_train(poisoned, tmp_path / "run")


def test_training_stops_early_and_keeps_the_best_weights(micro_base: Path, tmp_path: Path) -> None:
    overfitting = replace(MICRO_TRAINING, learning_rate=5e-2, epochs=60, early_stopping_patience=2)

    outcome = micro_train(micro_base, tmp_path, overfitting)

    rows = [json.loads(line) for line in outcome.metrics_path.read_text().splitlines()]
    measured = {row["step"]: row["validation_loss"] for row in rows if row["validation_loss"] is not None}
    assert outcome.stopped_early
    assert outcome.best_step == min(measured, key=lambda step: measured[step]) < outcome.num_steps
    assert outcome.validation_loss == min(measured.values())


class _OutOfMemoryAbove(TrainerCallback):
    """Fails as PyTorch does, while the batch is larger than `batch_size`."""

    def __init__(self, *, batch_size: int, from_step: int) -> None:
        self._batch_size = batch_size
        self._from_step = from_step

    def on_substep_end(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        self.on_step_begin(args, state, control)

    def on_step_begin(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        if args.per_device_train_batch_size > self._batch_size and state.global_step >= self._from_step:
            raise torch.OutOfMemoryError("injected")


def _num_steps(metrics: Path) -> int:
    return max(_steps(metrics), default=0)


def _steps(metrics: Path) -> list[int]:
    if not metrics.exists():
        return []
    whole_lines = metrics.read_text().rpartition("\n")[0].splitlines()
    return [json.loads(line)["step"] for line in whole_lines]
