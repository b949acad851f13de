"""Sweeps as use cases: what is refused before anything is trained, and what a killed one leaves to the next attempt."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.deadline import eventually
from contract.tiny_models import build_base
from fixtures_places import Place
from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain import keys
from tunesmith.domain.datasets import CurationSettings, Dataset
from tunesmith.domain.errors import FailedPrecondition, Interrupted, InvalidInput, NotFound
from tunesmith.domain.examples import SPLITS, Example
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.jobs import Progress
from tunesmith.recipes import recipe_named
from tunesmith_trainer.handlers import list_runs
from tunesmith_trainer.sweeps import MAX_CELLS, SweepRequest, get_sweep, list_sweeps, plan_sweep, run_sweep

RECIPE = recipe_named("micro_genre")
DATASET = "ds-1"
SIZES = {"train": 40, "validation": 12, "test": 12}
NAMES = [f"{a} {b}" for a in ("acid", "cosmic", "dust", "ember", "frozen", "ghost", "harbour", "jade")
         for b in ("jazz", "mambo", "polka", "techno", "waltz", "drone", "swing", "chant")]  # fmt: skip
MICRO = {"batch_size": 4, "eval_every_steps": 5, "save_every_steps": 5, "adapter_size": 4, "early_stopping_patience": 0}


def put_dataset(store: LocalStore, sizes: dict[str, int] = SIZES) -> None:
    """A dataset as curation leaves it."""
    names = iter(NAMES)
    shards, hashes = {}, {}
    for split in SPLITS:
        rows = [example(next(names), i) for i in range(sizes[split])]
        data = b"".join(canonical_json(row.to_json()) + b"\n" for row in rows)
        shards[split] = keys.dataset_shard(RECIPE.name, DATASET, split)
        hashes[split] = hashlib.sha256(data).hexdigest()
        store.put(shards[split], data)
    dataset = Dataset(
        DATASET, RECIPE.name, shards, hashes, sizes, sum(sizes.values()), {}, {}, CurationSettings().to_json(),
        (), {}, "2026-11-21T10:00:00.000000Z",
    )  # fmt: skip
    store.put(keys.dataset(RECIPE.name, DATASET), canonical_json(dataset.to_json()))


def example(name: str, number: int) -> Example:
    return Example(f"ex-{name}", f"{number}->", f"{name}|<stop>|", name, (f"rec-{name}",), {})


@pytest.fixture
def store(place: Place, tmp_path: Path) -> LocalStore:
    made = place.store(tmp_path)
    put_dataset(made)
    return made


def planned(store: LocalStore, *axes: tuple[str, list[Any]], **changes: Any) -> SweepRequest:
    given = {"base_model": "", "overrides": {}, "metric": "", "num_samples": 20, "dataset_id": DATASET} | changes
    return plan_sweep(
        store, RECIPE.name, given["dataset_id"], given["base_model"], given["overrides"], axes,
        metric=given["metric"], num_samples=given["num_samples"],
    )  # fmt: skip


def test_a_plan_has_everything_resolved(store: LocalStore) -> None:
    plan = planned(store, ("epochs", ["1", 2]), ("top_p", [0.9, "off"]))

    assert [(axis.name, axis.kind, axis.values) for axis in plan.axes] == [
        ("epochs", "training", (1.0, 2.0)),
        ("top_p", "generation", (0.9, "off")),
    ]
    assert plan.settings.epochs == 10
    assert SweepRequest.from_json(json.loads(canonical_json(plan.to_json()))) == plan


def test_the_metric_follows_from_the_axes_unless_it_is_named(store: LocalStore) -> None:
    assert planned(store, ("epochs", [1, 2])).metric == "bits_per_char"
    assert planned(store, ("epochs", [1, 2]), ("temperature", [1.0])).metric == "useful_share"
    assert planned(store, ("epochs", [1, 2]), metric="novel_share").metric == "novel_share"


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ([], "a sweep needs an axis"),
        ([("epoch", [1])], "axis 'epoch' is neither a training setting"),
        ([("typical_p", [0.5])], "nor a generation parameter that may vary"),
        ([("epochs", [])], "has no values"),
        ([("epochs", [1]), ("epochs", [2])], "given twice"),
        ([("epochs", [1, 1.0])], "mean the same"),
        ([("epochs", [0, 10])], "mean the same"),
        ([("adapter_size", [8, 300])], "adapter_size=300 is out of range: it must lie between 1 and 256"),
        ([("temperature", [0.0])], "temperature=0.0 must be greater than 0"),
        ([("temperature", ["hot"])], "temperature='hot' must be a number"),
        ([("top_p", [1.0])], "leave it out for 1"),
        ([("max_new_tokens", [10**9])], "max_new_tokens=1000000000 must be between 1 and 4096"),
        ([("epochs", list(range(1, 10))), ("top_k", list(range(1, 9)))], f"more cells than {MAX_CELLS} (9 x 8)"),
    ],
)
def test_a_grid_that_cannot_work_is_refused_with_what_is_wrong(store: LocalStore, axes: list, told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        planned(store, *axes)

    assert told in caught.value.message


@pytest.mark.parametrize("metric", ["nonsense", "distinct_share", "word_entropy"])
def test_a_metric_that_cells_cannot_compete_by_is_refused(store: LocalStore, metric: str) -> None:
    with pytest.raises(InvalidInput, match=r"known: .*bits_per_char.*useful_share"):
        planned(store, ("epochs", [1]), metric=metric)


def test_other_inputs_are_checked_too(store: LocalStore, place: Place, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        planned(store, ("epochs", [1]), dataset_id="ds-2")
    with pytest.raises(InvalidInput, match="between 20 and 5000"):
        planned(store, ("epochs", [1]), num_samples=3)
    put_dataset(small := place.store(tmp_path / "small"), {"train": 40, "validation": 0, "test": 0})
    with pytest.raises(FailedPrecondition, match="no validation rows"):
        planned(small, ("epochs", [1]))


@pytest.fixture(scope="module")
def micro_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base(tmp_path_factory.mktemp("base") / "micro")


def work(folder: Path, base: Path, *, report: Callable[[Progress], None], should_stop: Callable[[], bool]):
    """One attempt at a sweep of two trainings and four cells."""
    store = LocalStore(folder / "store")
    if not store.exists(keys.dataset(RECIPE.name, DATASET)):
        put_dataset(store)
    request = planned(
        store, ("epochs", [1, 2]), ("temperature", [0.7, 1.2]), base_model=str(base), overrides=MICRO
    )  # fmt: skip
    return run_sweep(
        request,
        store=store,
        clock=SystemClock(),
        scratch=folder / "scratch",
        runs_folder=folder / "runs",
        bases_folder=folder / "bases",
        keep_checkpoints=False,
        report=report,
        should_stop=should_stop,
    )


@pytest.mark.heavy
def test_a_sweep_trains_once_a_setting_and_goes_on_where_it_was_stopped_or_killed(
    micro_base: Path, tmp_path: Path
) -> None:
    quiet, _ = work(tmp_path / "quiet", micro_base, report=lambda _: None, should_stop=lambda: False)
    disturbed = tmp_path / "disturbed"

    child = subprocess.Popen(
        [sys.executable, __file__, str(disturbed), str(micro_base)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    parts = disturbed / "store" / "sweep-parts"
    eventually(lambda: len(list(parts.glob("**/*.json"))) >= 2, timeout_s=240)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("**/*.json")}
    stages: list[str] = []
    seen: list[Progress] = []

    with pytest.raises(Interrupted):
        work(disturbed, micro_base, report=seen.append, should_stop=lambda: bool(seen and seen[-1].stage == "measure"))
    sweep, reused = work(disturbed, micro_base, report=lambda p: stages.append(p.stage), should_stop=lambda: False)
    again, reused_again = work(disturbed, micro_base, report=lambda _: None, should_stop=lambda: False)

    store = LocalStore(disturbed / "store")
    assert len(list_runs(store, RECIPE.name)) == 2
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was measured is not measured again"
    assert not any(stage.startswith("training") for stage in stages), "nor trained again"
    assert replace(sweep, created_at="") == replace(quiet, created_at="")
    assert (reused, reused_again, again) == (False, True, sweep)
    assert get_sweep(store, RECIPE.name, sweep.id) == sweep == list_sweeps(store, RECIPE.name)[0]
    assert store.get(keys.sweep_page(RECIPE.name, sweep.id)).data.startswith(b"<!doctype html>")
    assert [cell.values for cell in sweep.cells] == [
        {"epochs": e, "temperature": t} for e in (1.0, 2.0) for t in (0.7, 1.2)
    ]
    losses = [cell.metrics["bits_per_char"].value for cell in sweep.cells]
    assert losses[0] == losses[1] > losses[2] == losses[3], "two passes over the rows learn more than one"
    assert sweep.num_heldout_rows == SIZES["validation"]
    assert {len(cell.samples) for cell in sweep.cells} == {20}


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]), report=lambda _: None, should_stop=lambda: False)
