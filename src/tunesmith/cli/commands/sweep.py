"""`tunesmith sweep` and `sweeps`: settings compared on the same prompts, as a grid."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import click
from google.protobuf import struct_pb2
from rich.console import RenderableType

from tunesmith.cli.connection import Connection, connect
from tunesmith.cli.hosting import running_or_own
from tunesmith.cli.options import (
    Globals,
    detach_option,
    global_options,
    limit_option,
    priority_option,
    recipe_argument,
    set_option,
    setting_values,
)
from tunesmith.cli.render import Output, ago, facts, plain, table
from tunesmith.cli.session import write_atomically
from tunesmith.cli.steps import detached, leaving_running, newest_dataset_id, result_of, submit
from tunesmith.recipes import recipe_named
from tunesmith_proto.trainer.v1 import models_pb2, sweeps_pb2

REPORTS_FOLDER = "reports"
SHOWN_SAMPLES = 3
METRICS = ("useful_share", "valid_share", "novel_share", "distinct_share", "bits_per_char")
"""Beside the objective, what the table shows of each cell; the page has all."""


@click.command("sweep")
@recipe_argument
@click.option(
    "--axis",
    "axes",
    metavar="NAME=VALUE,VALUE,...",
    multiple=True,
    required=True,
    help="A training setting or generation parameter, and its values; several make a grid.",
)
@click.option("--dataset", default="", help="Default: the newest one.")
@click.option("--base-model", default="", help="builtin:tiny, a Hub id or a folder; default: the recipe's.")
@set_option
@click.option("--metric", default="", help="What cells compete by; default: useful_share, or bits_per_char.")
@click.option("--samples", type=click.IntRange(min=0), default=0, help="Answers of each cell; default: the recipe's.")
@priority_option
@detach_option
@global_options()
@click.pass_obj
def sweep(
    options: Globals,
    recipe: str,
    axes: tuple[str, ...],
    dataset: str,
    base_model: str,
    settings: tuple[str, ...],
    metric: str,
    samples: int,
    priority: int,
    detach: bool,
) -> None:
    """Compare settings for RECIPE: a grid of trainings and generations.

    Every cell answers the same prompts and reads the same validation rows; the best one is told only where it is
    clearly better. Uses the running server of the data folder, or runs the services inside this process. After Ctrl-C
    the same command continues.
    """
    out = Output(json=options.json)
    grid = [_axis(text) for text in axes]
    values = setting_values(settings)
    with running_or_own(options, before_start=lambda: recipe_named(recipe)) as (connection, own):
        request = sweeps_pb2.StartSweepRequest(
            recipe=recipe,
            dataset_id=dataset or newest_dataset_id(connection, recipe),
            base_model=base_model,
            axes=grid,
            metric=metric,
            num_samples=samples,
            request_id=str(uuid.uuid4()),
            priority=priority,
        )
        request.settings.update(values)
        submitted = submit(connection, connection.sweeps.StartSweep, request)
        if detach and not own:
            detached(out, submitted)
            return
        with leaving_running(connection, submitted.job.id):
            result = result_of(connection, out, submitted, sweeps_pb2.Sweep)
        found = result.message
        page = options.data / REPORTS_FOLDER / f"{found.id}.html"
        write_atomically(page, _page(connection, recipe, found.id))
    out.document({**plain(found), "page": str(page)})
    if result.reused:
        out.note(f"reused: sweep {found.id} made {ago(found.create_time)}")
    out.show(*_screen(found), f"page: {page}")


@click.command("sweeps")
@recipe_argument
@click.argument("sweep", default="")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write its HTML page."
)
@limit_option
@global_options()
@click.pass_obj
def sweeps(options: Globals, recipe: str, sweep: str, output: Path | None, limit: int) -> None:
    """List the sweeps of RECIPE, or show one."""
    out = Output(json=options.json)
    with connect(options) as connection:
        if sweep:
            request = sweeps_pb2.GetSweepRequest(recipe=recipe, sweep_id=sweep)
            reply: sweeps_pb2.GetSweepResponse = connection.call(connection.sweeps.GetSweep, request)
            if output is not None:
                write_atomically(output, _page(connection, recipe, sweep))
            shown = [*_screen(reply.sweep), *([f"page: {output}"] if output else [])]
            out.result({**plain(reply.sweep), "page": str(output) if output else None}, *shown)
            return
        listed: list[sweeps_pb2.Sweep] = connection.pages(
            connection.sweeps.ListSweeps, sweeps_pb2.ListSweepsRequest(recipe=recipe), "sweeps", limit=limit
        )
    rows = [
        [
            one.id,
            " x ".join(f"{axis.name} ({len(axis.values)})" for axis in one.axes),
            one.dataset_id,
            _name(one.cells[one.chosen_cell]),
            "clear" if one.clear else "not clear",
            ago(one.create_time),
        ]
        for one in listed
    ]
    out.result({"sweeps": listed}, table("", ["sweep", "axes", "dataset", "use", "", "made"], rows))


def _axis(text: str) -> sweeps_pb2.SweepAxis:
    name, equals, listed = text.partition("=")
    values = [value.strip() for value in listed.split(",")]
    if not equals or not name or not all(values):
        raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE,VALUE,...", param_hint="--axis")
    made = sweeps_pb2.SweepAxis(name=name.strip())
    for value in values:
        read = setting_values([f"value={value}"])["value"]
        made.values.append(
            struct_pb2.Value(bool_value=read)
            if isinstance(read, bool)
            else struct_pb2.Value(string_value=read)
            if isinstance(read, str)
            else struct_pb2.Value(number_value=read)
        )
    return made


def _page(connection: Connection, recipe: str, sweep: str) -> bytes:
    request = sweeps_pb2.GetSweepPageRequest(recipe=recipe, sweep_id=sweep)
    return b"".join(reply.chunk for reply in connection.call(connection.sweeps.GetSweepPage, request))


def _screen(found: sweeps_pb2.Sweep) -> list[RenderableType]:
    names = [name for name in dict.fromkeys((found.objective, *METRICS)) if any(name in c.metrics for c in found.cells)]
    columns = ["", *(axis.name for axis in found.axes), *names, "behind the first", "fails"]
    rows = [_row(found, i, names) for i in range(len(found.cells))]
    asked = [
        [prompt, *(_sample(cell, i) for cell in _sampled(found))]
        for i, prompt in enumerate(found.prompts[:SHOWN_SAMPLES])
    ]
    return [
        facts({"sweep": found.id, "dataset": found.dataset_id, "base model": found.base_model}),
        "",
        table(f"{len(found.cells)} cells on the validation rows", columns, rows),
        "",
        table("samples", ["prompt", *(_name(cell) for cell in _sampled(found))], asked),
        "",
        found.verdict,
        f"use: {_name(found.cells[found.chosen_cell])}",
        *(f"  {command}" for command in found.commands),
        "",
    ]


def _row(found: sweeps_pb2.Sweep, index: int, names: Sequence[str]) -> list[str]:
    cell = found.cells[index]
    marks = ["★"] if index == found.chosen_cell else []
    marks += ["first"] if index == found.best_cell else ["≈ first"] if index in found.tied_cells else []
    marks += ["default"] if found.HasField("default_cell") and index == found.default_cell else []
    given = plain(cell.values)
    behind = ""
    if cell.HasField("difference"):
        behind = f"{_interval(cell.difference)} (p {cell.p_value:.3g})"
    metrics = [_interval(cell.metrics[name]) if name in cell.metrics else "—" for name in names]
    return [" ".join(marks), *(str(given[a.name]) for a in found.axes), *metrics, behind, ", ".join(cell.failed_gates)]


def _interval(measure: models_pb2.Measure) -> str:
    return f"{measure.value:.3g} [{measure.low:.3g}, {measure.high:.3g}]"


def _sampled(found: sweeps_pb2.Sweep) -> list[sweeps_pb2.SweepCell]:
    """The cells whose samples fit a screen: the one to use, the first, the default."""
    shown = [found.chosen_cell, found.best_cell, *([found.default_cell] if found.HasField("default_cell") else [])]
    return [found.cells[i] for i in dict.fromkeys(shown)]


def _sample(cell: sweeps_pb2.SweepCell, index: int) -> str:
    return cell.samples[index] if index < len(cell.samples) else ""


def _name(cell: sweeps_pb2.SweepCell) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(plain(cell.values).items()))
