"""`tunesmith caption` and `captioners`: text from clips."""

from __future__ import annotations

import uuid

import click
from google.protobuf.struct_pb2 import Struct
from rich.console import RenderableType

from tunesmith.cli.connection import connect
from tunesmith.cli.options import Globals, detach_option, global_options, recipe_argument
from tunesmith.cli.progress import display, follow
from tunesmith.cli.render import Output, facts, plain, table
from tunesmith.cli.steps import detached, leaving_running, submit
from tunesmith_proto.captioner.v1 import captioner_pb2


@click.command("caption")
@recipe_argument
@click.argument("collection")
@click.option("--captioner", default="", help="One that `tunesmith captioners` lists; default: the server's choice.")
@detach_option
@global_options()
@click.pass_obj
def caption(options: Globals, recipe: str, collection: str, captioner: str, detach: bool) -> None:
    """Caption the clips of COLLECTION."""
    out = Output(json=options.json)
    with connect(options) as connection:
        request = captioner_pb2.CaptionClipsRequest(
            recipe=recipe, collection_id=collection, captioner=captioner, request_id=str(uuid.uuid4())
        )
        submitted = submit(connection, connection.captioner.CaptionClips, request)
        if detach:
            return detached(out, submitted)
        with leaving_running(connection, submitted.job.id), display(out) as shown:
            job = follow(connection, submitted.job.id, shown)
        return out.result({"job_id": job.id, "result": job.result}, f"captioned: {job.id}", _facts(job.result))


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


def _facts(result: Struct) -> RenderableType:
    return facts({name: value for name, value in plain(result).items() if isinstance(value, str | int | float)})
