"""What a recipe needs beyond collected records: how `tunesmith run` asks for it, one entry a need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from tunesmith.cli.commands.caption import captioned_line
from tunesmith.cli.connection import Connection
from tunesmith.cli.steps import Result
from tunesmith.domain.errors import Unsupported
from tunesmith_proto.captioner.v1 import captioner_pb2
from tunesmith_proto.trainer.v1 import trainer_pb2


@dataclass(frozen=True, slots=True)
class Derivation:
    """The request that makes a derived collection of a collected one."""

    method: Callable[..., Any]
    request: Message
    kind: type[Message]
    """Message of the derived collection; it has `id` and `reused`."""
    line: Callable[[Result[Any]], str]
    """Says to people what came of it."""


def derivation(
    connection: Connection, recipe: trainer_pb2.Recipe, collection_id: str, *, request_id: str
) -> Derivation | None:
    """How what the recipe needs is added to a collection; None for a recipe that needs nothing.

    Unsupported for a need that this client does not know.
    """
    match recipe.needs:
        case "":
            return None
        case "captions":
            return Derivation(
                connection.captioner.CaptionClips,
                captioner_pb2.CaptionClipsRequest(
                    recipe=recipe.name, collection_id=collection_id, request_id=request_id
                ),
                captioner_pb2.CaptionedCollection,
                captioned_line,
            )
        case _:
            raise Unsupported(
                f"recipe {recipe.name} needs {recipe.needs}, which this client cannot ask for; use the client of the "
                "server's version",
                metadata={"recipe": recipe.name, "needs": recipe.needs},
            )
