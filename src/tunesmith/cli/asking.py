"""Questions to the generator: inputs, seeds and parameters from options, and several answers at a time."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tunesmith.cli.connection import GENERATE_TIMEOUT_S, Connection
from tunesmith.recipes import RECIPES
from tunesmith_proto.generator.v1 import generator_pb2

MAX_IN_FLIGHT = 8
"""Questions sent at once: enough to fill a batch of the model, few enough to leave room for others."""

MAX_RANDOM_SEED = 1_000_000


def first_seed(given: int | None) -> int:
    """The seed of the first answer; a random one is small, so that a person can type it again."""
    return secrets.randbelow(MAX_RANDOM_SEED) if given is None else given


def inputs_for(recipe: str, seed: int, *, given: Mapping[str, str], prompt: str) -> Mapping[str, str]:
    """The inputs of one question: those given, else the recipe's for this seed; none beside a raw prompt."""
    if given or prompt:
        return given
    known = RECIPES.get(recipe)
    return known.inputs_of_seed(seed) if known else {"seed": str(seed)}


def answers(
    connection: Connection, requests: Iterable[generator_pb2.GenerateRequest]
) -> Iterator[generator_pb2.Answer]:
    """Answers in the order of the requests, with up to MAX_IN_FLIGHT of them on the way at once."""
    pending: deque[Any] = deque()
    try:
        for request in requests:
            if len(pending) >= MAX_IN_FLIGHT:
                yield pending.popleft().result().answer
            pending.append(connection.call(connection.generator.Generate.future, request, timeout_s=GENERATE_TIMEOUT_S))
        while pending:
            yield pending.popleft().result().answer
    finally:
        for call in pending:
            call.cancel()


def sampling(*, stop: Iterable[str], **given: float | bool | None) -> generator_pb2.GenerationParameters:
    """The options of `parameter_options` as GenerationParameters; those not given stay unset: the recipe's default."""
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return generator_pb2.GenerationParameters(stop=list(stop), **fields)


def with_seed(parameters: generator_pb2.GenerationParameters, seed: int) -> generator_pb2.GenerationParameters:
    """A copy of the parameters with this seed."""
    made = generator_pb2.GenerationParameters()
    made.CopyFrom(parameters)
    made.seed = seed
    return made
