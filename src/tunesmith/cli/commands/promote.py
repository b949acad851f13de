"""`tunesmith promote` and `rollback`: which model version is served."""

from __future__ import annotations

import click
import grpc

from tunesmith.cli.connection import GENERATE_TIMEOUT_S, Connection, connect
from tunesmith.cli.options import Globals, global_options, recipe_argument
from tunesmith.cli.problems import EXIT_REFUSED, code_of
from tunesmith.cli.render import Output, parity_lines, refusal_lines
from tunesmith.cli.steps import report_of
from tunesmith_proto.trainer.v1 import models_pb2

expect_option = click.option(
    "--expect", default="", metavar="VERSION", help="Refuse unless this version is the champion now."
)


@click.command("promote")
@recipe_argument
@click.argument("version")
@expect_option
@global_options()
@click.pass_obj
def promote(options: Globals, recipe: str, version: str, expect: str) -> int:
    """Make VERSION the champion of RECIPE.

    The generator is asked first whether it serves it as it was judged. Exit code 3 when its gates did not pass, or when
    it is served otherwise.
    """
    out = Output(json=options.json)
    request = models_pb2.PromoteModelRequest(recipe=recipe, version=version, expected_champion=expect)
    with connect(options) as connection:
        try:
            reply: models_pb2.PromoteModelResponse = connection.call(
                connection.models.PromoteModel, request, timeout_s=GENERATE_TIMEOUT_S
            )
        except grpc.RpcError as error:
            report = _refusing_report(connection, error, recipe, version)
            if report is None:
                raise
            out.result({"champion": None, "changed": False, "report": report}, *refusal_lines(report))
            return EXIT_REFUSED
        report = report_of(connection, recipe, reply.champion.version)
    verb = "is now" if reply.changed else "was already"
    said = f"{reply.champion.version} {verb} the champion of {recipe}"
    out.result(reply, said, *(parity_lines(report) if reply.changed else []))
    return 0


def _refusing_report(
    connection: Connection, error: grpc.RpcError, recipe: str, version: str
) -> models_pb2.Report | None:
    """The report whose gates are why a promotion was refused; None when it was refused for another reason."""
    if code_of(error) != "FAILED_PRECONDITION":
        return None
    try:
        report = report_of(connection, recipe, version)
    except grpc.RpcError:
        return None
    return None if report.passed else report


@click.command("rollback")
@recipe_argument
@expect_option
@global_options()
@click.pass_obj
def rollback(options: Globals, recipe: str, expect: str) -> None:
    """Give RECIPE back the champion before this one."""
    out = Output(json=options.json)
    request = models_pb2.RollbackModelRequest(recipe=recipe, expected_champion=expect)
    with connect(options) as connection:
        reply: models_pb2.RollbackModelResponse = connection.call(connection.models.RollbackModel, request)
    out.result(reply, f"{reply.champion.version} is the champion of {recipe} again")
