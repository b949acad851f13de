"""What went wrong, as one value: message, reason and metadata on standard error, and the exit code."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tunesmith.domain.errors import TunesmithError
from tunesmith.status_codes import code_name_of
from tunesmith_proto.common.v1 import jobs_pb2

EXIT_ERROR = 1
EXIT_REFUSED = 3
EXIT_UNAVAILABLE = 69
EXIT_INTERRUPTED = 130

NO_SERVER = "NO_SERVER"


class JobFailed(Exception):
    """A job that was waited for ended without a result."""

    def __init__(self, job: jobs_pb2.Job) -> None:
        super().__init__(job.error.message)
        self.job = job


class Stopped(Exception):
    """Ctrl-C, after which the message says what is saved and how to go on."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as it is shown. `code` is the name of a gRPC status code."""

    code: str
    reason: str
    message: str
    exit_code: int
    metadata: Mapping[str, str] = field(default_factory=dict)


def problem_of(error: BaseException) -> Problem | None:
    """The problem behind an exception that a user can meet; None for our own mistakes."""
    if isinstance(error, Stopped):
        return Problem("CANCELLED", "INTERRUPTED", str(error), EXIT_INTERRUPTED)
    if isinstance(error, JobFailed):
        return _of_job(error.job)
    if isinstance(error, TunesmithError):
        code = code_name_of(error)
        return Problem(code, error.reason, error.message, _exit_code(code), error.metadata)
    if isinstance(error, grpc.RpcError):
        return _of_rpc(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Problem("UNKNOWN", "FILE_ERROR", f"{where}{error.strerror or error}", EXIT_ERROR)
    return None


def _of_job(job: jobs_pb2.Job) -> Problem:
    verb = "was cancelled" if job.phase == jobs_pb2.JOB_PHASE_CANCELLED else "failed"
    message = f"{job.kind} job {job.id} {verb}"
    if job.error.message:
        message += f": {job.error.message}"
    code = job.error.code or ("CANCELLED" if verb == "was cancelled" else "UNKNOWN")
    return Problem(code, job.error.reason, message, EXIT_ERROR, {**job.error.metadata, "job_id": job.id})


def code_of(error: grpc.RpcError) -> str:
    """Name of the status code of a failed call."""
    return error.code().name if isinstance(error, grpc.Call) else "UNKNOWN"


def _of_rpc(error: grpc.RpcError) -> Problem:
    code = code_of(error)
    message = (error.details() if isinstance(error, grpc.Call) else "") or str(error)
    info = error_info(error)
    if info is None:
        hint = _HINTS.get(code, "")
        return Problem(code, "", f"{message}; {hint}" if hint else message, _exit_code(code))
    return Problem(code, info.reason, message, _exit_code(code), dict(info.metadata))


_HINTS = {
    "DEADLINE_EXCEEDED": "give it longer with --timeout SECONDS",
    "UNAVAILABLE": "the connection to the server was lost; work that it had accepted is kept, so try again",
    "UNAUTHENTICATED": "the client takes the token from the variable TUNESMITH_AUTH_TOKEN",
    "UNIMPLEMENTED": "the server is older than this client, or does not run that service",
}


def error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo | None:
    """The google.rpc.ErrorInfo that the server sent with a failed call, if it did."""
    if not isinstance(error, grpc.Call):
        return None
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # details that contradict the status: not one of ours
        return None
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info
    return None


def _exit_code(code: str) -> int:
    return EXIT_UNAVAILABLE if code == "UNAVAILABLE" else EXIT_ERROR


def _nearest(problem: Problem) -> str:
    """A suggestion for a mistyped name, where the error lists the known ones."""
    known = [name.strip() for name in problem.metadata.get("known", "").split(",") if name.strip()]
    nearest = difflib.get_close_matches(problem.metadata.get("value", ""), known, n=2, cutoff=0.5)
    return f"Did you mean {' or '.join(nearest)}?" if nearest else ""


def print_problem(problem: Problem, *, as_json: bool) -> None:
    """Show a problem on standard error: lines for people, or one JSON object."""
    if as_json:
        row = {
            "code": problem.code,
            "reason": problem.reason,
            "message": problem.message,
            "metadata": dict(problem.metadata),
        }
        print(json.dumps(row), file=sys.stderr)
        return
    if problem.exit_code == EXIT_INTERRUPTED:
        print(problem.message, file=sys.stderr)
        return
    from rich.console import Console
    from rich.text import Text

    from tunesmith.cli.render import clean

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error: ", "bold red"), clean(problem.message)))
    if nearest := _nearest(problem):
        console.print(Text(clean(nearest), "bold"))
    if problem.reason and problem.reason != NO_SERVER:
        console.print(Text(f"  reason: {clean(problem.reason)} ({problem.code})", "dim"))
    for name, value in sorted(problem.metadata.items()):
        console.print(Text(f"  {clean(name)}: {clean(value)}", "dim"))
