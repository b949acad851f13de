"""`tunesmith judge`: a report on a run."""

from __future__ import annotations

import uuid

import click

from tunesmith.cli.connection import connect
from tunesmith.cli.options import Globals, detach_option, global_options, recipe_argument
from tunesmith.cli.render import Output
from tunesmith.cli.steps import detached, leaving_running, report_of, result_of, show_verdict, submit
from tunesmith_proto.trainer.v1 import models_pb2, trainer_pb2


@click.command("judge")
@recipe_argument
@click.argument("run")
@click.option("--promote", is_flag=True, help="Make it the champion when every gate passes.")
@detach_option
@global_options()
@click.pass_obj
def judge(options: Globals, recipe: str, run: str, promote: bool, detach: bool) -> int:
    """Measure the adapter of RUN against the base and the champion.

    Exit code 3 when the gates refuse it.
    """
    out = Output(json=options.json)
    request = trainer_pb2.JudgeRunRequest(recipe=recipe, run_id=run, promote=promote, request_id=str(uuid.uuid4()))
    with connect(options) as connection:
        submitted = submit(connection, connection.trainer.JudgeRun, request)
        if detach:
            detached(out, submitted)
            return 0
        with leaving_running(connection, submitted.job.id):
            result = result_of(connection, out, submitted, models_pb2.ModelVersion)
        report = report_of(connection, recipe, result.message.id)
        out.document({"model": result.message, "reused": result.reused, "report": report})
        return show_verdict(out, report)
