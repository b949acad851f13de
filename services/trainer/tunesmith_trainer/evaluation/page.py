"""A report as one self-contained HTML page: no script, no request, every name escaped."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tunesmith.domain.datasets import Dataset
from tunesmith.domain.models import Measure, MetricInfo, Report
from tunesmith.domain.runs import Run
from tunesmith.recipes import recipe_named
from tunesmith.recipes.base import Recipe
from tunesmith_trainer.evaluation.answers import KnownAnswers, read_sample
from tunesmith_trainer.evaluation.charts import Series, bar_chart, column_chart, interval_chart, line_chart
from tunesmith_trainer.evaluation.judge import DATA, judge_prompts
from tunesmith_trainer.evaluation.metrics import (
    METRIC_DESCRIPTIONS,
    described,
    difference_name,
    formatted,
    heldout_anchor,
)

SUBJECTS = ("base", "candidate", "champion")
NAMES = {**{subject: subject for subject in SUBJECTS}, DATA: "training data"}

NUM_OPEN_SAMPLES = 25
NUM_SAMPLES = 200
NUM_WORDS = 12
MAX_CURVE_POINTS = 1_000
"""Points of a curve; more are thinned out evenly, for a page of bounded size."""

_TILES = ("valid_share", "novel_share", "distinct_share", "bits_per_char")
_REFERENCES = {
    "distinct_words": ("distinct_words_of_data", "training data"),
    "compression_ratio": ("compression_ratio_of_data", "training data"),
    "top_word_share": ("top_word_share_of_data", "training data"),
    "word_entropy": ("word_entropy_of_data", "training data"),
    "copied_share": ("copied_share_of_heldout", "held-out answers"),
    "bits_per_char": ("five_gram_bits_per_char", "character 5-gram"),
}
"""The anchor that stands beside a metric, and what it is of."""


@dataclass(frozen=True, slots=True)
class _Tile:
    title: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class _Cell:
    value: str
    interval: str


@dataclass(frozen=True, slots=True)
class _Difference:
    text: str
    interval: str
    kind: str
    """CSS class: `good`, `bad`, or empty where the interval holds zero."""


@dataclass(frozen=True, slots=True)
class _MetricRow:
    info: MetricInfo
    strip: Markup
    cells: list[_Cell | None]
    difference: _Difference | None
    anchor: _Cell | None


@dataclass(frozen=True, slots=True)
class _SampleCell:
    text: str
    invalid: bool
    badge: str
    note: str


@dataclass(frozen=True, slots=True)
class _SampleRow:
    prompt: str
    cells: list[_SampleCell]


def render_page(
    report: Report,
    *,
    dataset: Dataset,
    run: Run,
    metric_rows: Sequence[Mapping[str, Any]],
    train_answers: Sequence[str],
) -> bytes:
    """The page as UTF-8. Equal arguments give equal bytes.

    `metric_rows` are the lines of the run's metrics: step, train_loss, validation_loss, learning_rate and, where the
    base was trained as well, phase; values may be missing or None.
    """
    recipe = recipe_named(report.recipe)
    subjects = [subject for subject in SUBJECTS if subject in report.metrics]
    style = resources.files(__package__).joinpath("templates/report.css").read_text("utf-8")
    tuned = [row for row in metric_rows if row.get("phase", "tune") == "tune"]
    kinds = [kind for kind in (DATA, *subjects) if report.distributions.get(kind, {}).get("length")]
    metrics = [
        row
        for name, info in described(recipe).items()
        if (row := _metric_row(report, name, info, subjects)) is not None
    ]
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            recipe=recipe,
            run=run,
            style=Markup(style),
            style_hash=f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}",
            names=NAMES,
            subjects=subjects,
            headline=_headline(report),
            comparison=_comparison(report),
            tiles=_tiles(report),
            metrics=metrics,
            has_anchors=any(row.anchor for row in metrics),
            num_seen=int(report.anchors.get("heldout_rows_seen_by_base", 0)),
            loss_chart=line_chart(
                [
                    Series("training", "base", curve(tuned, "train_loss")),
                    Series("validation", "candidate", curve(tuned, "validation_loss"), marked=True),
                ],
                x_title="step",
                y_title="",
            ),
            rate_chart=line_chart(
                [Series("learning rate", "data", curve(tuned, "learning_rate"))], x_title="step", y_title=""
            ),
            distribution_kinds=kinds,
            length_chart=_length_chart(report, kinds),
            word_chart=_value_chart(report, kinds, "word"),
            own_charts=[
                (attribute.replace("_", " "), _value_chart(report, kinds, attribute)) for attribute in recipe.charts
            ],
            samples=_samples(report, recipe, subjects, train_answers),
            num_samples=len(report.samples.get("candidate", ())),
            num_open=NUM_OPEN_SAMPLES,
            lineage=_lineage(report, recipe, dataset, run),
        )
    )
    return page.encode("utf-8", "replace")


def environment() -> Environment:
    """Templates that escape every value and fail on a name that is not there."""
    return Environment(
        loader=PackageLoader("tunesmith_trainer.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _headline(report: Report) -> str:
    if not report.passed:
        return f"Refused: {sum(not gate.passed for gate in report.gates)} of {len(report.gates)} gates failed"
    return f"Passed all {len(report.gates)} gates" if report.gates else "Passed: there are no gates"


def _comparison(report: Report) -> str:
    if report.champion_version:
        return f"Compared with its base and with the champion {report.champion_version}."
    return "Compared with its base; there was no champion yet."


def _tiles(report: Report) -> list[_Tile]:
    tiles = []
    for name in _TILES:
        info = METRIC_DESCRIPTIONS[name]
        measure = report.metrics["candidate"].get(name)
        base = report.metrics["base"].get(name)
        value = formatted(measure.value, info) if measure else "—"
        tiles.append(_Tile(info.title, value, f"base {formatted(base.value, info)}" if base else "base —"))
    return tiles


def _metric_row(report: Report, name: str, info: MetricInfo, subjects: Sequence[str]) -> _MetricRow | None:
    measures = {subject: m for subject in subjects if (m := report.metrics[subject].get(name)) is not None}
    if not measures:
        return None
    low, high = min(m.low for m in measures.values()), max(m.high for m in measures.values())
    if info.unit == "share":
        low, high = 0.0, 1.0
    elif high <= low:
        low, high = low - 1, high + 1
    anchor, of = _REFERENCES.get(name, (heldout_anchor(name), "held-out answers"))
    return _MetricRow(
        info=info,
        strip=interval_chart(measures, low=low, high=high),
        cells=[_cell(measures[subject], info) if subject in measures else None for subject in subjects],
        difference=_difference(report, name, info),
        anchor=_Cell(formatted(report.anchors[anchor], info), of) if anchor in report.anchors else None,
    )


def _cell(measure: Measure, info: MetricInfo) -> _Cell:
    return _Cell(formatted(measure.value, info), f"{_bare(measure.low, info)} to {formatted(measure.high, info)}")


def _bare(value: float, info: MetricInfo, *, signed: bool = False) -> str:
    return formatted(value, info, signed=signed).split(" ")[0]


def _difference(report: Report, name: str, info: MetricInfo) -> _Difference | None:
    measure = report.metrics["candidate"].get(difference_name(name, "base"))
    if measure is None:
        return None
    up = measure.low > 0
    clear = up or measure.high < 0
    kind = "" if not clear else "good" if up == (info.better == "higher") else "bad"
    word = {"good": " better", "bad": " worse", "": ""}[kind]
    arrow = ("▲ " if up else "▼ ") if clear else "≈ "
    interval = f"{_bare(measure.low, info, signed=True)} to {formatted(measure.high, info, signed=True)}"
    return _Difference(f"{arrow}{formatted(measure.value, info, signed=True)}{word}", interval, kind)


def curve(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """The points (step, value) of one metric, thinned out; lines without it, or where it is no number, are left out."""
    points = [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None]
    points = [(step, value) for step, value in points if math.isfinite(value)]
    every = math.ceil(len(points) / MAX_CURVE_POINTS) or 1
    return [point for i, point in enumerate(points) if i % every == 0 or i == len(points) - 1]


def _length_chart(report: Report, kinds: Sequence[str]) -> Markup:
    counts = {kind: report.distributions[kind].get("length", {}) for kind in kinds}
    bands = sorted({band for row in counts.values() for band in row}, key=lambda band: int(band.split("-")[0]))
    totals = {kind: sum(row.values()) or 1 for kind, row in counts.items()}
    return column_chart(
        bands, {kind: [row.get(band, 0) / totals[kind] for band in bands] for kind, row in counts.items()}
    )


def _value_chart(report: Report, kinds: Sequence[str], attribute: str) -> Markup:
    counts = {kind: report.distributions[kind].get(attribute, {}) for kind in kinds}
    totals = {kind: sum(report.distributions[kind].get("length", {}).values()) or 1 for kind in kinds}
    shares = {kind: {value: n / totals[kind] for value, n in row.items()} for kind, row in counts.items()}
    # The candidate's and the data's commonest: what is overused, and what is missing.
    found = {value for kind in ("candidate", DATA) for value in list(counts.get(kind, {}))[: NUM_WORDS * 2 // 3]}
    ranked = sorted(found, key=lambda v: (-max(shares.get(k, {}).get(v, 0) for k in ("candidate", DATA)), v))
    shown = ranked[:NUM_WORDS]
    return bar_chart(shown, {kind: [row.get(value, 0.0) for value in shown] for kind, row in shares.items()})


def _samples(report: Report, recipe: Recipe, subjects: Sequence[str], train_answers: Sequence[str]) -> list[_SampleRow]:
    known = KnownAnswers.of(recipe, train_answers, ())
    prompts = report.prompts or judge_prompts(recipe, [])
    columns = [report.samples.get(subject, ())[:NUM_SAMPLES] for subject in subjects]
    return [
        _SampleRow(
            prompts[i] if i < len(prompts) else str(i + 1),
            [
                _sample_cell(recipe, column[i], known) if i < len(column) else _SampleCell("", False, "", "")
                for column in columns
            ],
        )
        for i in range(max(map(len, columns), default=0))
    ]


def _sample_cell(recipe: Recipe, sample: str, known: KnownAnswers) -> _SampleCell:
    text, reason = read_sample(sample)
    if reason:
        return _SampleCell(text, True, reason.replace("_", " "), "")
    identity = recipe.identity(text)
    if identity in known.training_set:
        return _SampleCell(text, False, "known", "")
    twin = known.twins.twin(identity)
    return _SampleCell(text, False, "near-twin" if twin else "", f"of {twin}" if twin else "")


def _lineage(report: Report, recipe: Recipe, dataset: Dataset, run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    num_examples = sum(dataset.num_examples.values())
    return [
        (
            "Model",
            [
                ("version", report.model_version),
                ("run", run.id),
                ("base", run.base_model),
                ("base fingerprint", run.base_fingerprint),
                ("adapter SHA-256", run.adapter_hash),
                ("trained", run.created_at),
                ("training loss", f"{run.train_loss:.4f}"),
                ("validation loss", "—" if run.validation_loss is None else f"{run.validation_loss:.4f}"),
                ("rows too long", f"{run.num_rows_dropped:,}"),
                *([("recipe code SHA-256", recipe.code_hash)] if recipe.code_hash else []),
            ],
        ),
        ("Settings", [(name, str(value)) for name, value in sorted(run.settings.items())]),
        (
            "Dataset",
            [
                ("id", dataset.id),
                ("records", f"{dataset.num_records:,}"),
                ("examples", f"{num_examples:,}"),
                *((f"{split} rows", f"{n:,}") for split, n in dataset.num_examples.items()),
                *((f"{split} SHA-256", value) for split, value in dataset.shard_hashes.items()),
                ("built", dataset.created_at),
            ],
        ),
        ("Left out, by reason", [(reason.replace("_", " "), f"{n:,}") for reason, n in _ranked(dataset.dropped)]),
        ("Licences, by records", [(licence, f"{n:,}") for licence, n in _ranked(dataset.licences)]),
        ("Collections", [(str(i), name) for i, name in enumerate(dataset.collections, start=1)]),
    ]


def _ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
