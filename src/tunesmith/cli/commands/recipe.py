"""`tunesmith recipe check`: the contract of recipes, tried on one of your own."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import click

from tunesmith.cli.options import Globals, SuggestingGroup, global_options
from tunesmith.cli.render import Output, table
from tunesmith.domain.errors import InvalidInput
from tunesmith.recipes import SHIPPED
from tunesmith.recipes.contract import CheckResult, check_recipe
from tunesmith.recipes.plugins import recipe_of_file

MAX_RECORDS = 5_000
"""Rows of the records file that are tried."""

EXIT_PROBLEMS = 1


@click.group("recipe", cls=SuggestingGroup)
@global_options()
def recipe() -> None:
    """Check a recipe of your own."""


@recipe.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--records",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Rows to try it on, beside made-up ones: CSV with a header, or JSON lines.",
)
@global_options()
@click.pass_obj
def check(options: Globals, file: Path, records: Path | None) -> int:
    """Load the recipe in FILE and hold it to the rules that every recipe keeps.

    Needs no server. Exit code 1 when a rule is broken.
    """
    out = Output(json=options.json)
    found = recipe_of_file(file.absolute())
    rows = list(islice(_rows(records), MAX_RECORDS)) if records else []
    from tunesmith.embedded import shared_metrics

    results = list(check_recipe(found, rows=rows, shared_metrics=shared_metrics()))
    if found.name in SHIPPED:
        results.append(CheckResult("the name is its own", 1, [f"{found.name!r} is the name of a recipe that ships"]))
    passed = not any(result.problems for result in results)
    out.document(
        {
            "recipe": found.name,
            "file": str(file),
            "code_hash": found.code_hash,
            "passed": passed,
            "checks": [{"name": r.name, "num_tried": r.num_tried, "problems": list(r.problems)} for r in results],
        }
    )
    lines = [["✗" if r.problems else "✓", r.name, r.num_tried] for r in results]
    out.show(table("", ["", "rule", "tried"], lines))
    out.show(*(f"✗ {result.name}: {problem}" for result in results for problem in result.problems))
    if passed:
        out.show(f"recipe {found.name} keeps every rule; use it with TUNESMITH_RECIPES={file}")
    return 0 if passed else EXIT_PROBLEMS


def _rows(path: Path) -> Iterator[Mapping[str, str]]:
    """The rows of a file as fields of records."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix in (".jsonl", ".ndjson"):
                for line in file:
                    if line.strip():
                        yield {str(name): str(value) for name, value in json.loads(line).items()}
            else:
                for row in csv.DictReader(file):
                    yield {name: value or "" for name, value in row.items() if isinstance(name, str)}
    except (ValueError, AttributeError, csv.Error) as error:
        raise InvalidInput(
            f"{path} cannot be read ({error}); give CSV with a header, or JSON lines (.jsonl), in UTF-8",
            metadata={"field": "records"},
        ) from error
