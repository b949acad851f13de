"""`tunesmith report`: what was measured, on the screen or as an HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from tunesmith.cli.connection import connect
from tunesmith.cli.options import Globals, global_options, recipe_argument
from tunesmith.cli.render import (
    Output,
    ago,
    anchors_line,
    facts,
    gates_table,
    measures_table,
    parity_lines,
    plain,
    table,
)
from tunesmith.cli.session import write_atomically
from tunesmith.cli.steps import report_of, report_page

SHOWN_SAMPLES = 5


@click.command("report")
@recipe_argument
@click.argument("version", default="")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the HTML page."
)
@global_options()
@click.pass_obj
def report(options: Globals, recipe: str, version: str, output: Path | None) -> None:
    """Show the report of VERSION (the champion by default)."""
    out = Output(json=options.json)
    with connect(options) as connection:
        found = report_of(connection, recipe, version)
        if output is not None:
            write_atomically(output, report_page(connection, recipe, found.model_version))
    subjects = sorted(found.samples)
    samples = zip(*(found.samples[subject].texts[:SHOWN_SAMPLES] for subject in subjects), strict=False)
    out.result(
        {**plain(found), "page": str(output) if output else None},
        facts(
            {
                "report": found.id,
                "model": found.model_version,
                "champion then": found.champion_version,
                "dataset": found.dataset_id,
                "run": found.run_id,
                "made": ago(found.create_time),
                "verdict": "passed" if found.passed else "refused",
            }
        ),
        measures_table(found),
        anchors_line(found),
        gates_table(found),
        *parity_lines(found),
        table("samples", subjects, samples),
        *([f"page: {output}"] if output else []),
    )
