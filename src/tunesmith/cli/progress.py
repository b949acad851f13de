"""Following a job: the watching stream, re-opened when it breaks, and the bars, lines or silence it is shown as."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import grpc
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tunesmith.cli.connection import WATCH_TIMEOUT_S, Connection
from tunesmith.cli.problems import JobFailed, code_of
from tunesmith.cli.render import Output, clean, phase_name, progress_text, values_text
from tunesmith.domain.errors import Unavailable
from tunesmith_proto.common.v1 import jobs_pb2

MAX_RECONNECTS = 8
"""Broken connections in a row before giving up: about a minute."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0

_TERMINAL = (jobs_pb2.JOB_PHASE_SUCCEEDED, jobs_pb2.JOB_PHASE_FAILED, jobs_pb2.JOB_PHASE_CANCELLED)


class Display(Protocol):
    """Shows a job while it goes on."""

    def show(self, job: jobs_pb2.Job) -> None:
        """Show the job as it is now."""
        ...

    def lost(self, message: str) -> None:
        """Tell that the connection broke and is being made again."""
        ...


class Silent:
    """Shows nothing: for programs."""

    def show(self, job: jobs_pb2.Job) -> None:
        """Nothing."""

    def lost(self, message: str) -> None:
        """Nothing."""


class Lines:
    """A line whenever the stage changes and at every tenth of it: for logs and pipes."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._shown: tuple[str, int] | None = None

    def show(self, job: jobs_pb2.Job) -> None:
        """One line when there is news worth one."""
        now = job.progress
        mark = (now.stage or phase_name(job), now.done * 10 // now.total if now.total else 0)
        if mark == self._shown or is_terminal(job):
            return
        self._shown = mark
        self._out.note(f"{job.kind}: {progress_text(now) or phase_name(job)}")

    def lost(self, message: str) -> None:
        """One line."""
        self._out.note(message)


class Bars:
    """A bar for each stage: done and total, losses, elapsed and remaining time. For terminals."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage = ""
        self._task: TaskID | None = None

    def show(self, job: jobs_pb2.Job) -> None:
        """Update the bar, or begin the next one when the stage has changed."""
        now = job.progress
        stage = now.stage or phase_name(job)
        if is_terminal(job):
            self._end(complete=job.phase == jobs_pb2.JOB_PHASE_SUCCEEDED)
            return
        if self._task is None or stage != self._stage:
            self._end(complete=True)
            self._stage = stage
            self._task = self._progress.add_task(clean(f"{job.kind}: {stage}"), total=None, unit="", live="")
        self._progress.update(
            self._task,
            completed=now.done,
            total=now.total or None,
            unit=clean(now.unit),
            live=clean(values_text(now.values) or now.message),
        )

    def lost(self, message: str) -> None:
        """A line above the bars."""
        self._progress.console.print(clean(message))

    def _end(self, *, complete: bool) -> None:
        if self._task is None:
            return
        task = next(task for task in self._progress.tasks if task.id == self._task)
        if complete:
            total = task.total or max(task.completed, 1)
            self._progress.update(self._task, total=total, completed=total)
        self._progress.stop_task(self._task)
        self._task = None


@contextlib.contextmanager
def display(out: Output) -> Iterator[Display]:
    """What suits the output: nothing under --json, bars on a terminal, lines elsewhere."""
    if out.json:
        yield Silent()
        return
    if not out.notes.is_terminal:
        yield Lines(out)
        return
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        TextColumn("{task.fields[live]}", markup=False, style="cyan"),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=out.notes) as progress:
        yield Bars(progress)


def is_terminal(job: jobs_pb2.Job) -> bool:
    """Whether the job has ended."""
    return job.phase in _TERMINAL


def updates(
    connection: Connection,
    job_id: str,
    *,
    on_lost: Callable[[str], None] = lambda _message: None,
    pause: Callable[[float], None] = time.sleep,
    expected: bool = False,
) -> Iterator[jobs_pb2.Job]:
    """The job now and at every change; the last one is terminal.

    A broken stream is opened again after a growing pause; the error is raised after MAX_RECONNECTS in a row.
    `expected`: the job is made by an event that may still be on its way, so that NOT_FOUND is waited out as well.
    """
    passing = {"UNAVAILABLE", "DEADLINE_EXCEEDED"} | ({"NOT_FOUND"} if expected else set())
    failures = 0
    while True:
        request = jobs_pb2.WatchJobRequest(job_id=job_id)
        stream = connection.jobs.WatchJob(request, timeout=WATCH_TIMEOUT_S, metadata=connection.metadata)
        try:
            for reply in stream:
                failures = 0
                yield reply.job
                if is_terminal(reply.job):
                    return
            reason = "the server closed the stream"
            if failures >= MAX_RECONNECTS:
                raise Unavailable(f"the server at {connection.address} closes the stream of job {job_id} each time")
        except grpc.RpcError as error:
            if code_of(error) not in passing or failures >= MAX_RECONNECTS:
                raise
            reason = code_of(error)
        finally:
            stream.cancel()
        pause_s = min(FIRST_PAUSE_S * 2**failures, LONGEST_PAUSE_S)
        failures += 1
        if reason != "NOT_FOUND":
            on_lost(f"connection lost ({reason}); the job goes on; next try in {pause_s:g} s")
        pause(pause_s)


def follow(connection: Connection, job_id: str, shown: Display, *, expected: bool = False) -> jobs_pb2.Job:
    """Show a job until it has ended and return it; JobFailed unless it succeeded."""
    for job in updates(connection, job_id, on_lost=shown.lost, expected=expected):
        shown.show(job)
    if job.phase != jobs_pb2.JOB_PHASE_SUCCEEDED:
        raise JobFailed(job)
    return job
