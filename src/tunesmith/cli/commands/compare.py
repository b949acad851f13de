"""`tunesmith compare`: several models on the same prompts, side by side."""

from __future__ import annotations

from typing import Any

import click

from tunesmith.cli.asking import first_seed, sampling, with_seed
from tunesmith.cli.connection import GENERATE_TIMEOUT_S, connect
from tunesmith.cli.options import (
    Globals,
    global_options,
    pairs,
    parameter_options,
    prompt_options,
    recipe_argument,
)
from tunesmith.cli.render import Output, remark, table
from tunesmith_proto.generator.v1 import generator_pb2

DEFAULT_MODELS = ("base", "champion")
MAX_MODELS = 8


@click.command("compare")
@recipe_argument
@prompt_options
@click.option(
    "--model", "models", multiple=True, help="champion, base or a version's id; up to 8. Default: base and champion."
)
@click.option("-n", "--count", type=click.IntRange(1, 1000), default=5, show_default=True, help="Prompts.")
@parameter_options
@global_options()
@click.pass_obj
def compare(
    options: Globals,
    /,
    recipe: str,
    inputs: tuple[str, ...],
    prompt: str,
    models: tuple[str, ...],
    count: int,
    seed: int | None,
    **parameters: Any,
) -> None:
    """Ask several models the same, side by side."""
    out = Output(json=options.json)
    given = pairs(inputs, option="--input")
    if given and prompt:
        raise click.UsageError("--input and --prompt exclude each other: a raw prompt has no inputs")
    models = models or DEFAULT_MODELS
    if len(models) > MAX_MODELS:
        raise click.BadParameter(f"{len(models)} models are given, at most {MAX_MODELS} fit", param_hint="--model")
    common = sampling(**parameters)
    start = first_seed(seed)
    replies: list[tuple[int, generator_pb2.CompareResponse]] = []
    with connect(options) as connection:
        for each in range(start, start + count):
            request = generator_pb2.CompareRequest(
                recipe=recipe,
                inputs=given,
                prompt=prompt,
                parameters=with_seed(common, each),
                models=models,
            )
            replies.append((each, connection.call(connection.generator.Compare, request, timeout_s=GENERATE_TIMEOUT_S)))
    rows = [[each, *(_cell(answer) for answer in reply.answers)] for each, reply in replies]
    out.result(
        {"models": models, "comparisons": [{"seed": each, "answers": reply.answers} for each, reply in replies]},
        table("", ["seed", *models], rows),
    )


def _cell(answer: generator_pb2.Answer) -> str:
    said = remark(answer)
    return f"{answer.text} ({said})" if said else answer.text
