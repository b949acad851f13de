"""`tunesmith write`: training pairs from a language model."""

from __future__ import annotations

import uuid
from typing import Any

import click

from tunesmith.cli.connection import Connection, connect
from tunesmith.cli.options import Globals, detach_option, global_options, recipe_argument, source_options
from tunesmith.cli.render import Output, ago, counts, table
from tunesmith.cli.source import GivenSource
from tunesmith.cli.steps import Result, collected_line, detached, leaving_running, result_of, submit
from tunesmith_proto.scraper.v1 import scraper_pb2
from tunesmith_proto.trainer.v1 import pairs_pb2

MAX_REPLY_CHARS = 100
"""Of a bad reply on the screen."""


@click.command("write")
@recipe_argument
@click.option("--collection", metavar="ID", default="", help="Records to write pairs for.")
@source_options
@click.option("--mode", type=click.Choice(["rewrite", "invent"]), default="rewrite", show_default=True)
@click.option("--pairs", "num_pairs", type=click.IntRange(min=1), help="How many to invent.")
@click.option(
    "--llm",
    default="",
    metavar="URL",
    help="openai+https://host/v1?model=NAME, tgi+http://host, grpc://host:port or embedded; default: the server's.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Another asks anew.")
@detach_option
@global_options()
@click.pass_obj
def write(
    options: Globals,
    /,
    recipe: str,
    collection: str,
    mode: str,
    num_pairs: int | None,
    llm: str,
    seed: int,
    detach: bool,
    **source: Any,
) -> None:
    """Have a language model write training pairs for RECIPE.

    Rewrites the records of a collection (or of --source, which is collected first), or invents pairs of its own. What
    was written before an interruption is kept: the same command goes on from there.
    """
    out = Output(json=options.json)
    invent = mode == "invent"
    if invent and (collection or source["source"] or not num_pairs):
        raise click.UsageError("--mode invent takes --pairs and neither --collection nor --source")
    if not invent and (num_pairs or bool(collection) == bool(source["source"])):
        raise click.UsageError("give either --collection or --source (--pairs goes with --mode invent)")
    given = GivenSource.read(**source)
    with connect(options) as connection:
        if source["source"]:
            collection = _collected(connection, out, recipe, given)
        request = pairs_pb2.WritePairsRequest(
            recipe=recipe,
            mode=pairs_pb2.WRITE_MODE_INVENT if invent else pairs_pb2.WRITE_MODE_REWRITE,
            collection_id=collection,
            num_pairs=num_pairs or 0,
            seed=seed,
            llm=llm,
            request_id=str(uuid.uuid4()),
        )
        submitted = submit(connection, connection.pairs.WritePairs, request)
        if detach:
            return detached(out, submitted)
        with leaving_running(connection, submitted.job.id):
            result = result_of(connection, out, submitted, pairs_pb2.WrittenPairs)
        made = result.message
        shown: list[Any] = [written_line(result)]
        if made.bad_replies:
            rows = [[bad.reason, " ".join(bad.text.split())[:MAX_REPLY_CHARS]] for bad in made.bad_replies]
            shown.append(table("some of the bad replies", ["reason", "reply"], rows))
        return out.result({"collection": made, "reused": result.reused}, *shown)


def _collected(connection: Connection, out: Output, recipe: str, given: GivenSource) -> str:
    request = scraper_pb2.CollectRequest(
        recipe=recipe, source=given.resolved(connection, default_url=""), request_id=str(uuid.uuid4())
    )
    submitted = submit(connection, connection.scraper.Collect, request)
    with leaving_running(connection, submitted.job.id):
        result = result_of(connection, out, submitted, scraper_pb2.Collection)
    out.show(collected_line(result))
    return result.message.id


def written_line(result: Result[pairs_pb2.WrittenPairs]) -> str:
    """`written: collection col-2, 24 pairs of col-1 (llama 3, playlist-pairs 1, rewrite); bad: not_json 1`."""
    made = result.message
    if result.reused:
        return f"reused: collection {made.id} written {ago(made.create_time)}"
    line = f"written: collection {made.id}, {made.num_written} pairs"
    line += f" of {made.derived_from}" if made.derived_from else ""
    line += f" ({made.derived_by})"
    return line + (f"; bad: {counts(made.bad)}" if made.bad else "")
