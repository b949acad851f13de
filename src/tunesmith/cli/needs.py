"""What a recipe needs beyond collected records: how `tunesmith run` asks for it, one entry a need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from tunesmith.cli.commands.caption import captioned_line
from tunesmith.cli.commands.write import written_line
from tunesmith.cli.connection import Connection
from tunesmith.cli.steps import Result
from tunesmith.domain.errors import Unsupported
from tunesmith_proto.captioner.v1 import captioner_pb2
from tunesmith_proto.trainer.v1 import pairs_pb2, trainer_pb2


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
    connection: Connection, recipe: trainer_pb2.Recipe, collection_id: str, *, request_id: str, llm: str = ""
) -> Derivation | None:
    """How what the recipe needs is added to a collection; None for a recipe that needs nothing.

    `llm` names a language model that is to write pairs, whether or not they are needed.
    Unsupported for a need that this client does not know.
    """
    if llm or recipe.needs == "pairs":
        return Derivation(
            connection.pairs.WritePairs,
            pairs_pb2.WritePairsRequest(
                recipe=recipe.name, collection_id=collection_id, llm=llm, request_id=request_id
            ),
            pairs_pb2.WrittenPairs,
            written_line,
        )
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
