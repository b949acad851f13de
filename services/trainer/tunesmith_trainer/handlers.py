"""Use cases of the trainer: curate, tune, judge and promote. Each can die at any instant and be called again."""

from __future__ import annotations

import fcntl
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.catalogue import list_objects, read_object
from tunesmith.domain import keys
from tunesmith.domain.datasets import CurationSettings, Dataset
from tunesmith.domain.errors import AlreadyExists, Conflict, FailedPrecondition, Interrupted, InvalidInput
from tunesmith.domain.examples import Example, Split
from tunesmith.domain.ids import canonical_json, content_id
from tunesmith.domain.jobs import Progress, ProgressReporter
from tunesmith.domain.models import Champion, ModelVersion, Report
from tunesmith.domain.parity import NotAsJudged, ParityCheck
from tunesmith.domain.records import Collection
from tunesmith.domain.runs import FollowUp, Run, TrainingProgress, TrainingSettings
from tunesmith.jobs.ranks import Rank
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.store import Store
from tunesmith.recipes import recipe_named
from tunesmith.recipes.base import Recipe
from tunesmith.stored_collections import read_collection
from tunesmith_trainer import registry
from tunesmith_trainer.bases import answers_seen_by_base, base_fingerprint, fetch_base, publish_base
from tunesmith_trainer.catalogues import reference_of
from tunesmith_trainer.curation.load import iterate_examples, load_dataset_manifest, rows_path
from tunesmith_trainer.parity import MAX_PROBE_TOKENS, ParityGate, probe_prompts
from tunesmith_trainer.peers import Peers, joined
from tunesmith_trainer.torch_backend.builtin import BUILTIN_BASES

if TYPE_CHECKING:
    from tunesmith_trainer.shared_checkpoints import SharedCheckpoints
    from tunesmith_trainer.torch_backend.rows import TrainingRow

RUN_VERSION = 1
"""Part of every run's identity; raised when the same inputs would give another adapter."""

ALONE = Rank()

LOCK_POLL_S = 0.2

_MAKERS = {"captions": "CaptionClips, `tunesmith caption`", "pairs": "WritePairs, `tunesmith write`"}
"""Who adds what a recipe needs."""

TRAINING_SPLITS: tuple[Split, Split] = ("train", "validation")
"""What a training may see; `test` is the judge's."""


@dataclass(frozen=True, slots=True)
class CurateRequest:
    """Which collections to make a dataset of, and how."""

    recipe: str
    collection_ids: tuple[str, ...]
    settings: CurationSettings

    def to_json(self) -> dict[str, Any]:
        """The request as it is kept in a job."""
        return {
            "recipe": self.recipe,
            "collection_ids": list(self.collection_ids),
            "settings": self.settings.to_json(),
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> CurateRequest:
        """The inverse of `to_json`."""
        return CurateRequest(row["recipe"], tuple(row["collection_ids"]), CurationSettings.from_json(row["settings"]))


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """One training, and what follows when it succeeds."""

    recipe: str
    dataset_id: str
    base_model: str
    base_fingerprint: str
    settings: TrainingSettings
    follow_up: FollowUp

    @property
    def run_id(self) -> str:
        """The same dataset, base and settings are the same run, whatever follows it."""
        return content_id(
            "run", [RUN_VERSION, self.recipe, self.dataset_id, self.base_fingerprint, self.settings.to_json()]
        )

    def to_json(self) -> dict[str, Any]:
        """The request as it is kept in a job."""
        return {
            "recipe": self.recipe,
            "dataset_id": self.dataset_id,
            "base_model": self.base_model,
            "base_fingerprint": self.base_fingerprint,
            "settings": self.settings.to_json(),
            "follow_up": self.follow_up,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> TuneRequest:
        """The inverse of `to_json`."""
        return TuneRequest(
            recipe=row["recipe"],
            dataset_id=row["dataset_id"],
            base_model=row["base_model"],
            base_fingerprint=row["base_fingerprint"],
            settings=TrainingSettings.from_json(row["settings"]),
            follow_up=row["follow_up"],
        )


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """Which run to judge, and whether to promote it when it passes."""

    recipe: str
    run_id: str
    promote: bool

    def to_json(self) -> dict[str, Any]:
        """The request as it is kept in a job."""
        return {"recipe": self.recipe, "run_id": self.run_id, "promote": self.promote}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> JudgeRequest:
        """The inverse of `to_json`."""
        return JudgeRequest(row["recipe"], row["run_id"], bool(row["promote"]))


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcome of a judgement."""

    version: ModelVersion
    report: Report
    champion: Champion | None
    """The alias after promotion; None when the version was not promoted."""
    refusal: ParityCheck | None = None
    """Why a version that passed its gates was not promoted: it is not served as it was judged."""


def plan_curation(
    store: Store, recipe_name: str, collection_ids: Sequence[str], overrides: Mapping[str, Any]
) -> CurateRequest:
    """The request with everything resolved: all collections where none is named, oldest first.

    Raises UnknownRecipe, InvalidInput for a setting, NotFound for a collection, FailedPrecondition when the recipe has
    no collection yet.
    """
    recipe = recipe_named(recipe_name)
    settings = recipe.curation.changed(overrides)
    if collection_ids:
        for collection_id in collection_ids:
            read_collection(store, recipe.name, collection_id)
        return CurateRequest(recipe.name, tuple(dict.fromkeys(collection_ids)), settings)
    found = list_objects(store, f"collections/{recipe.name}/", Collection.from_json, what="collection")
    if recipe.needs and found:
        found = [collection for collection in found if collection.derived_from]
        if not found:
            raise FailedPrecondition(
                f"recipe {recipe.name!r} has collections, but none with {recipe.needs} yet; make them first "
                f"({_MAKERS.get(recipe.needs, recipe.needs)})",
                reason="NO_DERIVED_COLLECTION",
                metadata={"recipe": recipe.name, "needs": recipe.needs},
            )
    if not found:
        raise FailedPrecondition(
            f"recipe {recipe.name!r} has no collection yet; collect one first (Collect, `tunesmith collect`)",
            reason="NO_COLLECTION",
            metadata={"recipe": recipe.name},
        )
    found.sort(key=lambda collection: (collection.created_at, collection.id))
    return CurateRequest(recipe.name, tuple(collection.id for collection in found), settings)


def plan_run(
    store: Store,
    recipe_name: str,
    dataset_id: str,
    base_model: str,
    overrides: Mapping[str, Any],
    follow_up: FollowUp,
) -> TuneRequest:
    """The request with defaults filled in. Raises UnknownRecipe, InvalidInput for a setting, NotFound for a dataset."""
    recipe = recipe_named(recipe_name)
    settings = recipe.training.changed(overrides)
    if not dataset_id:
        raise InvalidInput(
            "dataset_id is empty; name one that BuildDataset made (`tunesmith datasets`)",
            metadata={"field": "dataset_id"},
        )
    dataset = get_dataset(store, recipe.name, dataset_id)
    settings = settings.with_epochs_for(dataset.num_examples["train"], examples_shown=recipe.examples_shown)
    base = base_model or recipe.default_base_model
    return TuneRequest(recipe.name, dataset_id, base, base_fingerprint(base), settings, follow_up)


def curate(
    request: CurateRequest,
    *,
    store: Store,
    clock: Clock,
    scratch: Path,
    report: ProgressReporter,
    should_stop: Callable[[], bool],
) -> tuple[Dataset, bool]:
    """Build the dataset, or find it; the flag says that it was there. See `build_dataset` for what is raised."""
    # NumPy takes a moment to import; a server that only accepts work does without.
    from tunesmith_trainer.curation.build import build_dataset

    collections = [read_collection(store, request.recipe, collection_id) for collection_id in request.collection_ids]
    return build_dataset(
        recipe_named(request.recipe),
        collections,
        request.settings,
        store=store,
        clock=clock,
        work_dir=scratch,
        report=report,
        should_stop=should_stop,
    )


def tune(
    request: TuneRequest,
    *,
    store: Store,
    clock: Clock,
    runs_folder: Path,
    bases_folder: Path,
    keep_checkpoints: bool,
    report: ProgressReporter,
    should_stop: Callable[[], bool],
    share_checkpoints: bool = False,
    memory_kills: int = 0,
    rank: Rank = ALONE,
) -> tuple[Run, bool]:
    """Train the run's adapter and store it, or find it; the flag says that it was there.

    Checkpoints lie in `runs_folder`/run id, with `share_checkpoints` in the store as well: a later call with the same
    request continues there, and ends with the same adapter bytes. `memory_kills` counts the attempts that were killed
    for their memory: each makes the parts of a batch smaller. Two callers at once do the work once. `rank`: this is the
    first of several processes that train together, the others of which call `help_tune`. Raises BaseModelUnavailable,
    NoUsableRows, InvalidInput, InvalidSettings, ResourceExhausted, Interrupted.
    """
    run_key = keys.run(request.recipe, request.run_id)
    work = runs_folder / request.run_id
    with _only_one(work.with_suffix(".lock"), should_stop), joined(rank) as peers:
        shared = (
            _shared_checkpoints(request, store, work, lambda: should_stop() or peers.is_stopping)
            if share_checkpoints
            else None
        )
        if peers.all_know(lambda: store.exists(run_key)):
            shutil.rmtree(work, ignore_errors=True)
            if shared is not None:
                shared.remove()
            return get_run(store, request.recipe, request.run_id), True
        # Importing PyTorch takes seconds; a run that exists should not wait for it.
        from tunesmith_trainer.evaluation.leaks import trained_on
        from tunesmith_trainer.torch_backend.training import train

        report(Progress("load", message=f"loading {request.base_model}"))
        progress = _training_progress(report)
        material = _brought_here(
            request, store, work, bases_folder, shared, peers, progress=progress, should_stop=should_stop
        )
        outcome = train(
            material.base,
            material.rows("train"),
            material.rows("validation"),
            settings=request.settings,
            work_folder=work,
            base_name=request.base_model,
            progress=progress,
            should_stop=should_stop,
            on_sealed=shared.put if shared is not None else None,
            memory_kills=memory_kills,
            peers=peers,
        )
        report(Progress("store", message="storing the adapter"))
        prefix = keys.adapter(request.recipe, request.run_id)
        for path in sorted(outcome.adapter_folder.iterdir()):
            store.put_file(prefix + path.name, path)
        store.put_file(keys.run_metrics(request.recipe, request.run_id), outcome.metrics_path)
        seen = trained_on(recipe_named(request.recipe), chain.from_iterable(material.examples.values()))
        store.put(keys.run_trained_on(request.recipe, request.run_id), seen)
        run = Run(
            id=request.run_id,
            recipe=request.recipe,
            dataset_id=request.dataset_id,
            base_model=request.base_model,
            settings=request.settings.to_json(),
            adapter_key=prefix,
            adapter_hash=outcome.adapter_hash,
            base_fingerprint=request.base_fingerprint,
            metrics_key=keys.run_metrics(request.recipe, request.run_id),
            num_steps=outcome.num_steps,
            stopped_early=outcome.stopped_early,
            num_rows_dropped=outcome.num_rows_dropped,
            train_loss=outcome.train_loss,
            validation_loss=None if math.isnan(outcome.validation_loss) else outcome.validation_loss,
            created_at=rfc3339(clock.now()),
        )
        _create_once(store, run_key, run.to_json())
        if not keep_checkpoints:
            shutil.rmtree(work, ignore_errors=True)
        if shared is not None:
            shared.remove()
        return get_run(store, request.recipe, request.run_id), False


def help_tune(
    request: TuneRequest,
    *,
    store: Store,
    runs_folder: Path,
    bases_folder: Path,
    should_stop: Callable[[], bool],
    share_checkpoints: bool,
    memory_kills: int,
    rank: Rank,
) -> None:
    """Take part in the training that `tune` does in the first of several processes; stores nothing.

    Raises what `tune` raises, mostly in all processes alike, and Interrupted when one of them is gone.
    """
    work = runs_folder / request.run_id
    lock = _only_one(work.with_suffix(".lock"), should_stop) if rank.is_first_of_node else nullcontext()
    with lock, joined(rank) as peers:
        if peers.all_know(lambda: False):
            return
        from tunesmith_trainer.torch_backend.training import help_train

        shared = _shared_checkpoints(request, store, work, should_stop) if share_checkpoints else None
        material = _brought_here(request, store, work, bases_folder, shared, peers, should_stop=should_stop)
        help_train(
            material.base,
            material.rows("train"),
            material.rows("validation"),
            settings=request.settings,
            work_folder=work,
            should_stop=should_stop,
            memory_kills=memory_kills,
            peers=peers,
        )


@dataclass(frozen=True, slots=True)
class _Material:
    """What a training is made from, on this machine."""

    base: Path | str
    examples: Mapping[Split, Sequence[Example]]

    def rows(self, split: Split) -> list[TrainingRow]:
        from tunesmith_trainer.torch_backend.rows import TrainingRow

        return [TrainingRow(example.prompt, example.completion) for example in self.examples[split]]


def _brought_here(
    request: TuneRequest,
    store: Store,
    work: Path,
    bases_folder: Path,
    shared: SharedCheckpoints | None,
    peers: Peers,
    *,
    should_stop: Callable[[], bool],
    progress: Callable[[TrainingProgress], None] | None = None,
) -> _Material:
    """Base, rows and newest checkpoint on this machine, brought by one process of each; the first of all goes first.

    A Hub model is fetched when it is loaded, by whichever process holds the Hub client's lock.
    """
    from tunesmith_trainer.torch_backend.base_models import resolve_base

    dataset = get_dataset(store, request.recipe, request.dataset_id)

    def bring() -> None:
        fetch_base(store, request.base_model, bases_folder)
        base = resolve_base(request.base_model, bases_folder, progress=progress, should_stop=should_stop)
        if request.base_model in BUILTIN_BASES and peers.rank.leads:
            # Before the training, whose next attempt may run where this base is not.
            publish_base(store, Path(base), request.base_fingerprint)
        if shared is not None:
            shared.fetch()
        for split in TRAINING_SPLITS:
            rows_path(dataset, split, store=store, folder=work / "data")

    peers.once_a_node(bring)
    base = resolve_base(request.base_model, bases_folder, should_stop=should_stop)
    return _Material(
        base, {s: list(iterate_examples(dataset, s, store=store, folder=work / "data")) for s in TRAINING_SPLITS}
    )


def _shared_checkpoints(
    request: TuneRequest, store: Store, work: Path, should_stop: Callable[[], bool]
) -> SharedCheckpoints:
    from tunesmith_trainer.shared_checkpoints import SharedCheckpoints

    prefix = keys.run_checkpoints(request.recipe, request.run_id)
    return SharedCheckpoints(store, prefix, work, should_stop=should_stop)


def judge_run(
    request: JudgeRequest,
    *,
    store: Store,
    clock: Clock,
    scratch: Path,
    bases_folder: Path,
    report: ProgressReporter,
    should_stop: Callable[[], bool],
) -> Judged:
    """Measure a run's adapter against the champion and register it as a model version with its report.

    Raises what loading the models raises, and Interrupted.
    """
    recipe = recipe_named(request.recipe)
    run = get_run(store, recipe.name, request.run_id)
    current = registry.champion(store, recipe.name)
    rival = registry.get_version(store, recipe.name, current.version) if current else None
    if rival is not None and rival.run_id == run.id:
        # The champion is this very run: there is nothing to compare it with, and its report stands.
        return Judged(rival, registry.get_report(store, recipe.name, rival.report_id), current)
    version, made = _version_of(recipe, run, rival, store, clock, scratch, bases_folder, report, should_stop)
    return Judged(version, made, None)


def promote_judged(
    recipe: str,
    version_id: str,
    *,
    store: Store,
    clock: Clock,
    cause: str,
    parity: ParityGate,
    report: ProgressReporter,
) -> Judged | None:
    """Make a version that passed its gates the champion; None where it was measured against another than today's.

    `cause` is noted in the alias' history. Raises what `parity` raises when nobody can be asked, and Interrupted.
    """
    version = registry.get_version(store, recipe, version_id)
    made = registry.get_report(store, recipe, version.report_id)
    current = registry.champion(store, recipe)
    if current is not None and (cause, version.id) in ((move.cause, move.version) for move in current.history):
        # An earlier attempt moved the alias and died. What was done to it since, such as a rollback, stands.
        return Judged(version, made, current)
    report(Progress("promote", message=f"comparing what is served with what was judged: {version.id}"))
    try:
        champion, _ = registry.promote(
            store,
            clock,
            recipe,
            version.id,
            cause=cause,
            expected=made.champion_version,
            served_as_judged=parity.require,
        )
    except NotAsJudged as refused:
        report(Progress("promote", 1, 1, message=f"refused: {refused.check.detail}"))
        return Judged(version, made, None, refused.check)
    except Conflict as error:
        if error.reason != registry.CHAMPION_MOVED:
            raise
        parity.let_go(version)
        return None
    report(Progress("promote", 1, 1, message=f"{version.id} is champion"))
    return Judged(version, made, champion)


def _version_of(
    recipe: Recipe,
    run: Run,
    rival: ModelVersion | None,
    store: Store,
    clock: Clock,
    scratch: Path,
    bases_folder: Path,
    report: ProgressReporter,
    should_stop: Callable[[], bool],
) -> tuple[ModelVersion, Report]:
    """The model version of this run against this rival: found, or measured and registered."""
    from tunesmith_trainer.evaluation.judge import judge, judge_prompts, report_id

    dataset = get_dataset(store, recipe.name, run.dataset_id)
    reference = reference_of(store, dataset)
    report_name = report_id(recipe, run.id, rival.id if rival else "", reference.hash)
    version_id = content_id("mv", [run.id, report_name], length=12)
    if store.exists(keys.model_version(recipe.name, version_id)):
        return (
            registry.get_version(store, recipe.name, version_id),
            registry.get_report(store, recipe.name, report_name),
        )
    from tunesmith_trainer.evaluation.page import render_page
    from tunesmith_trainer.torch_backend.base_models import resolve_base
    from tunesmith_trainer.torch_backend.judged import load_subjects

    report(Progress("load", message="loading base, candidate" + (" and champion" if rival else "")))
    folder = scratch / f"judge-{run.id}"
    train_answers, train_keys = [], []
    for example in iterate_examples(dataset, "train", store=store, folder=folder / "data"):
        train_answers.append(example.answer)
        train_keys.append(recipe.duplicate_key(example))
    test_examples = list(iterate_examples(dataset, "test", store=store, folder=folder / "data"))
    fetch_folder(store, run.adapter_key, folder / "candidate")
    if rival is not None:
        fetch_folder(store, rival.adapter_key, folder / "champion")
    for model in {run.base_model, rival.base_model if rival is not None else run.base_model}:
        fetch_base(store, model, bases_folder)
    subjects = load_subjects(
        resolve_base(run.base_model, bases_folder),
        folder / "candidate",
        champion=folder / "champion" if rival else None,
        champion_base=resolve_base(rival.base_model, bases_folder) if rival else None,
        batch_size=recipe.judge.batch_size,
    )
    made = judge(
        recipe,
        subjects=subjects,
        train_answers=train_answers,
        train_keys=train_keys,
        trained_on=_written_down(store, keys.run_trained_on(recipe.name, run.id)),
        test_examples=test_examples,
        catalogue=reference.names,
        catalogue_hash=reference.hash,
        base_seen=answers_seen_by_base(run.base_model),
        run=run,
        model_version=version_id,
        champion_version=rival.id if rival else "",
        clock=clock,
        report=report,
        should_stop=should_stop,
    )
    shutil.rmtree(folder, ignore_errors=True)
    report(Progress("report", message="drawing the report"))
    probes = subjects["candidate"].probes(
        probe_prompts(judge_prompts(recipe, test_examples)),
        max_new_tokens=min(recipe.generation.max_new_tokens, MAX_PROBE_TOKENS),
        stop=recipe.generation.stop,
    )
    made = replace(made, probes=probes)
    metric_rows = [json.loads(line) for line in store.get(run.metrics_key).data.decode().splitlines() if line.strip()]
    page = render_page(made, dataset=dataset, run=run, metric_rows=metric_rows, train_answers=train_answers)
    # Before the report that leads to it, so that no report is without its page.
    store.put(keys.report_page(recipe.name, made.id), page)
    version = ModelVersion(
        id=version_id,
        recipe=recipe.name,
        run_id=run.id,
        dataset_id=run.dataset_id,
        base_model=run.base_model,
        base_fingerprint=run.base_fingerprint,
        adapter_key=run.adapter_key,
        adapter_hash=run.adapter_hash,
        report_id=made.id,
        passed=made.passed,
        created_at=rfc3339(clock.now()),
    )
    return registry.register(store, version, made)


def get_dataset(store: Store, recipe: str, dataset_id: str) -> Dataset:
    """A dataset's manifest; NotFound, DataLoss."""
    return load_dataset_manifest(recipe, dataset_id, store=store)


def get_run(store: Store, recipe: str, run_id: str) -> Run:
    """A run; NotFound, DataLoss."""
    return read_object(store, keys.run(recipe, run_id), Run.from_json, what=f"run {run_id!r}")


def list_datasets(store: Store, recipe: str) -> list[Dataset]:
    """A recipe's datasets, newest first."""
    found = list_objects(store, f"datasets/{recipe}/", Dataset.from_json, what="dataset", suffix="/manifest.json")
    return sorted(found, key=lambda dataset: dataset.created_at, reverse=True)


def list_runs(store: Store, recipe: str) -> list[Run]:
    """A recipe's finished runs, newest first."""
    found = list_objects(store, f"runs/{recipe}/", Run.from_json, what="run", suffix="/run.json")
    return sorted(found, key=lambda run: run.created_at, reverse=True)


def _training_progress(report: ProgressReporter) -> Callable[[TrainingProgress], None]:
    def forward(progress: TrainingProgress) -> None:
        values = {
            "train_loss": progress.train_loss,
            "validation_loss": progress.validation_loss,
            "learning_rate": progress.learning_rate,
            "tokens_per_s": progress.tokens_per_s,
            "epoch": progress.epoch,
        }
        report(
            Progress(
                progress.phase,
                done=progress.step,
                total=progress.num_steps,
                unit="steps",
                values={name: value for name, value in values.items() if value is not None and math.isfinite(value)},
            )
        )

    return forward


def _written_down(store: Store, key: str) -> frozenset[str]:
    """The lines of an object; none when a run of an older version did not write it."""
    return frozenset(store.get(key).data.decode().split()) if store.exists(key) else frozenset()


def fetch_folder(store: Store, prefix: str, folder: Path) -> None:
    """All objects of the store under `prefix` as files of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for info in list(store.list(prefix)):
        store.get_file(info.key, folder / info.key.removeprefix(prefix))


@contextmanager
def _only_one(path: Path, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Hold the lock file `path`; waits for another process that holds it, until asked to stop."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if should_stop():
                    raise Interrupted("stopped while waiting for the same run in another process") from None
                time.sleep(LOCK_POLL_S)
        yield


def _create_once(store: Store, key: str, row: Mapping[str, Any]) -> None:
    """Create an object whose content follows from its key; an earlier attempt's is as good."""
    try:
        store.create(key, canonical_json(row))
    except AlreadyExists:
        return
