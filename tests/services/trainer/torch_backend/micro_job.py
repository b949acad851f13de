"""A training job as a server has it: dataset in a store, reconciler, and worker processes of the real command."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from micro_training import MICRO_TRAINING, NAMES, STOP

from contract.deadline import eventually
from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.sqlite_bus import SqliteBus
from tunesmith.adapters.subprocess_launcher import SubprocessLauncher
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain import keys
from tunesmith.domain.datasets import CurationSettings, Dataset
from tunesmith.domain.examples import SPLITS, Example, Split
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.jobs import Job
from tunesmith.domain.runs import TrainingSettings
from tunesmith.jobs.hosts import Hosts
from tunesmith.jobs.reconciler import JobKind, Reconciler
from tunesmith.jobs.state import JobStore
from tunesmith_trainer.bases import base_fingerprint
from tunesmith_trainer.handlers import TuneRequest
from tunesmith_trainer.torch_backend.rows import TrainingRow

RECIPE, DATASET, JOB = "micro_genre", "ds-1", "j-1"
ROWS: dict[Split, tuple[str, ...]] = {"train": NAMES[:61], "validation": NAMES[61:76], "test": NAMES[76:]}
"""Numbers of rows that neither a batch nor two processes share evenly."""
SHARED = replace(MICRO_TRAINING, adapter_dropout=0.0)


@dataclass
class TrainingJob:
    """One job, and what looks after it."""

    store: LocalStore
    bus: SqliteBus
    jobs: JobStore
    request: TuneRequest
    work_folder: Path

    def state(self) -> Job:
        return self.jobs.get(JOB)

    def events(self) -> list[str]:
        """Types of all events about the job."""
        subscription = self.bus.subscribe("reader", ["tunesmith.trainer"])
        try:
            found = subscription.poll(timeout_s=1.0, max_messages=100)
            return [message.event.type for message in found if message.event and message.event.subject == JOB]
        finally:
            subscription.close()

    def num_steps(self) -> int:
        path = self.work_folder / "metrics.jsonl"
        return path.read_text().count('"train_loss": ') if path.exists() else 0

    def process(self, rank: int | None) -> int | None:
        """The process id of a rank of the attempt under way; None for the one that is alone, or starts the others."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                env = (entry / "environ").read_bytes().split(b"\0")
                ranks = [int(pair.removeprefix(b"RANK=")) for pair in env if pair.startswith(b"RANK=")]
                if JOB.encode() in words and ranks == ([] if rank is None else [rank]):
                    return int(entry.name)
            except OSError:
                continue
        return None

    def kill(self, rank: int | None, *, after_step: int) -> None:
        """SIGKILL that process once the training is past a step."""
        eventually(lambda: self.num_steps() > after_step, timeout_s=300)
        process = self.process(rank)
        assert process is not None
        os.kill(process, signal.SIGKILL)


@contextmanager
def training_job(data: Path, base: Path, settings: TrainingSettings = SHARED) -> Iterator[TrainingJob]:
    """A job that a reconciler launches on `data`."""
    store, clock = LocalStore(data / "store"), SystemClock()
    _put_dataset(store)
    bus, launcher = SqliteBus(data / "bus.sqlite", clock=clock), SubprocessLauncher(data / "launches")
    bus.ensure_topics(["tunesmith.trainer"])
    jobs = JobStore(store, clock)
    argv = (sys.executable, "-m", "tunesmith_trainer", "work")
    reconciler = Reconciler(
        jobs=jobs,
        bus=bus,
        launcher=launcher,
        clock=clock,
        kinds={"tune": JobKind(argv, slot="model", max_parallel=1, shrinks=True)},
        worker_env={"TUNESMITH_DATA": str(data), "TUNESMITH_LOG_FORMAT": "text", "GOMP_SPINCOUNT": "3000"},
        hosts=Hosts(store, clock, host=launcher.scope, services=["trainer"]),
    )
    request = TuneRequest(RECIPE, DATASET, str(base), base_fingerprint(str(base)), settings, "none")
    request = TuneRequest.from_json(request.to_json())
    jobs.submit(job_id=JOB, kind="tune", service="trainer", request=request.to_json())
    reconciler.start()
    try:
        yield TrainingJob(store, bus, jobs, request, data / "runs" / request.run_id)
    finally:
        reconciler.stop()
        reconciler.stop_workers(grace_s=10)
        bus.close()


def _put_dataset(store: LocalStore) -> None:
    shards, hashes = {}, {}
    for split in SPLITS:
        examples = (Example(f"ex-{x}", f"{i}->", f"{x}{STOP}", x, (f"rec-{x}",), {}) for i, x in enumerate(ROWS[split]))
        data = b"".join(canonical_json(example.to_json()) + b"\n" for example in examples)
        shards[split] = keys.dataset_shard(RECIPE, DATASET, split)
        hashes[split] = hashlib.sha256(data).hexdigest()
        store.put(shards[split], data)
    sizes = {split: len(ROWS[split]) for split in SPLITS}
    dataset = Dataset(
        DATASET, RECIPE, shards, hashes, sizes, sum(sizes.values()), {}, {}, CurationSettings().to_json(),
        (), {}, "2026-11-21T10:00:00.000000Z",
    )  # fmt: skip
    store.put(keys.dataset(RECIPE, DATASET), canonical_json(dataset.to_json()))


def training_rows(split: Split) -> list[TrainingRow]:
    """The rows of the job's dataset, as a training gets them."""
    return [TrainingRow(f"{i}->", f"{name}{STOP}") for i, name in enumerate(ROWS[split])]
