"""`tunesmith fetch`: the files that a server of one version is started with."""

from __future__ import annotations

from pathlib import Path

import click

from tunesmith.cli.options import Globals, global_options
from tunesmith.cli.render import Output
from tunesmith.platform import open_store
from tunesmith.servable import adapter_folder, base_folder, fetch_servable
from tunesmith.settings import Settings


@click.command("fetch")
@click.argument("recipe")
@click.argument("version")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@global_options()
@click.pass_obj
def fetch(options: Globals, recipe: str, version: str, folder: Path) -> int:
    """Fetch from the store into FOLDER what a server of VERSION is started with.

    That is its adapter in adapters/VERSION and, unless the base is of the Hub, the base in a folder named by its
    fingerprint. Needs no server; for containers that prepare one. For other programs there is `tunesmith export`.
    """
    out = Output(json=options.json)
    found = fetch_servable(open_store(Settings.read(data=options.data)), recipe, version, folder)
    names = [str(folder / name) for name in (adapter_folder(found), base_folder(found)) if name]
    document = {"recipe": found.recipe, "version": found.id, "base_model": found.base_model, "folders": names}
    out.result(document, "\n".join(names))
    return 0
