"""`tunesmith curate`: a dataset from collections."""

from __future__ import annotations

import uuid

import click

from tunesmith.cli.connection import connect
from tunesmith.cli.options import Globals, detach_option, global_options, recipe_argument, set_option, setting_values
from tunesmith.cli.render import Output
from tunesmith.cli.steps import curated_line, detached, leaving_running, result_of, submit
from tunesmith_proto.trainer.v1 import trainer_pb2


@click.command("curate")
@recipe_argument
@click.option("--collection", "collections", multiple=True, metavar="ID", help="Default: all of the recipe.")
@set_option
@detach_option
@global_options()
@click.pass_obj
def curate(
    options: Globals, recipe: str, collections: tuple[str, ...], settings: tuple[str, ...], detach: bool
) -> None:
    """Curate the records of RECIPE into a dataset."""
    out = Output(json=options.json)
    request = trainer_pb2.BuildDatasetRequest(recipe=recipe, collection_ids=collections, request_id=str(uuid.uuid4()))
    request.settings.update(setting_values(settings))
    with connect(options) as connection:
        submitted = submit(connection, connection.trainer.BuildDataset, request)
        if detach:
            return detached(out, submitted)
        with leaving_running(connection, submitted.job.id):
            result = result_of(connection, out, submitted, trainer_pb2.Dataset)
        return out.result({"dataset": result.message, "reused": result.reused}, curated_line(result))
