"""`tunesmith export`: a model version as a folder that other programs load."""

from __future__ import annotations

from pathlib import Path

import click

from tunesmith.cli.connection import connect
from tunesmith.cli.options import Globals, global_options, recipe_argument
from tunesmith.cli.published import check_absent, fetch, publication_of
from tunesmith.cli.render import Output, plain

merged_option = click.option(
    "--merged", is_flag=True, help="The base model with the adapter merged into its weights, instead of the adapter."
)
version_option = click.option(
    "--version", default="", metavar="VERSION", help="Which model version; the champion by default."
)


@click.command("export")
@recipe_argument
@click.argument("folder", type=click.Path(path_type=Path))
@version_option
@merged_option
@global_options()
@click.pass_obj
def export(options: Globals, recipe: str, folder: Path, version: str, merged: bool) -> None:
    """Write the champion of RECIPE, or another model, into FOLDER for other programs.

    The adapter as PEFT writes it, or with --merged a whole model that transformers (4 and 5), vLLM and
    text-generation-inference load; with the tokenizer and a model card. FOLDER must not exist, or be empty.
    """
    out = Output(json=options.json)
    check_absent(folder)
    with connect(options) as connection:
        publication = publication_of(connection, out, recipe=recipe, version=version, merged=merged)
        fetch(connection, publication, folder)
    size_mib = sum(file.size_bytes for file in publication.files) / 2**20
    out.result(
        {"folder": str(folder), "publication": plain(publication)},
        f"exported: model {publication.version} ({'merged' if merged else 'adapter'}, {size_mib:.1f} MiB) in {folder}",
        *([] if publication.passed else ["this version did not pass its gates; its model card says so"]),
    )
