"""`tunesmith caption` and `captioners`: text from clips."""

from __future__ import annotations

import uuid

import click

from tunesmith.cli.connection import connect
from tunesmith.cli.options import Globals, detach_option, global_options, recipe_argument
from tunesmith.cli.render import Output, ago, table
from tunesmith.cli.steps import Result, detached, leaving_running, result_of, submit
from tunesmith_proto.captioner.v1 import captioner_pb2


@click.command("caption")
@recipe_argument
@click.argument("collection")
@click.option(
    "--captioner",
    "captioners",
    multiple=True,
    help="One that `tunesmith captioners` lists, at most one for each kind of media; default: the server's choice.",
)
@detach_option
@global_options()
@click.pass_obj
def caption(options: Globals, recipe: str, collection: str, captioners: tuple[str, ...], detach: bool) -> None:
    """Caption the clips of COLLECTION."""
    out = Output(json=options.json)
    with connect(options) as connection:
        request = captioner_pb2.CaptionClipsRequest(
            recipe=recipe, collection_id=collection, captioners=captioners, request_id=str(uuid.uuid4())
        )
        submitted = submit(connection, connection.captioner.CaptionClips, request)
        if detach:
            return detached(out, submitted)
        with leaving_running(connection, submitted.job.id):
            result = result_of(connection, out, submitted, captioner_pb2.CaptionedCollection)
        shown = [captioned_line(result)]
        made = result.message
        if made.failures:
            rows = [
                ["captioned", str(made.num_records - made.num_failed)],
                *([reason, str(count)] for reason, count in sorted(made.failures.items())),
            ]
            return out.result(
                {"collection": made, "reused": result.reused}, *shown, table("", ["clips", "count"], rows)
            )
        return out.result({"collection": made, "reused": result.reused}, *shown)


def captioned_line(result: Result[captioner_pb2.CaptionedCollection]) -> str:
    """`captioned: collection col-2, 24 of 25 records of col-1 (signal-audio 1, signal-video 1)`."""
    made = result.message
    if result.reused:
        return f"reused: collection {made.id} captioned {ago(made.create_time)}"
    captioned = made.num_records - made.num_failed
    return (
        f"captioned: collection {made.id}, {captioned} of {made.num_records} records of {made.derived_from} "
        f"({made.derived_by})"
    )


@click.command("captioners")
@global_options()
@click.pass_obj
def captioners(options: Globals) -> None:
    """List the captioners that the server can run."""
    out = Output(json=options.json)
    with connect(options) as connection:
        reply: captioner_pb2.ListCaptionersResponse = connection.call(
            connection.captioner.ListCaptioners, captioner_pb2.ListCaptionersRequest()
        )
    rows = [[one.name, one.version, ", ".join(_media(kind) for kind in one.media_kinds)] for one in reply.captioners]
    if not rows:
        return out.result(reply, "this server can run no captioner")
    return out.result(reply, table("", ["captioner", "version", "media"], rows))


def _media(kind: captioner_pb2.MediaKind) -> str:
    return captioner_pb2.MediaKind.Name(kind).removeprefix("MEDIA_KIND_").lower()
