"""Use cases of sweeps: plan a grid, train and measure it, choose a cell. Can die anywhere and be called again.

Cells are compared on the validation rows; the test rows stay unseen until the judge measures what was chosen, so that
choosing among many does not flatter the report. Trainings are ordinary runs, shared with everyone who asks for the same
settings; each measurement is stored as soon as it is made.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.catalogue import list_objects, read_object
from tunesmith.domain import keys
from tunesmith.domain.errors import AlreadyExists, FailedPrecondition, Interrupted, InvalidInput
from tunesmith.domain.ids import canonical_json, content_id
from tunesmith.domain.jobs import Progress, ProgressReporter
from tunesmith.domain.models import MAX_PROMPT_CHARS
from tunesmith.domain.runs import Run, TrainingSettings
from tunesmith.domain.sweeps import Axis, Sweep, SweepCell, Value
from tunesmith.ports import parameters as limits
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.language_model import GenerationParameters
from tunesmith.ports.store import Store
from tunesmith.recipes import recipe_named
from tunesmith.recipes.base import Recipe
from tunesmith_trainer.bases import answers_seen_by_base, base_fingerprint, fetch_base
from tunesmith_trainer.catalogues import reference_of
from tunesmith_trainer.curation.load import iterate_examples
from tunesmith_trainer.handlers import TuneRequest, fetch_folder, get_dataset, tune

if TYPE_CHECKING:
    from tunesmith_trainer.evaluation.cells import Part

SWEEP_VERSION = 1
"""Part of every sweep's and measurement's identity; raised when the same inputs would be measured differently."""

MAX_CELLS = 64
"""Cells of one sweep: more pairs than theirs cannot be told apart by a few hundred prompts."""

MIN_SAMPLES, MAX_SAMPLES = 20, 5_000

MAX_GENERATED_TOKENS = 4_096
"""Largest `max_new_tokens` on an axis."""

GENERATION_AXES = ("temperature", "top_k", "top_p", "repetition_penalty", "do_sample", "max_new_tokens")
"""Generation parameters that may vary. Seeds are the same for all cells; stop sequences belong to the format."""

OFF = "off"
"""The value of a generation axis that leaves the parameter out."""

UNPAIRED = (
    "distinct_share", "self_repetition_share", "top_word_share", "top_word_share_over_data", "word_entropy",
    "distinct_words", "compression_ratio", "catalogue_novel_share", "bits_per_char_over_five_gram",
)  # fmt: skip
"""Metrics that do not pair by prompt or row, so that cells cannot compete by them."""


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """A grid with everything resolved."""

    recipe: str
    dataset_id: str
    base_model: str
    base_fingerprint: str
    settings: TrainingSettings
    """Of the default cell."""
    axes: tuple[Axis, ...]
    metric: str
    """What cells compete by."""
    num_samples: int
    catalogue_hash: str
    """Of the reference catalogue; empty where there is none."""

    def to_json(self) -> dict[str, Any]:
        """The request as it is kept in a job."""
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**row, "settings": self.settings.to_json(), "axes": [asdict(axis) for axis in self.axes]}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> SweepRequest:
        """The inverse of `to_json`."""
        values = {f.name: row[f.name] for f in fields(SweepRequest)}
        values["settings"] = TrainingSettings.from_json(row["settings"])
        values["axes"] = tuple(Axis(a["name"], a["kind"], tuple(a["values"])) for a in row["axes"])
        return SweepRequest(**values)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the grid: a training, and the parameters it is asked with."""

    values: Mapping[str, Value]
    tune: TuneRequest
    generation: GenerationParameters

    @property
    def is_same_as(self) -> tuple[str, GenerationParameters]:
        """Two cells with this in common are measured alike."""
        return self.tune.run_id, self.generation


def plan_sweep(
    store: Store,
    recipe_name: str,
    dataset_id: str,
    base_model: str,
    overrides: Mapping[str, Any],
    axes: Sequence[tuple[str, Sequence[Any]]],
    *,
    metric: str,
    num_samples: int,
) -> SweepRequest:
    """The request with defaults filled in; every cell of it can be trained and measured.

    Raises UnknownRecipe, NotFound for a dataset, InvalidInput for an axis, a value, too many cells or a metric that
    cells cannot compete by, FailedPrecondition when the dataset has no validation rows.
    """
    recipe = recipe_named(recipe_name)
    if not dataset_id:
        raise InvalidInput(
            "dataset_id is empty; name one that BuildDataset made (`tunesmith datasets`)",
            metadata={"field": "dataset_id"},
        )
    dataset = get_dataset(store, recipe.name, dataset_id)
    if not dataset.num_examples["validation"]:
        raise FailedPrecondition(
            f"dataset {dataset_id} has no validation rows to compare cells on; curate one of more records",
            reason="NO_VALIDATION_ROWS",
            metadata={"dataset": dataset_id},
        )
    num_train = dataset.num_examples["train"]
    settings = recipe.training.changed(overrides).with_epochs_for(num_train, examples_shown=recipe.examples_shown)
    checked = _checked_axes(recipe, axes, settings, num_train)
    if num_samples and not MIN_SAMPLES <= num_samples <= MAX_SAMPLES:
        raise InvalidInput(
            f"num_samples={num_samples} is out of range: it must lie between {MIN_SAMPLES} and {MAX_SAMPLES}, or be 0 "
            f"for the recipe's {recipe.judge.num_samples}",
            metadata={"field": "num_samples", "value": str(num_samples)},
        )
    base = base_model or recipe.default_base_model
    return SweepRequest(
        recipe.name,
        dataset_id,
        base,
        base_fingerprint(base),
        settings,
        checked,
        _checked_metric(recipe, metric, checked),
        num_samples or recipe.judge.num_samples,
        reference_of(store, dataset).hash,
    )


def _checked_axes(
    recipe: Recipe, axes: Sequence[tuple[str, Sequence[Any]]], settings: TrainingSettings, num_train: int
) -> tuple[Axis, ...]:
    if not axes:
        raise InvalidInput(
            "a sweep needs an axis; for example epochs=1,2,4 or temperature=0.7,1.0,1.3", metadata={"field": "axes"}
        )
    names = [name for name, _ in axes]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(
                f"axis {name[:60]!r} is given twice; give all its values at once", metadata={"field": "axes"}
            )
    made = []
    num_cells = 1
    for name, values in axes:
        if not values:
            raise InvalidInput(f"axis {name[:60]!r} has no values", metadata={"field": "axes", "value": name[:60]})
        num_cells *= len(values)
        if num_cells > MAX_CELLS:
            sizes = " x ".join(str(len(values)) for _, values in axes)
            raise InvalidInput(
                f"the grid has more cells than {MAX_CELLS} ({sizes}); give fewer values, or sweep the axes in turn",
                reason="GRID_TOO_LARGE",
                metadata={"field": "axes", "limit": str(MAX_CELLS)},
            )
        axis = Axis(name, _kind_of(name, settings), tuple(values))
        meant = [
            (cell.tune.settings, cell.generation) for cell in _grid(recipe, "", "", "", settings, (axis,), num_train)
        ]
        for i, one in enumerate(meant):
            if one in meant[:i]:
                raise InvalidInput(
                    f"axis {name}: {values[meant.index(one)]} and {values[i]} mean the same; leave one out",
                    metadata={"field": "axes", "value": str(values[i])[:60]},
                )
        read = [_value_of(axis, settings_of, generation) for settings_of, generation in meant]
        made.append(replace(axis, values=tuple(read)))
    return tuple(made)


def _kind_of(name: str, settings: TrainingSettings) -> Literal["training", "generation"]:
    if name in GENERATION_AXES:
        return "generation"
    training = [f.name for f in fields(settings)]
    if name in training:
        return "training"
    raise InvalidInput(
        f"axis {name[:60]!r} is neither a training setting ({', '.join(training)}) nor a generation parameter that may "
        f"vary ({', '.join(GENERATION_AXES)})",
        reason="UNKNOWN_SETTING",
        metadata={"field": "axes", "value": name[:60]},
    )


def _value_of(axis: Axis, settings: TrainingSettings, generation: GenerationParameters) -> Value:
    value: Value | None = getattr(settings if axis.kind == "training" else generation, axis.name)
    return OFF if value is None else value


def _checked_metric(recipe: Recipe, metric: str, axes: Sequence[Axis]) -> str:
    from tunesmith_trainer.evaluation.metrics import described

    if not metric:
        # Without a generation axis all cells answer alike but for their training, which the loss measures best.
        return "useful_share" if any(axis.kind == "generation" for axis in axes) else "bits_per_char"
    known = {"useful_share", *described(recipe)} - set(UNPAIRED)
    if metric not in known:
        raise InvalidInput(
            f"metric {metric[:60]!r} is none that cells can compete by; known: {', '.join(sorted(known))}",
            reason="UNKNOWN_METRIC",
            metadata={"field": "metric", "value": metric[:60]},
        )
    return metric


def cells_of(request: SweepRequest, recipe: Recipe, *, num_train: int) -> list[Cell]:
    """The grid in order, the last axis fastest."""
    return _grid(
        recipe,
        request.dataset_id,
        request.base_model,
        request.base_fingerprint,
        request.settings,
        request.axes,
        num_train,
    )


def _grid(
    recipe: Recipe,
    dataset_id: str,
    base_model: str,
    fingerprint: str,
    settings: TrainingSettings,
    axes: Sequence[Axis],
    num_train: int,
) -> list[Cell]:
    cells = []
    for values in product(*(axis.values for axis in axes)):
        chosen = {axis.name: value for axis, value in zip(axes, values, strict=True)}
        training = {a.name: chosen[a.name] for a in axes if a.kind == "training"}
        asked = {a.name: None if chosen[a.name] == OFF else chosen[a.name] for a in axes if a.kind == "generation"}
        changed = settings.changed(training).with_epochs_for(num_train, examples_shown=recipe.examples_shown)
        generation = limits.merged(recipe.generation, asked)
        limits.check(generation, max_new_tokens_limit=max(MAX_GENERATED_TOKENS, recipe.generation.max_new_tokens))
        request = TuneRequest(recipe.name, dataset_id, base_model, fingerprint, changed, "none")
        cells.append(Cell(chosen, request, generation))
    return cells


def sweep_id(request: SweepRequest, recipe: Recipe, cells: Sequence[Cell]) -> str:
    """The same grid on the same data is the same sweep."""
    return content_id(
        "sw",
        [
            SWEEP_VERSION,
            recipe.name,
            recipe.code_hash,
            [asdict(gate) for gate in recipe.gates],
            _how_measured(request, recipe),
            request.metric,
            [[dict(cell.values), cell.tune.run_id, asdict(cell.generation)] for cell in cells],
        ],
    )


def _how_measured(request: SweepRequest, recipe: Recipe) -> list[Any]:
    judge = recipe.judge
    how = [SWEEP_VERSION, recipe.code_hash, request.num_samples, judge.batch_size, judge.max_heldout_rows]
    return [*how, request.catalogue_hash]


def run_sweep(
    request: SweepRequest,
    *,
    store: Store,
    clock: Clock,
    scratch: Path,
    runs_folder: Path,
    bases_folder: Path,
    keep_checkpoints: bool,
    report: ProgressReporter,
    should_stop: Callable[[], bool],
    share_checkpoints: bool = False,
    memory_kills: int = 0,
) -> tuple[Sweep, bool]:
    """Train and measure the grid and choose a cell, or find the sweep; the flag says that it was there.

    What an earlier attempt trained and measured is not done again. Raises what `handlers.tune` raises.
    """
    recipe = recipe_named(request.recipe)
    dataset = get_dataset(store, recipe.name, request.dataset_id)
    cells = cells_of(request, recipe, num_train=dataset.num_examples["train"])
    made_id = sweep_id(request, recipe, cells)
    if store.exists(keys.sweep(recipe.name, made_id)):
        return get_sweep(store, recipe.name, made_id), True

    trainings = list({cell.tune.run_id: cell.tune for cell in cells}.values())
    runs: dict[str, Run] = {}
    for number, training in enumerate(trainings, start=1):
        named = _varied(training.settings, request)
        place = f"training {number} of {len(trainings)}"
        run, _ = tune(
            training,
            store=store,
            clock=clock,
            runs_folder=runs_folder,
            bases_folder=bases_folder,
            keep_checkpoints=keep_checkpoints,
            share_checkpoints=share_checkpoints,
            memory_kills=memory_kills,
            report=_within(report, place, named),
            should_stop=should_stop,
        )
        runs[run.id] = run

    measuring = _Measuring(request, recipe, store, scratch / f"sweep-{made_id}", bases_folder, report, should_stop)
    parts, prompts, num_heldout = measuring.run(cells, runs)
    from tunesmith_trainer.evaluation.sweep_page import render_sweep_page

    sweep = compare(request, recipe, made_id, cells, parts, prompts, num_heldout, rfc3339(clock.now()))
    report(Progress("report", message="drawing the page"))
    curves = {run.id: _metric_rows(store, run) for run in runs.values()}
    # Before the sweep that leads to it, so that no sweep is without its page.
    store.put(keys.sweep_page(recipe.name, made_id), render_sweep_page(sweep, recipe=recipe, curves=curves))
    try:
        store.create(keys.sweep(recipe.name, made_id), canonical_json(sweep.to_json()))
    except AlreadyExists:
        return get_sweep(store, recipe.name, made_id), True
    return sweep, False


def get_sweep(store: Store, recipe: str, sweep: str) -> Sweep:
    """A sweep; NotFound, DataLoss."""
    return read_object(store, keys.sweep(recipe, sweep), Sweep.from_json, what=f"sweep {sweep!r}")


def list_sweeps(store: Store, recipe: str) -> list[Sweep]:
    """A recipe's sweeps, newest first."""
    found = list_objects(store, f"sweeps/{recipe}/", Sweep.from_json, what="sweep")
    return sorted(found, key=lambda sweep: sweep.created_at, reverse=True)


@dataclass(slots=True)
class _Measuring:
    """Measures what no earlier attempt, nor another sweep, has measured."""

    request: SweepRequest
    recipe: Recipe
    store: Store
    folder: Path
    bases_folder: Path
    report: ProgressReporter
    should_stop: Callable[[], bool]
    done: int = 0
    total: int = 0

    def run(
        self, cells: Sequence[Cell], runs: Mapping[str, Run]
    ) -> tuple[dict[tuple[str, GenerationParameters], tuple[Part, Part]], list[str], int]:
        """By what cells are the same by: the part of the training and the part of the answers. Also the prompts, and
        the number of held-out rows."""
        from tunesmith_trainer.evaluation.cells import FIRST_SEED, Yardstick, measure_cell, measure_training
        from tunesmith_trainer.evaluation.judge import held_out, questions

        self.report(Progress("load", message="reading the validation rows"))
        dataset = get_dataset(self.store, self.recipe.name, self.request.dataset_id)
        data = self.folder / "data"
        train_answers = [e.answer for e in iterate_examples(dataset, "train", store=self.store, folder=data)]
        validation = list(iterate_examples(dataset, "validation", store=self.store, folder=data))
        rows = held_out(self.recipe, validation, answers_seen_by_base(self.request.base_model)).examples
        asked = questions(self.recipe, validation, num_samples=self.request.num_samples, first_seed=FIRST_SEED)
        reference = reference_of(self.store, dataset)
        if reference.hash != self.request.catalogue_hash:
            raise FailedPrecondition(
                f"the catalogue of {self.recipe.name} was changed after the sweep was asked for; start the sweep "
                "again, its trainings are kept",
                reason="CATALOGUE_CHANGED",
                metadata={"recipe": self.recipe.name},
            )
        yardstick: Yardstick | None = None

        distinct = list({cell.is_same_as: cell for cell in cells}.values())
        self.total = len(distinct) * len(asked) + len(runs) * 2 * len(rows)
        found: dict[tuple[str, GenerationParameters], tuple[Part, Part]] = {}
        for run in runs.values():
            of_run = [cell for cell in distinct if cell.tune.run_id == run.id]
            loss_id = self._part_id(run, None)
            loss = self._find(loss_id, 2 * len(rows))
            told = {cell.generation: self._find(self._part_id(run, cell.generation), len(asked)) for cell in of_run}
            if loss is None or None in told.values():
                yardstick = yardstick or Yardstick.of(self.recipe, asked, rows, train_answers, reference.names)
                model = self._model(run)
                if loss is None:
                    advance = self._advancing(f"reading {len(rows)} held-out rows")
                    loss = self._keep(loss_id, measure_training(model, yardstick, advance=advance))
                for cell in of_run:
                    if told[cell.generation] is None:
                        advance = self._advancing(_named(cell.values))
                        part = measure_cell(model, yardstick, cell.generation, advance=advance)
                        told[cell.generation] = self._keep(self._part_id(run, cell.generation), part)
            found |= {(run.id, generation): (loss, part) for generation, part in told.items() if part is not None}
        shutil.rmtree(self.folder, ignore_errors=True)
        return found, [prompt for prompt, _ in asked], len(rows)

    def _part_id(self, run: Run, generation: GenerationParameters | None) -> str:
        how = _how_measured(self.request, self.recipe)
        return content_id("part", [how, run.id, run.adapter_hash, asdict(generation) if generation else None])

    def _find(self, part_id: str, size: int) -> Part | None:
        from tunesmith_trainer.evaluation.cells import Part

        key = keys.sweep_part(self.recipe.name, part_id)
        if not self.store.exists(key):
            return None
        self.total -= size
        return read_object(self.store, key, Part.from_json, what=f"measurement {part_id!r}")

    def _keep(self, part_id: str, part: Part) -> Part:
        key = keys.sweep_part(self.recipe.name, part_id)
        with suppress(AlreadyExists):  # another sweep was quicker; the same inputs give the same numbers
            self.store.create(key, canonical_json(part.to_json()))
        return part

    def _model(self, run: Run) -> Any:
        from tunesmith_trainer.torch_backend.base_models import resolve_base
        from tunesmith_trainer.torch_backend.judged import load_subjects

        adapter = self.folder / run.id
        fetch_folder(self.store, run.adapter_key, adapter)
        fetch_base(self.store, run.base_model, self.bases_folder)
        base = resolve_base(run.base_model, self.bases_folder)
        subjects = load_subjects(
            base, adapter, champion=None, champion_base=None, batch_size=self.recipe.judge.batch_size
        )
        return subjects["candidate"]

    def _advancing(self, what: str) -> Callable[[int], None]:
        def advance(by: int) -> None:
            self.done += by
            self.report(Progress("measure", self.done, self.total, "answers", what))
            if self.should_stop():
                raise Interrupted("the sweep was asked to stop; the next attempt goes on with the next measurement")

        return advance


def compare(
    request: SweepRequest,
    recipe: Recipe,
    made_id: str,
    cells: Sequence[Cell],
    parts: Mapping[tuple[str, GenerationParameters], tuple[Part, Part]],
    prompts: Sequence[str],
    num_heldout: int,
    now: str,
) -> Sweep:
    """The cells compared: first by the gates they fail, then by the metric."""
    from tunesmith_trainer.evaluation.cells import FIRST_SEED, LOSS, MAX_KEPT_SAMPLES, sweep_metrics
    from tunesmith_trainer.evaluation.choice import choose
    from tunesmith_trainer.gates import decide

    known = sweep_metrics(recipe)
    measured = [parts[cell.is_same_as] for cell in cells]
    metrics = [{**loss.measures, **told.measures} for loss, told in measured]
    # What needs another model, or the test rows (leaks), only the judge can measure.
    measurable = {name for row in metrics for name in row}
    gates = [gate for gate in recipe.gates if gate.relative_to is None and gate.metric in measurable]
    failed = [
        tuple(result.name for result in decide(gates, {"candidate": row}, known) if not result.passed)
        for row in metrics
    ]
    fewest = min(map(len, failed))
    competing = [i for i, names in enumerate(failed) if len(names) == fewest]
    ratios = []
    for i in competing:
        loss, told = measured[i]
        ratio = {**loss.ratios, **told.ratios}.get(request.metric)
        if ratio is None:
            raise FailedPrecondition(
                f"{request.metric} was not measured answer by answer for cell {_named(cells[i].values)}, so cells "
                "cannot be compared by it; choose another metric",
                reason="METRIC_NOT_MEASURED",
                metadata={"metric": request.metric, "recipe": recipe.name},
            )
        ratios.append(ratio)
    default_cell = _default_of(request, recipe, cells)
    default = competing.index(default_cell) if default_cell in competing else None
    losses = [metrics[i][LOSS].value if LOSS in metrics[i] else math.inf for i in competing]
    choice = choose(ratios, better=known[request.metric].better, default=default, losses=losses, seed=FIRST_SEED)
    best = competing[choice.best]
    reference = default if default is not None and default != choice.best else choice.second
    others = [k for k in range(len(competing)) if k != choice.best]
    tied = tuple(competing[k] for k in others if not choice.beats(k))
    is_default = default is not None and default == choice.best
    clear = bool(others) and (not tied if is_default else reference is not None and choice.beats(reference))
    chosen = best if clear or default is None else competing[default]
    position = {cell: k for k, cell in enumerate(competing)}
    verdict = _verdict(cells, failed, competing, best, default_cell, chosen, clear, tied)
    return Sweep(
        id=made_id,
        recipe=recipe.name,
        dataset_id=request.dataset_id,
        base_model=request.base_model,
        axes=request.axes,
        settings=request.settings.to_json(),
        generation={**asdict(recipe.generation), "stop": list(recipe.generation.stop)},
        objective=request.metric,
        better=known[request.metric].better,
        num_samples=len(prompts),
        num_heldout_rows=num_heldout,
        cells=tuple(
            SweepCell(
                values=cell.values,
                run_id=cell.tune.run_id,
                metrics=row,
                failed_gates=failed[i],
                competes=i in position,
                difference=choice.differences.get(position[i]) if i in position else None,
                p_value=choice.p_values.get(position[i]) if i in position else None,
                samples=parts[cell.is_same_as][1].samples,
            )
            for i, (cell, row) in enumerate(zip(cells, metrics, strict=True))
        ),
        best=best,
        default=default_cell,
        chosen=chosen,
        clear=clear,
        tied=tied,
        verdict=verdict,
        commands=_commands(request, recipe, cells[chosen]),
        prompts=tuple(prompt[:MAX_PROMPT_CHARS] for prompt in prompts[:MAX_KEPT_SAMPLES]),
        created_at=now,
    )


def _default_of(request: SweepRequest, recipe: Recipe, cells: Sequence[Cell]) -> int | None:
    wanted = request.settings, recipe.generation
    return next((i for i, cell in enumerate(cells) if (cell.tune.settings, cell.generation) == wanted), None)


def _verdict(
    cells: Sequence[Cell],
    failed: Sequence[tuple[str, ...]],
    competing: Sequence[int],
    best: int,
    default: int | None,
    chosen: int,
    clear: bool,
    tied: Sequence[int],
) -> str:
    """Which cell, and why, for people."""
    name = _named(cells[best].values)
    others = ", ".join(_named(cells[i].values) for i in tied[:3]) + (
        f" and {len(tied) - 3} more" if len(tied) > 3 else ""
    )
    gates = len(failed[best])
    lead = ""
    if len(competing) < len(cells):
        left_out = len(cells) - len(competing)
        lead = f"{left_out} of {len(cells)} cells fail more gates and do not compete. "
    if gates:
        lead += f"No cell passes all gates: the best ones fail {', '.join(failed[best])}. "
    if len(competing) == 1:
        return f"{lead}{name} is the only cell left." if len(cells) > 1 else f"{lead}{name} is the only cell."
    if clear:
        told = f"{name} is clearly better than {'every other cell' if not tied else 'the recipe’s own settings'}"
        if tied and default not in competing:
            told = f"{name} is clearly better than the second"
        return f"{lead}{told}" + (f"; it cannot be told apart from {others}." if tied else ".")
    told = f"{lead}No cell is clearly better: {name} comes first, but cannot be told apart from {others}."
    if default is not None and chosen == default:
        told += " The recipe’s own settings stay."
    return told


def _commands(request: SweepRequest, recipe: Recipe, cell: Cell) -> tuple[str, ...]:
    """The run exists, so that tuning is judging it, on the test rows."""
    settings = [
        f"--set {name}={value}"
        for name, value in cell.tune.settings.to_json().items()
        if value != getattr(recipe.training, name)
    ]
    base = (
        [] if request.base_model == recipe.default_base_model else [f"--base-model {shlex.quote(request.base_model)}"]
    )
    tuned = " ".join([f"tunesmith tune {recipe.name} {request.dataset_id}", *base, *settings])
    asked = [_option(a.name, cell.values[a.name]) for a in request.axes if a.kind == "generation"]
    return (tuned, " ".join([f"tunesmith generate {recipe.name}", *asked])) if asked else (tuned,)


def _option(name: str, value: Value) -> str:
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{dashed}" if value else f"--no-{dashed}"
    # The recipe's own value would come back where the option is left out, so an "off" has no option to say it.
    return f"({dashed} off)" if value == OFF else f"--{dashed} {value}"


def _named(values: Mapping[str, Value]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def _varied(settings: TrainingSettings, request: SweepRequest) -> str:
    return _named({a.name: getattr(settings, a.name) for a in request.axes if a.kind == "training"})


def _within(report: ProgressReporter, place: str, named: str) -> ProgressReporter:
    """Progress of one training as that of the sweep."""

    def forward(progress: Progress) -> None:
        stage = place if progress.stage in ("tune", "load", "store") else f"{place}: {progress.stage}"
        report(replace(progress, stage=stage, message=progress.message or named))

    return forward


def _metric_rows(store: Store, run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.get(run.metrics_key).data.decode().splitlines() if line.strip()]
