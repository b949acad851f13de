"""`tunesmith watch`, `watches` and `unwatch`: sources that are collected again by themselves."""

from __future__ import annotations

from typing import Any

import click
from rich.console import RenderableType

from tunesmith.cli.connection import connect
from tunesmith.cli.options import Globals, duration, global_options, reading_options, recipe_argument
from tunesmith.cli.render import Output, ago, duration_text, facts, table
from tunesmith.cli.source import GivenSource, on_server
from tunesmith_proto.scraper.v1 import watches_pb2


@click.command("watch")
@recipe_argument
@click.argument("source")
@click.option("--every", type=duration, default="0", help="Of a URL 1m or more (1h by default); of a file 0: always.")
@reading_options
@global_options()
@click.pass_obj
def watch(options: Globals, /, recipe: str, source: str, every: float, **reading: Any) -> None:
    """Collect SOURCE for RECIPE again whenever it has changed.

    SOURCE is a file or folder that the server may read (TUNESMITH_SCRAPER_FILE_ROOTS), or a URL. Together with
    `tunesmith policy RECIPE --enable` new rows become a new model without another command.
    """
    out = Output(json=options.json)
    given = GivenSource.read(**{**reading, "source": on_server(source), "join": on_server(reading["join"])})
    with connect(options) as connection:
        reply: watches_pb2.PutWatchResponse = connection.call(
            connection.watches.PutWatch,
            watches_pb2.PutWatchRequest(recipe=recipe, source=given.source, every_s=every),
        )
    out.result(reply.watch, _facts(reply.watch))


@click.command("watches")
@click.argument("recipe", default="")
@global_options()
@click.pass_obj
def watches(options: Globals, recipe: str) -> None:
    """List the watched sources (of RECIPE)."""
    out = Output(json=options.json)
    with connect(options) as connection:
        reply: watches_pb2.ListWatchesResponse = connection.call(
            connection.watches.ListWatches, watches_pb2.ListWatchesRequest(recipe=recipe)
        )
    rows = [
        [one.id, one.recipe, one.source.url, _every(one), _last_job(one), _problem(one), ago(one.create_time)]
        for one in reply.watches
    ]
    columns = ["watch", "recipe", "source", "every", "last job", "problem", "since"]
    out.result(reply, table("", columns, rows))


@click.command("unwatch")
@click.argument("watch_id")
@global_options()
@click.pass_obj
def unwatch(options: Globals, watch_id: str) -> None:
    """Watch a source no longer; what was collected stays."""
    out = Output(json=options.json)
    with connect(options) as connection:
        connection.call(connection.watches.DeleteWatch, watches_pb2.DeleteWatchRequest(watch_id=watch_id))
    out.result({"watch_id": watch_id}, f"watch {watch_id} is removed")


def _facts(one: watches_pb2.Watch) -> RenderableType:
    return facts(
        {
            "watch": one.id,
            "recipe": one.recipe,
            "source": one.source.url,
            "every": _every(one),
            "last job": _last_job(one),
            "problem": _problem(one),
        }
    )


def _every(one: watches_pb2.Watch) -> str:
    return duration_text(one.every_s) or "at a change"


def _last_job(one: watches_pb2.Watch) -> str:
    if len(one.seen) > 1:
        return f"{len(one.seen)} files"
    return one.seen[0].job_id if one.seen else ""


def _problem(one: watches_pb2.Watch) -> str:
    return one.problem or next((f"{seen.name}: {seen.problem}".lstrip(": ") for seen in one.seen if seen.problem), "")
