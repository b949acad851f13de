"""`tunesmith collect`: records of a source."""

from __future__ import annotations

import uuid
from typing import Any

import click

from tunesmith.cli.connection import connect
from tunesmith.cli.options import Globals, detach_option, global_options, recipe_argument, source_options
from tunesmith.cli.render import Output
from tunesmith.cli.source import GivenSource
from tunesmith.cli.steps import collected_line, detached, leaving_running, recipe_of, result_of, submit
from tunesmith_proto.scraper.v1 import scraper_pb2


@click.command("collect")
@recipe_argument
@source_options
@detach_option
@global_options()
@click.pass_obj
def collect(options: Globals, /, recipe: str, detach: bool, **source: Any) -> None:
    """Collect the records of a source for RECIPE.

    A source is a local file, or a URL: sample:NAME, https://…, musicbrainz:genres, or file:///… on the server.
    """
    out = Output(json=options.json)
    given = GivenSource.read(**source)
    with connect(options) as connection:
        known = recipe_of(connection, recipe)
        request = scraper_pb2.CollectRequest(
            recipe=recipe,
            source=given.resolved(connection, default_url=known.default_source),
            request_id=str(uuid.uuid4()),
        )
        submitted = submit(connection, connection.scraper.Collect, request)
        if detach:
            return detached(out, submitted)
        with leaving_running(connection, submitted.job.id):
            result = result_of(connection, out, submitted, scraper_pb2.Collection)
        return out.result({"collection": result.message, "reused": result.reused}, collected_line(result))
