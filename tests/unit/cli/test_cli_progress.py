"""Watching a job: reconnection, and what is shown of it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import grpc
import pytest
from command_results import Tunesmith
from fake_services import FakeServices, not_found, status
from google.rpc import code_pb2
from rich.console import Console
from rich.progress import Progress

from tunesmith.cli.connection import Channels, Connection, address_at
from tunesmith.cli.problems import JobFailed
from tunesmith.cli.progress import MAX_RECONNECTS, Bars, Silent, display, follow, updates
from tunesmith.cli.render import Output
from tunesmith_proto.common.v1 import jobs_pb2

AWAY = status(code_pb2.UNAVAILABLE, "away")


@pytest.fixture
def connection(address: str) -> Iterator[Connection]:
    channels = Channels(address_at(address, "test"))
    yield Connection(channels, timeout_s=None)
    channels.close()


def test_a_broken_stream_is_opened_again_after_growing_pauses(connection: Connection, fake: FakeServices) -> None:
    fake.failures["WatchJob"] = [AWAY, AWAY, AWAY]
    pauses: list[float] = []
    said: list[str] = []

    jobs = list(updates(connection, "job-tune", pause=pauses.append, on_lost=said.append))

    assert [job.phase for job in jobs] == [jobs_pb2.JOB_PHASE_RUNNING, jobs_pb2.JOB_PHASE_SUCCEEDED]
    assert pauses == [0.5, 1.0, 2.0]
    assert said[0] == "connection lost (UNAVAILABLE); the job goes on; next try in 0.5 s"


def test_watching_gives_up_when_the_server_stays_away(connection: Connection, fake: FakeServices) -> None:
    fake.failures["WatchJob"] = [AWAY] * (MAX_RECONNECTS + 1)
    pauses: list[float] = []

    with pytest.raises(grpc.RpcError):
        list(updates(connection, "job-tune", pause=pauses.append))

    assert len(pauses) == MAX_RECONNECTS
    assert max(pauses) == 15


def test_a_job_that_is_not_there_is_an_error_at_once_unless_it_is_expected(
    connection: Connection, fake: FakeServices
) -> None:
    fake.failures["WatchJob"] = [not_found("no such job")] * 3
    pauses: list[float] = []

    with pytest.raises(grpc.RpcError):
        list(updates(connection, "job-judge", pause=pauses.append))
    jobs = list(updates(connection, "job-judge", pause=pauses.append, expected=True))

    assert len(pauses) == 2
    assert jobs[-1].phase == jobs_pb2.JOB_PHASE_SUCCEEDED


def test_a_failed_job_raises_with_the_job(connection: Connection, fake: FakeServices) -> None:
    fake.failed_jobs["tune"] = jobs_pb2.JobError(code="INTERNAL", reason="BROKEN", message="it broke")

    with pytest.raises(JobFailed, match="it broke"):
        follow(connection, "job-tune", Silent())


def test_bars_show_stage_amount_losses_and_time() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140)
    out = Output(json=False)
    out.notes = console
    with display(out) as bars:
        assert isinstance(bars, Bars)
        bars.show(running("base", 10, 10))
        bars.show(running("tune", 40, 120, train_loss=2.31))
        bars.show(running("tune", 41, 0))
        bars.show(jobs_pb2.Job(kind="tune", phase=jobs_pb2.JOB_PHASE_SUCCEEDED))

    shown = screen.getvalue()
    assert "tune: base" in shown
    assert "tune: tune" in shown
    assert "steps" in shown


def test_a_finished_stage_is_shown_as_complete_and_a_failed_one_is_not() -> None:
    progress = Progress(console=Console(file=io.StringIO()))
    bars = Bars(progress)

    bars.show(running("base", 9, 10))
    bars.show(running("tune", 40, 120))
    bars.show(jobs_pb2.Job(kind="tune", phase=jobs_pb2.JOB_PHASE_FAILED))

    assert [(task.completed, task.total) for task in progress.tasks] == [(10, 10), (40, 120)]


def running(stage: str, done: int, total: int, **values: float) -> jobs_pb2.Job:
    progress = jobs_pb2.Progress(stage=stage, done=done, total=total, unit="steps", values=values)
    return jobs_pb2.Job(id="job-tune", kind="tune", phase=jobs_pb2.JOB_PHASE_RUNNING, progress=progress)


def test_away_from_a_terminal_progress_is_lines_on_standard_error(tunesmith: Tunesmith) -> None:
    ended = tunesmith("jobs", "watch", "job-tune")

    assert ended.code == 0
    assert ended.err.strip() == "tune: tune  40/120 steps  train_loss 2.31"
    assert ended.out.strip() == "tune job job-tune succeeded"


def test_watching_as_json_is_a_line_for_every_change(tunesmith: Tunesmith) -> None:
    ended = tunesmith("jobs", "watch", "job-tune", "--json")

    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["phase"] for row in rows] == ["JOB_PHASE_RUNNING", "JOB_PHASE_SUCCEEDED"]
    assert rows[0]["progress"]["done"] == 40
    assert ended.err == ""


def test_watching_a_job_that_fails_exits_1_with_its_error(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.failed_jobs["tune"] = jobs_pb2.JobError(code="DATA_LOSS", reason="BROKEN", message="it broke")

    ended = tunesmith("jobs", "watch", "job-tune")

    assert ended.code == 1
    assert "tune job job-tune failed: it broke" in ended.err
