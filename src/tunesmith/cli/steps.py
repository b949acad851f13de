"""One long step of the chain: send the request, follow its job, read the result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from google.longrunning import operations_pb2
from google.protobuf.message import Message

from tunesmith.cli.connection import Connection
from tunesmith.cli.problems import EXIT_REFUSED, JobFailed, Stopped, code_of
from tunesmith.cli.progress import display, follow
from tunesmith.cli.render import (
    Output,
    ago,
    anchors_line,
    counts,
    gates_table,
    measures_table,
    parity_lines,
    refusal_lines,
)
from tunesmith.domain.errors import DataLoss, FailedPrecondition, UnknownRecipe
from tunesmith_proto.common.v1 import jobs_pb2
from tunesmith_proto.scraper.v1 import scraper_pb2
from tunesmith_proto.trainer.v1 import models_pb2, trainer_pb2

M = TypeVar("M", bound=Message)

OPERATION_PREFIX = "operations/"
"""The rest of an operation's name is the id of its job."""

HEAVY_KINDS = ("tune", "judge", "sweep", "caption")
"""Jobs that use the whole machine, and so wait for each other."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A request that was accepted as a job."""

    job: jobs_pb2.Job
    operation: operations_pb2.Operation
    known: bool
    """The server had this job already."""


@dataclass(frozen=True, slots=True)
class Result(Generic[M]):
    """What a job made, and whether it was there before."""

    message: M
    reused: bool


def submit(connection: Connection, method: Callable[..., Any], request: Message) -> Submitted:
    """Send a request that starts a job."""
    operation: operations_pb2.Operation = connection.call(method, request)
    metadata = jobs_pb2.JobMetadata()
    operation.metadata.Unpack(metadata)
    job = metadata.job
    job.id = job.id or operation.name.removeprefix(OPERATION_PREFIX)
    return Submitted(job, operation, metadata.reused)


def result_of(connection: Connection, out: Output, submitted: Submitted, kind: type[M]) -> Result[M]:
    """The result of a job, waited for if need be; JobFailed unless it succeeded."""
    if submitted.operation.done and submitted.operation.HasField("response"):
        message = _response(submitted.operation, kind)
        return Result(message, reused=submitted.known or _says_reused(message))
    if submitted.known and not submitted.operation.done:
        out.note(f"continued: {submitted.job.kind} job {submitted.job.id} was under way already")
    if submitted.job.phase == jobs_pb2.JOB_PHASE_QUEUED:
        _note_queue(connection, out, submitted.job)
    message = followed_result(connection, out, submitted.job.id, kind)
    return Result(message, reused=_says_reused(message))


def _note_queue(connection: Connection, out: Output, job: jobs_pb2.Job) -> None:
    """Say what a queued job may have to wait for: another one of its service, such as that of an interrupted run."""
    if out.json:
        return
    request = jobs_pb2.ListJobsRequest(active_only=True)
    active: list[jobs_pb2.Job] = connection.pages(connection.jobs.ListJobs, request, "jobs", limit=100)
    for other in active:
        if (
            other.service == job.service
            and other.id != job.id
            and other.kind in HEAVY_KINDS
            and job.kind in HEAVY_KINDS
        ):
            out.note(
                f"{other.kind} job {other.id} is under way, so this one may have to wait; "
                f"`tunesmith jobs cancel {other.id}` stops it"
            )


def followed_result(connection: Connection, out: Output, job_id: str, kind: type[M], *, expected: bool = False) -> M:
    """Follow a job to its end and fetch what it made; JobFailed unless it succeeded. `expected` as in `updates`."""
    with display(out) as shown:
        job = follow(connection, job_id, shown, expected=expected)
    request = operations_pb2.GetOperationRequest(name=f"{OPERATION_PREFIX}{job_id}")
    return _response(connection.call(connection.operations_of(job.service).GetOperation, request), kind)


def _response(operation: operations_pb2.Operation, kind: type[M]) -> M:
    message = kind()
    if not operation.response.Unpack(message):
        raise DataLoss(
            f"{operation.name} holds no {kind.DESCRIPTOR.name}; server and client are of different versions",
            reason="WRONG_RESULT",
        )
    return message


def _says_reused(message: Message) -> bool:
    return bool(getattr(message, "reused", False))


@contextlib.contextmanager
def leaving_running(connection: Connection, job_id: str) -> Iterator[None]:
    """Ctrl-C in the block ends the watching, not the job; says so, and how to stop the job."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(
            f"job {job_id} goes on at {connection.address}: `tunesmith jobs watch {job_id}` follows it, "
            f"`tunesmith jobs cancel {job_id}` stops it"
        ) from None


def detached(out: Output, submitted: Submitted) -> None:
    """Show a job that is not waited for."""
    out.result({"job": submitted.job, "reused": submitted.known}, submitted.job.id)


def recipe_of(connection: Connection, name: str) -> trainer_pb2.Recipe:
    """The server's recipe of that name; UnknownRecipe lists the known ones."""
    reply: trainer_pb2.ListRecipesResponse = connection.call(
        connection.trainer.ListRecipes, trainer_pb2.ListRecipesRequest()
    )
    for recipe in reply.recipes:
        if recipe.name == name:
            return recipe
    known = sorted(recipe.name for recipe in reply.recipes)
    raise UnknownRecipe(
        f"recipe {name[:80]!r} is unknown; known recipes: {', '.join(known)}",
        metadata={"value": name[:80], "known": ",".join(known)},
    )


def newest_dataset_id(connection: Connection, recipe: str) -> str:
    """The dataset built last; FailedPrecondition when there is none."""
    found: list[trainer_pb2.Dataset] = connection.pages(
        connection.trainer.ListDatasets, trainer_pb2.ListDatasetsRequest(recipe=recipe), "datasets", limit=1
    )
    if not found:
        raise FailedPrecondition(
            f"recipe {recipe} has no dataset yet; build one with `tunesmith curate {recipe}`", reason="NO_DATASET"
        )
    return found[0].id


def champion_of(connection: Connection, recipe: str) -> str:
    """The model version that is served; empty when there is none."""
    reply: models_pb2.GetChampionResponse = connection.call(
        connection.models.GetChampion, models_pb2.GetChampionRequest(recipe=recipe)
    )
    return reply.champion.version


def report_of(connection: Connection, recipe: str, version: str) -> models_pb2.Report:
    """The report of a model version; the champion's for an empty one."""
    reply: models_pb2.GetReportResponse = connection.call(
        connection.models.GetReport, models_pb2.GetReportRequest(recipe=recipe, version=version)
    )
    return reply.report


def report_page(connection: Connection, recipe: str, version: str) -> bytes:
    """The report as one HTML page."""
    request = models_pb2.GetReportPageRequest(recipe=recipe, version=version)
    return b"".join(reply.chunk for reply in connection.call(connection.models.GetReportPage, request))


def judged_model(
    connection: Connection, out: Output, run: Result[trainer_pb2.Run], *, promote: bool, request_id: str
) -> models_pb2.ModelVersion:
    """The model version that came of a run: follows the job that judges it, or starts one where none follows.

    A reused run may point at a judging that failed in its time; that one is judged again.
    """
    if job_id := run.message.judge_job_id:
        try:
            return followed_result(connection, out, job_id, models_pb2.ModelVersion, expected=not run.reused)
        except (grpc.RpcError, JobFailed) as error:
            lost = isinstance(error, grpc.RpcError) and code_of(error) == "NOT_FOUND"
            if not lost and not (run.reused and isinstance(error, JobFailed)):
                raise
            out.note(f"judge job {job_id} {'does not exist' if lost else 'has failed before'}; judging again")
    request = trainer_pb2.JudgeRunRequest(
        recipe=run.message.recipe, run_id=run.message.id, promote=promote, request_id=request_id
    )
    submitted = submit(connection, connection.trainer.JudgeRun, request)
    return result_of(connection, out, submitted, models_pb2.ModelVersion).message


def show_verdict(out: Output, report: models_pb2.Report) -> int:
    """Show a report and what its gates say; returns the exit code."""
    out.show(measures_table(report), anchors_line(report))
    if report.passed:
        out.show(f"passed: model {report.model_version} passed all {len(report.gates)} gates", *parity_lines(report))
        return 0
    out.show(gates_table(report), *refusal_lines(report))
    return EXIT_REFUSED


def collected_line(result: Result[scraper_pb2.Collection]) -> str:
    """`collected: collection co-1, 1950 records (CC0-1.0 1950)`."""
    collection = result.message
    if result.reused:
        return f"reused: collection {collection.id} collected {ago(collection.create_time)}"
    line = f"collected: collection {collection.id}, {collection.num_records} records"
    line += f" ({counts(collection.licences)})" if collection.licences else ""
    return line + (f"; skipped: {counts(collection.skipped)}" if collection.skipped else "")


def curated_line(result: Result[trainer_pb2.Dataset]) -> str:
    """`curated: dataset ds-1, train 1560, validation 195, test 195; dropped: duplicate 3`."""
    dataset = result.message
    if result.reused:
        return f"reused: dataset {dataset.id} built {ago(dataset.create_time)}"
    line = f"curated: dataset {dataset.id}, {counts(dataset.num_examples)}"
    return line + (f"; dropped: {counts(dataset.dropped)}" if dataset.dropped else "")


def tuned_line(result: Result[trainer_pb2.Run]) -> str:
    """`tuned: run ru-1, 120 steps, losses 2.1 (train) and 2.3 (validation)`."""
    run = result.message
    if result.reused:
        return f"reused: run {run.id} tuned {ago(run.create_time)}"
    line = f"tuned: run {run.id}, {run.num_steps} steps{' (stopped early)' if run.stopped_early else ''}, "
    line += f"losses {run.train_loss:.4g} (train) and {run.validation_loss:.4g} (validation)"
    return line + (f"; {run.num_rows_dropped} rows were too long" if run.num_rows_dropped else "")
