"""One training in several processes: what one would learn, one outcome, and no end but a common one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from micro_job import JOB, SHARED, training_job, training_rows
from safetensors.torch import load, load_file
from torch.utils.data import DataLoader

from contract.deadline import eventually
from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain import keys
from tunesmith.domain.errors import InvalidSettings
from tunesmith.domain.events import RUN_SUCCEEDED
from tunesmith.domain.runs import TrainingSettings
from tunesmith.jobs.ranks import Rank
from tunesmith.jobs.state import JobStore
from tunesmith.jobs.worker import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_MISCONFIGURED, EXIT_OUT_OF_MEMORY
from tunesmith_trainer.torch_backend.several import summed_up
from tunesmith_trainer.torch_backend.shared_training import FilledSampler, split_batch, told_the_epoch
from tunesmith_trainer.torch_backend.training import train


@pytest.mark.heavy
def test_two_processes_then_one_then_two_each_killed_on_the_way_learn_what_one_does_and_say_so_once(
    micro_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_TRAINER_PROCESSES", "2")

    with training_job(tmp_path / "job", micro_base) as job:
        eventually(lambda: job.num_steps() > 0, timeout_s=300)
        monkeypatch.setenv("TUNESMITH_TRAINER_PROCESSES", "1")  # of the next attempt
        job.kill(0, after_step=14)
        eventually(lambda: (job.state().attempt, job.state().phase) == (2, "running"))
        monkeypatch.setenv("TUNESMITH_TRAINER_PROCESSES", "2")
        eventually(lambda: job.num_steps() > 24, timeout_s=300)
        assert job.process(1) is None
        job.kill(None, after_step=34)
        eventually(lambda: job.state().is_terminal, timeout_s=300)
        ended = job.state()
        eventually(lambda: not job.state().outbox)
        events = job.events()
        eventually(lambda: job.process(0) is None and job.process(1) is None)

    alone = train(
        micro_base,
        training_rows("train"),
        training_rows("validation"),
        settings=SHARED,
        work_folder=tmp_path / "alone",
        base_name=str(micro_base),
    )
    assert (ended.phase, ended.attempt, ended.failures) == ("succeeded", 3, 0), ended.error
    assert events == [RUN_SUCCEEDED]
    run = job.request
    curve = [json.loads(line) for line in job.store.get(keys.run_metrics(run.recipe, run.run_id)).data.splitlines()]
    expected = [json.loads(line) for line in alone.metrics_path.read_text().splitlines()]
    for name in ("train_loss", "validation_loss", "learning_rate", "epoch"):
        assert [row[name] for row in curve] == [pytest.approx(row[name], abs=1e-4) for row in expected], name
    prefix = keys.adapter(run.recipe, run.run_id)
    weights = load(job.store.get(f"{prefix}adapter_model.safetensors").data)
    for name, weight in load_file(alone.adapter_folder / "adapter_model.safetensors").items():
        assert (weights[name] - weight).norm() <= 1e-3 * weight.norm(), name


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "processes", "shared"),
    [(16, 1, 4, (16, 1)), (4, 3, 2, (4, 3)), (4, 4, 8, (16, 1)), (2, 12, 8, (8, 3)), (6, 2, 4, (12, 1))],
)
def test_a_steps_rows_are_the_same_for_any_number_of_processes(batch_size, accumulation, processes, shared):
    plan = split_batch(TrainingSettings(batch_size=batch_size, gradient_accumulation=accumulation), processes)

    assert (plan.batch_size, plan.gradient_accumulation) == shared
    assert plan.batch_size * plan.gradient_accumulation == batch_size * accumulation
    assert plan.batch_size // processes <= batch_size


def test_a_resumption_within_an_epoch_goes_on_in_that_epochs_order():
    def batches(*, skipped: int) -> list[list[int]]:
        rows = DataLoader(range(12), batch_size=2, sampler=FilledSampler(11, 12, seed=7))
        loader = told_the_epoch(prepare_data_loader(rows, num_processes=2, process_index=1, put_on_device=False))
        if skipped:
            loader = skip_first_batches(loader, skipped)
        loader.set_epoch(3)
        return [batch.tolist() for batch in loader]

    assert batches(skipped=1) == batches(skipped=0)[1:]


def test_a_batch_that_cannot_be_shared_is_refused_with_the_fix():
    with pytest.raises(InvalidSettings, match=r"batch_size=4 x gradient_accumulation=1 .* multiple of 3"):
        split_batch(replace(SHARED, batch_size=4), 3)


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ((-9, EXIT_INTERRUPTED), EXIT_INTERRUPTED),
        ((EXIT_INTERRUPTED, 1), 1),
        ((EXIT_INTERRUPTED, EXIT_OUT_OF_MEMORY), EXIT_OUT_OF_MEMORY),
        ((EXIT_FAILED, 1, -15), EXIT_FAILED),
        ((-15, EXIT_MISCONFIGURED, 1), EXIT_MISCONFIGURED),
        ((-11,), EXIT_INTERRUPTED),
    ],
)
def test_the_exit_code_is_that_of_the_process_the_others_followed(codes, told):
    assert summed_up(codes) == told


def test_what_only_one_process_may_do_is_refused_to_several(tmp_path: Path) -> None:
    jobs = JobStore(LocalStore(tmp_path / "store"), SystemClock())
    jobs.submit(job_id=JOB, kind="judge", service="trainer", request={})
    env = {"TUNESMITH_DATA": str(tmp_path), "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "PATH": "/usr/bin:/bin"}

    done = subprocess.run(
        [sys.executable, "-m", "tunesmith_trainer", "work", JOB, "0"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == EXIT_MISCONFIGURED
    assert "a judge job is one process's work" in done.stderr


def test_a_process_knows_its_number_and_one_that_cannot_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Rank.of_this_process().is_alone
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert Rank.of_this_process() == Rank(3, 4, 1)
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(InvalidSettings, match="RANK='4', WORLD_SIZE='4'"):
        Rank.of_this_process()
