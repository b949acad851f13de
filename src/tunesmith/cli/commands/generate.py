"""`tunesmith generate`: answers of one model."""

from __future__ import annotations

from typing import Any

import click

from tunesmith.cli.asking import answers, first_seed, sampling, with_seed
from tunesmith.cli.connection import GENERATE_TIMEOUT_S, Connection, connect
from tunesmith.cli.options import (
    Globals,
    global_options,
    pairs,
    parameter_options,
    prompt_options,
    recipe_argument,
)
from tunesmith.cli.render import Output, answers_table, remark, seed_text
from tunesmith_proto.generator.v1 import generator_pb2


@click.command("generate")
@recipe_argument
@prompt_options
@click.option("-n", "--count", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Answers.")
@click.option("--model", default="champion", show_default=True, help="champion, base or a version's id.")
@click.option("--stream", is_flag=True, help="Token by token.")
@click.option("--allow-known", is_flag=True, help="Take answers that are in the training data.")
@parameter_options
@global_options()
@click.pass_obj
def generate(
    options: Globals,
    /,
    recipe: str,
    inputs: tuple[str, ...],
    prompt: str,
    count: int,
    model: str,
    stream: bool,
    allow_known: bool,
    seed: int | None,
    **parameters: Any,
) -> None:
    """Ask the champion of RECIPE, or another model, for answers.

    With -n, the seeds count up from --seed, passing over answers that come twice. The same seed and model give the
    same answer. Without --input and --prompt the recipe makes its inputs from the seed.
    """
    out = Output(json=options.json)
    given = pairs(inputs, option="--input")
    if given and prompt:
        raise click.UsageError("--input and --prompt exclude each other: a raw prompt has no inputs")
    common = sampling(**parameters)

    def question(each: int) -> generator_pb2.GenerateRequest:
        return generator_pb2.GenerateRequest(
            recipe=recipe,
            inputs=given,
            prompt=prompt,
            parameters=with_seed(common, each),
            model=model,
            allow_known=allow_known,
        )

    start = first_seed(seed)
    with connect(options) as connection:
        if stream:
            for each in range(start, start + count):
                _stream(connection, out, question(each))
            return
        found = answers(connection, question, start=start, count=count)
    out.result({"answers": found}, answers_table("", found), _origin(found))


def _origin(found: list[generator_pb2.Answer]) -> str:
    return f"answered by {', '.join(sorted({answer.model_version for answer in found}))}"


def _stream(connection: Connection, out: Output, request: generator_pb2.GenerateRequest) -> None:
    wrapped = generator_pb2.GenerateStreamRequest(request=request)
    for reply in connection.call(connection.generator.GenerateStream, wrapped, timeout_s=GENERATE_TIMEOUT_S):
        out.document(reply)
        match reply.WhichOneof("event"):
            case "token" if not reply.token.special:
                out.piece(reply.token.text)
            case "restarted":
                out.piece(f"\n[void: {reply.restarted.reason}; attempt {reply.restarted.attempt}]\n")
            case "answer":
                answer = reply.answer
                said = f" ({remark(answer)})" if remark(answer) else ""
                out.piece(f"\n= {answer.text}{said}  [seed {seed_text(answer)}, {answer.model_version}]\n")
