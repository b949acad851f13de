"""`tunesmith tune`: an adapter from a dataset."""

from __future__ import annotations

import uuid
from typing import Literal

import click

from tunesmith.cli.connection import connect
from tunesmith.cli.options import (
    Globals,
    detach_option,
    global_options,
    priority_option,
    recipe_argument,
    set_option,
    setting_values,
)
from tunesmith.cli.render import Output
from tunesmith.cli.steps import (
    detached,
    judged_model,
    leaving_running,
    newest_dataset_id,
    report_of,
    result_of,
    show_verdict,
    submit,
    tuned_line,
)
from tunesmith_proto.trainer.v1 import trainer_pb2

FOLLOW_UPS = {
    "none": trainer_pb2.FOLLOW_UP_NONE,
    "judge": trainer_pb2.FOLLOW_UP_JUDGE,
    "promote": trainer_pb2.FOLLOW_UP_PROMOTE,
}


@click.command("tune")
@recipe_argument
@click.argument("dataset", default="")
@click.option("--base-model", default="", help="builtin:tiny, builtin:tiny-text, a Hub id or a folder.")
@set_option
@click.option(
    "--then",
    type=click.Choice(list(FOLLOW_UPS)),
    default="promote",
    show_default=True,
    help="What follows; promote: when every gate passes.",
)
@priority_option
@detach_option
@global_options()
@click.pass_obj
def tune(
    options: Globals,
    recipe: str,
    dataset: str,
    base_model: str,
    settings: tuple[str, ...],
    then: Literal["none", "judge", "promote"],
    priority: int,
    detach: bool,
) -> int:
    """Tune an adapter for RECIPE on DATASET (the newest one by default).

    Exit code 3 when the gates refuse the result.
    """
    out = Output(json=options.json)
    values = setting_values(settings)
    with connect(options) as connection:
        request = trainer_pb2.StartRunRequest(
            recipe=recipe,
            dataset_id=dataset or newest_dataset_id(connection, recipe),
            base_model=base_model,
            follow_up=FOLLOW_UPS[then],
            request_id=str(uuid.uuid4()),
            priority=priority,
        )
        request.settings.update(values)
        submitted = submit(connection, connection.trainer.StartRun, request)
        if detach:
            detached(out, submitted)
            return 0
        with leaving_running(connection, submitted.job.id):
            run = result_of(connection, out, submitted, trainer_pb2.Run)
        out.show(tuned_line(run))
        if then == "none":
            out.document({"run": run.message, "reused": run.reused, "model": None, "report": None})
            return 0
        with leaving_running(connection, run.message.judge_job_id or "that judges"):
            model = judged_model(connection, out, run, promote=then == "promote", request_id=str(uuid.uuid4()))
        report = report_of(connection, recipe, model.id)
        out.document({"run": run.message, "reused": run.reused, "model": model, "report": report})
        return show_verdict(out, report)
