"""`tunesmith jobs`: list, show, watch and cancel."""

from __future__ import annotations

import click

from tunesmith.cli.connection import connect
from tunesmith.cli.options import Globals, SuggestingGroup, global_options, limit_option
from tunesmith.cli.problems import JobFailed, Stopped
from tunesmith.cli.progress import display, updates
from tunesmith.cli.render import Output, ago, facts, phase_name, progress_text, settings_text, table
from tunesmith_proto.common.v1 import jobs_pb2


@click.group("jobs", cls=SuggestingGroup, invoke_without_command=True)
@global_options()
@click.pass_context
def jobs(context: click.Context) -> None:
    """List, show, watch and cancel jobs.

    Without a sub-command: list.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_jobs)


@jobs.command("list")
@click.option("--active", is_flag=True, help="Only jobs that have not ended.")
@click.option("--kind", default="", help="collect, caption, curate, tune, judge or sweep.")
@limit_option
@global_options()
@click.pass_obj
def list_jobs(options: Globals, active: bool, kind: str, limit: int) -> None:
    """List jobs, newest first."""
    out = Output(json=options.json)
    with connect(options) as connection:
        request = jobs_pb2.ListJobsRequest(kind=kind, active_only=active)
        found: list[jobs_pb2.Job] = connection.pages(connection.jobs.ListJobs, request, "jobs", limit=limit)
    rows = [
        [
            job.id,
            job.kind,
            phase_name(job),
            job.priority,
            progress_text(job.progress) or job.error.reason,
            ago(job.create_time),
        ]
        for job in found
    ]
    out.result({"jobs": found}, table("", ["job", "kind", "phase", "priority", "progress", "created"], rows))


@jobs.command("show")
@click.argument("job_id")
@global_options()
@click.pass_obj
def show_job(options: Globals, job_id: str) -> None:
    """Show one job."""
    out = Output(json=options.json)
    with connect(options) as connection:
        reply: jobs_pb2.GetJobResponse = connection.call(connection.jobs.GetJob, jobs_pb2.GetJobRequest(job_id=job_id))
    job = reply.job
    out.result(
        job,
        facts(
            {
                "job": job.id,
                "kind": job.kind,
                "service": job.service,
                "phase": phase_name(job) + (", asked to stop" if job.cancel_requested else ""),
                "attempt": job.attempt,
                "priority": job.priority,
                "progress": progress_text(job.progress),
                "created": ago(job.create_time),
                "changed": ago(job.update_time),
                "request": settings_text(job.request),
                "result": settings_text(job.result),
                "error": job.error.message,
                "reason": job.error.reason,
            }
        ),
    )


@jobs.command("watch")
@click.argument("job_id")
@global_options()
@click.pass_obj
def watch_job(options: Globals, job_id: str) -> None:
    """Follow a job until it has ended.

    With --json a line for every change. Exit code 1 unless the job succeeded.
    """
    out = Output(json=options.json)
    with connect(options) as connection:
        try:
            with display(out) as shown:
                for job in updates(connection, job_id, on_lost=shown.lost):
                    out.document(job)
                    shown.show(job)
        except KeyboardInterrupt:
            raise Stopped(f"job {job_id} goes on; `tunesmith jobs cancel {job_id}` stops it") from None
    if job.phase != jobs_pb2.JOB_PHASE_SUCCEEDED:
        raise JobFailed(job)
    out.show(f"{job.kind} job {job.id} succeeded")


@jobs.command("cancel")
@click.argument("job_id")
@global_options()
@click.pass_obj
def cancel_job(options: Globals, job_id: str) -> None:
    """Ask a job to stop."""
    out = Output(json=options.json)
    with connect(options) as connection:
        found: jobs_pb2.GetJobResponse = connection.call(connection.jobs.GetJob, jobs_pb2.GetJobRequest(job_id=job_id))
        reply: jobs_pb2.CancelJobResponse = connection.call(
            connection.jobs_of(found.job.service).CancelJob, jobs_pb2.CancelJobRequest(job_id=job_id)
        )
    phase = phase_name(reply.job)
    ended = phase in ("succeeded", "failed", "cancelled")
    out.result(
        reply.job,
        f"job {job_id} has {phase} already"
        if ended and phase != "cancelled"
        else f"job {job_id} is {'cancelled' if ended else 'asked to stop'}",
    )
