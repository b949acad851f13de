"""A sweep as one self-contained HTML page: heat map, cells, loss curves, and answers side by side."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import product
from typing import Any

from markupsafe import Markup

from tunesmith.domain.models import Measure, MetricInfo
from tunesmith.domain.sweeps import Axis, Sweep, SweepCell, Value
from tunesmith.recipes.base import Recipe
from tunesmith_trainer.evaluation.answers import read_sample
from tunesmith_trainer.evaluation.cells import LOSS, SWEEP_METRICS, USEFUL, sweep_metrics
from tunesmith_trainer.evaluation.charts import Series, line_chart
from tunesmith_trainer.evaluation.metrics import METRIC_DESCRIPTIONS, formatted
from tunesmith_trainer.evaluation.page import curve, environment

NUM_SHADES = 6
NUM_COLOURS = 8
"""Lines of one chart: more could not be told apart."""

_COLUMNS = (USEFUL, "valid_share", "novel_share", "distinct_share", "top_word_share", "copied_share", LOSS)


@dataclass(frozen=True, slots=True)
class _Number:
    value: str
    interval: str


@dataclass(frozen=True, slots=True)
class _Difference:
    value: str
    interval: str
    p: str


@dataclass(frozen=True, slots=True)
class _Badge:
    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class _Cell:
    name: str
    chosen: bool
    badges: list[_Badge]
    axis_values: list[str]
    failed: Sequence[str]
    difference: _Difference | None
    metrics: list[_Number | None]


@dataclass(frozen=True, slots=True)
class _Square:
    value: str
    note: str
    shade: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class _HeatRow:
    title: str
    cells: list[_Square]


@dataclass(frozen=True, slots=True)
class _Heat:
    title: str
    row_axis: str
    column_axis: str
    columns: list[str]
    rows: list[_HeatRow]


@dataclass(frozen=True, slots=True)
class _LossChart:
    key: list[tuple[str, str]]
    validation: Markup
    training: Markup


@dataclass(frozen=True, slots=True)
class _Sample:
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class _SampleRow:
    prompt: str
    cells: list[_Sample]


@dataclass(frozen=True, slots=True)
class _Tile:
    title: str
    value: str
    note: str


def render_sweep_page(sweep: Sweep, *, recipe: Recipe, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """The page as UTF-8; equal arguments give equal bytes. `curves` are the metric lines of each run by its id."""
    templates = resources.files(__package__).joinpath("templates")
    style = "".join(templates.joinpath(name).read_text("utf-8") for name in ("report.css", "sweep.css"))
    metrics = sweep_metrics(recipe)
    columns = _columns(sweep, metrics)
    loss_decides = sweep.objective in (LOSS, "answer_bits_per_char")
    cells = [_cell(sweep, i, columns, metrics) for i in range(len(sweep.cells))]
    page = (
        environment()
        .get_template("sweep.html.j2")
        .render(
            sweep=sweep,
            recipe=recipe,
            style=Markup(style),
            style_hash=f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}",
            objective=metrics[sweep.objective],
            cells=cells,
            columns=[metrics[name] for name in columns],
            tiles=_tiles(sweep, metrics),
            heats=_heats(sweep, metrics),
            loss_charts=_loss_charts(sweep, curves),
            samples=_samples(sweep),
            runs=_named_runs(sweep),
            units=f"{sweep.num_heldout_rows} validation rows" if loss_decides else f"{sweep.num_samples} prompts",
            unit_name="rows" if loss_decides else "prompts",
        )
    )
    return page.encode("utf-8", "replace")


def shown(value: Value) -> str:
    """A value of an axis, as people read it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def cell_name(cell: SweepCell) -> str:
    """`epochs 2, temperature 0.7`."""
    return ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in cell.values.items())


def _columns(sweep: Sweep, metrics: Mapping[str, MetricInfo]) -> list[str]:
    """Metrics of the table: the objective, those that are always told, and the recipe's own and gated ones."""
    measured = {name for cell in sweep.cells for name in cell.metrics}
    own = [name for name in metrics if name not in {*SWEEP_METRICS, *METRIC_DESCRIPTIONS}]
    return [name for name in dict.fromkeys((sweep.objective, *_COLUMNS, *own)) if name in measured]


def _cell(sweep: Sweep, index: int, columns: Sequence[str], metrics: Mapping[str, MetricInfo]) -> _Cell:
    cell = sweep.cells[index]
    badges = []
    if index == sweep.chosen:
        badges.append(_Badge("★ use", "good" if sweep.clear else "warn"))
    if index == sweep.best:
        badges.append(_Badge("first", ""))
    if index == sweep.default:
        badges.append(_Badge("default", ""))
    if index in sweep.tied:
        badges.append(_Badge("≈ first", ""))
    info = metrics[sweep.objective]
    difference = None
    if cell.difference is not None and cell.p_value is not None:
        low, high = (formatted(x, info, signed=True) for x in (cell.difference.low, cell.difference.high))
        p = "< 0.001" if cell.p_value < 0.001 else f"{cell.p_value:.3f}"
        difference = _Difference(formatted(cell.difference.value, info, signed=True), f"{low.split()[0]} to {high}", p)
    return _Cell(
        name=cell_name(cell),
        chosen=index == sweep.chosen,
        badges=badges,
        axis_values=[shown(cell.values[axis.name]) for axis in sweep.axes],
        failed=cell.failed_gates,
        difference=difference,
        metrics=[_number(cell.metrics.get(name), metrics[name]) for name in columns],
    )


def _number(measure: Measure | None, info: MetricInfo) -> _Number | None:
    if measure is None:
        return None
    low = formatted(measure.low, info).split(" ")[0]
    return _Number(formatted(measure.value, info), f"{low} to {formatted(measure.high, info)}")


def _tiles(sweep: Sweep, metrics: Mapping[str, MetricInfo]) -> list[_Tile]:
    cell = sweep.cells[sweep.chosen]
    default = sweep.cells[sweep.default] if sweep.default is not None else None
    tiles = []
    for name in dict.fromkeys((sweep.objective, "valid_share", "novel_share", "distinct_share", LOSS)):
        measure = cell.metrics.get(name)
        before = default.metrics.get(name) if default else None
        info = metrics[name]
        value = formatted(measure.value, info) if measure else "—"
        tiles.append(_Tile(info.title, value, f"default {formatted(before.value, info)}" if before else "no default"))
    return tiles


def _heats(sweep: Sweep, metrics: Mapping[str, MetricInfo]) -> list[_Heat]:
    """One map of the two longest axes for each combination of the others."""
    info = metrics[sweep.objective]
    by_values = {tuple(cell.values.values()): i for i, cell in enumerate(sweep.cells)}
    long = sorted(sweep.axes, key=lambda axis: -len(axis.values))[:2]
    mapped = [axis for axis in sweep.axes if axis in long]
    rest = [axis for axis in sweep.axes if axis not in mapped]
    column_axis = mapped[-1]
    row_axis = mapped[0] if len(mapped) > 1 else None
    values = [m.value for cell in sweep.cells if cell.competes and (m := cell.metrics.get(sweep.objective))]
    heats = []
    for fixed in product(*(axis.values for axis in rest)):
        given = dict(zip([axis.name for axis in rest], fixed, strict=True))
        rows = []
        for row_value in row_axis.values if row_axis else ("",):
            squares = []
            for column_value in column_axis.values:
                at = {**given, column_axis.name: column_value} | ({row_axis.name: row_value} if row_axis else {})
                index = by_values[tuple(at[axis.name] for axis in sweep.axes)]
                squares.append(_square(sweep, index, values, info))
            rows.append(_HeatRow(shown(row_value), squares))
        title = ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in given.items())
        heats.append(
            _Heat(title, _axis_name(row_axis), _axis_name(column_axis), [shown(v) for v in column_axis.values], rows)
        )
    return heats


def _axis_name(axis: Axis | None) -> str:
    return axis.name.replace("_", " ") if axis else ""


def _square(sweep: Sweep, index: int, values: Sequence[float], info: MetricInfo) -> _Square:
    cell = sweep.cells[index]
    measure = cell.metrics.get(sweep.objective)
    chosen = index == sweep.chosen
    if measure is None:
        return _Square("—", "not measured", "out", chosen)
    note = "first" if index == sweep.best else "≈ first" if index in sweep.tied else ""
    note = " · ".join(filter(None, (note, "default" if index == sweep.default else "")))
    if not cell.competes:
        return _Square(formatted(measure.value, info), "fails a gate", "out", chosen)
    low, high = min(values), max(values)
    share = (measure.value - low) / (high - low) if high > low else 1.0
    share = share if sweep.better == "higher" else 1 - share
    return _Square(formatted(measure.value, info), note, f"h{min(int(share * NUM_SHADES), NUM_SHADES - 1)}", chosen)


def _named_runs(sweep: Sweep) -> list[tuple[str, str]]:
    """Each training once, by what tells it from the others."""
    axes = [axis.name for axis in sweep.axes if axis.kind == "training"]
    found: dict[str, str] = {}
    for cell in sweep.cells:
        name = ", ".join(f"{axis.replace('_', ' ')} {shown(cell.values[axis])}" for axis in axes) or "one training"
        found.setdefault(cell.run_id, name)
    return [(name, run_id) for run_id, name in found.items()]


def _loss_charts(sweep: Sweep, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[_LossChart]:
    """Charts of at most NUM_COLOURS trainings each."""
    runs = _named_runs(sweep)
    charts = []
    for start in range(0, len(runs), NUM_COLOURS):
        key: list[tuple[str, str]] = []
        lines: dict[str, list[Series]] = {"validation_loss": [], "train_loss": []}
        for number, (name, run_id) in enumerate(runs[start : start + NUM_COLOURS]):
            key.append((f"r{number}", name))
            rows = [row for row in curves.get(run_id, ()) if row.get("phase", "tune") == "tune"]
            for metric, series in lines.items():
                series.append(Series(name, f"r{number}", curve(rows, metric), marked=metric == "validation_loss"))
        drawn = {metric: line_chart(series, x_title="step", y_title="") for metric, series in lines.items()}
        if any(drawn.values()):
            charts.append(_LossChart(key, drawn["validation_loss"], drawn["train_loss"]))
    return charts


def _samples(sweep: Sweep) -> list[_SampleRow]:
    return [
        _SampleRow(
            prompt,
            [
                _Sample(*read_sample(cell.samples[i])) if i < len(cell.samples) else _Sample("", "")
                for cell in sweep.cells
            ],
        )
        for i, prompt in enumerate(sweep.prompts)
    ]
