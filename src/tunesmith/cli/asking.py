"""Questions to the generator: seeds and parameters from options, and several answers at a time."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from tunesmith.cli.connection import GENERATE_TIMEOUT_S, Connection
from tunesmith_proto.generator.v1 import generator_pb2

MAX_IN_FLIGHT = 8
"""Questions sent at once: enough to fill a batch of the model, few enough to leave room for others."""

MAX_RANDOM_SEED = 1_000_000

SEEDS_PER_ANSWER = 2
"""How many seeds are asked for each answer that is wanted, at most, to replace answers that come twice."""


def first_seed(given: int | None) -> int:
    """The seed of the first answer; a random one is small, so that a person can type it again."""
    return secrets.randbelow(MAX_RANDOM_SEED) if given is None else given


def sampling(*, stop: Iterable[str], **given: float | bool | str | None) -> generator_pb2.GenerationParameters:
    """The options of `parameter_options` as GenerationParameters; those not given stay unset: the recipe's default."""
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return generator_pb2.GenerationParameters(stop=list(stop), **fields)


def with_seed(parameters: generator_pb2.GenerationParameters, seed: int) -> generator_pb2.GenerationParameters:
    """A copy of the parameters with this seed."""
    made = generator_pb2.GenerationParameters()
    made.CopyFrom(parameters)
    made.seed = seed
    return made


def answers(
    connection: Connection, question: Callable[[int], generator_pb2.GenerateRequest], *, start: int, count: int
) -> list[generator_pb2.Answer]:
    """`count` answers in the order of their seeds from `start` on, with up to MAX_IN_FLIGHT on the way at once.

    The server answers a known text with that of the next seed, so that two seeds can give the same answer: the second
    is passed over and a further seed asked, as long as SEEDS_PER_ANSWER allows; then repeats fill the rest.
    """
    seeds = iter(range(start, start + count * SEEDS_PER_ANSWER))
    pending: deque[Any] = deque()
    found: list[generator_pb2.Answer] = []
    repeats: list[generator_pb2.Answer] = []
    seen: set[str] = set()
    ask = connection.generator.Generate.future
    try:
        while len(found) < count:
            while len(pending) < min(MAX_IN_FLIGHT, count - len(found)) and (seed := next(seeds, None)) is not None:
                pending.append(connection.call(ask, question(seed), timeout_s=GENERATE_TIMEOUT_S))
            if not pending:
                break
            answer = pending.popleft().result().answer
            (repeats if answer.text in seen else found).append(answer)
            seen.add(answer.text)
    finally:
        for call in pending:
            call.cancel()
    return found + repeats[: count - len(found)]
