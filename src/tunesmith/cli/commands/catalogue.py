"""`tunesmith catalogue`: the list of names that exist, for the judge."""

from __future__ import annotations

from pathlib import Path

import click

from tunesmith.cli.connection import connect
from tunesmith.cli.options import Globals, global_options, recipe_argument
from tunesmith.cli.render import Output, ago, table
from tunesmith.cli.source import upload
from tunesmith_proto.trainer.v1 import catalogues_pb2


@click.command("catalogue")
@recipe_argument
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--clear", is_flag=True, help="Take the catalogue away.")
@global_options()
@click.pass_obj
def catalogue(options: Globals, recipe: str, file: Path | None, clear: bool) -> None:
    """Set or show the names that exist for RECIPE, for the judge.

    FILE lists one name a line; for playlists, `Song — Artist`. Reports made from then on
    say how many of the answers stand in it.
    """
    if clear and file:
        raise click.UsageError("give a FILE or --clear, not both")
    out = Output(json=options.json)
    with connect(options) as connection:
        if clear:
            connection.call(connection.catalogues.ClearCatalogue, catalogues_pb2.ClearCatalogueRequest(recipe=recipe))
            return out.result({"recipe": recipe, "cleared": True}, f"{recipe} has no catalogue now")
        if file is not None:
            request = catalogues_pb2.SetCatalogueRequest(recipe=recipe, url=upload(connection, file))
            set_reply: catalogues_pb2.SetCatalogueResponse = connection.call(
                connection.catalogues.SetCatalogue, request
            )
            made = set_reply.catalogue
            return out.result(set_reply, f"catalogue of {recipe}: {made.num_names} names ({made.hash[:12]})")
        reply: catalogues_pb2.GetCatalogueResponse = connection.call(
            connection.catalogues.GetCatalogue, catalogues_pb2.GetCatalogueRequest(recipe=recipe)
        )
    found = reply.catalogue
    if not found.num_names:
        return out.result(reply, f"{recipe} has no catalogue; set one with `tunesmith catalogue {recipe} FILE`")
    return out.result(
        reply,
        f"catalogue of {recipe}: {found.num_names} names ({found.hash[:12]}), set {ago(found.create_time)}",
        table("", ["first names"], [[name] for name in found.sample]),
    )
