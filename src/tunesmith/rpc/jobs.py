"""JobService and google.longrunning.Operations over the job store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import empty_pb2
from google.protobuf.message import Message

from tunesmith.domain.errors import DataLoss, FailedPrecondition, InvalidInput, Unavailable, Unsupported
from tunesmith.domain.jobs import Job, Progress
from tunesmith.jobs.state import JobStore
from tunesmith.rpc.convert import page, page_size, to_struct, to_timestamp
from tunesmith.rpc.errors import status_of_job_error
from tunesmith_proto.common.v1 import jobs_pb2, jobs_pb2_grpc

WATCH_INTERVAL_S = 0.1
"""How often a watched job is looked at."""

WAIT_LIMIT_S = 60.0
"""Longest that WaitOperation holds a call; the caller waits again."""

PREFIX = "operations/"

ResultPacker = Callable[[Mapping[str, Any]], Message]
"""Makes an operation's response message from a job's result."""

_PHASES = {
    "queued": jobs_pb2.JOB_PHASE_QUEUED,
    "launching": jobs_pb2.JOB_PHASE_LAUNCHING,
    "running": jobs_pb2.JOB_PHASE_RUNNING,
    "succeeded": jobs_pb2.JOB_PHASE_SUCCEEDED,
    "failed": jobs_pb2.JOB_PHASE_FAILED,
    "cancelled": jobs_pb2.JOB_PHASE_CANCELLED,
}


def job_message(job: Job, progress: Progress | None) -> jobs_pb2.Job:
    """The job as clients see it."""
    message = jobs_pb2.Job(
        id=job.id,
        kind=job.kind,
        service=job.service,
        phase=_PHASES[job.phase],
        attempt=job.attempt,
        request=to_struct(job.request),
        create_time=to_timestamp(job.created_at),
        update_time=to_timestamp(job.updated_at),
        cancel_requested=job.cancel_requested,
        priority=job.priority,
    )
    if progress is not None:
        message.progress.CopyFrom(
            jobs_pb2.Progress(
                stage=progress.stage,
                done=progress.done,
                total=progress.total,
                unit=progress.unit,
                message=progress.message,
                values=dict(progress.values),
            )
        )
    if job.result is not None:
        message.result.CopyFrom(to_struct(job.result))
    if job.error is not None:
        message.error.CopyFrom(
            jobs_pb2.JobError(
                code=job.error.code,
                reason=job.error.reason,
                message=job.error.message,
                metadata=dict(job.error.metadata),
            )
        )
    return message


class JobBoard:
    """What both servicers need: the store and how each kind's result is packed."""

    def __init__(self, jobs: JobStore) -> None:
        self.jobs = jobs
        self._packers: dict[str, ResultPacker] = {}
        self._wake: Callable[[], None] = lambda: None

    def register(self, kind: str, packer: ResultPacker) -> None:
        """Jobs of `kind` end in messages that `packer` makes."""
        self._packers[kind] = packer

    def connect(self, wake: Callable[[], None]) -> None:
        """Whom to wake when a job was submitted or cancelled."""
        self._wake = wake

    def operation(self, job: Job, *, reused: bool = False) -> operations_pb2.Operation:
        """The job as an operation. Its response is the kind's own message, its metadata a JobMetadata.

        FailedPrecondition for a job of another service that succeeded: only that one knows the message.
        """
        operation = operations_pb2.Operation(name=PREFIX + job.id, done=job.is_terminal)
        metadata = jobs_pb2.JobMetadata(job=job_message(job, self.jobs.progress(job.id)), reused=reused)
        operation.metadata.Pack(metadata)
        if job.phase == "succeeded" and job.result is not None:
            if job.kind not in self._packers:
                raise FailedPrecondition(
                    f"{operation.name} is a {job.kind} job of the {job.service}; ask the {job.service} for it",
                    reason="OTHER_SERVICES_JOB",
                    metadata={"job_id": job.id, "kind": job.kind, "service": job.service},
                )
            operation.response.Pack(self._packers[job.kind](job.result))
        elif job.error is not None:
            operation.error.CopyFrom(status_of_job_error(job.error))
        return operation

    def wake(self) -> None:
        """Have what was submitted started at once."""
        self._wake()

    def submitted(self, job: Job, *, created: bool) -> operations_pb2.Operation:
        """The operation of a job that was just submitted; starts it at once."""
        self._wake()
        return self.operation(job, reused=not created)

    def message(self, job_id: str) -> jobs_pb2.Job:
        """The job as clients see it, with its live progress."""
        return job_message(self.jobs.get(job_id), self.jobs.progress(job_id))

    def cancel(self, job_id: str) -> Job:
        """Note that the job should stop."""

        def step(job: Job) -> Job | None:
            return None if job.is_terminal or job.cancel_requested else self.jobs.step(job, cancel_requested=True)

        job = self.jobs.change(job_id, step)
        self._wake()
        return job

    def newest_own(self) -> list[Job]:
        """Jobs of the kinds that were registered here, newest first."""
        return [job for job in self.newest() if job.kind in self._packers]

    def newest(self, *, kind: str = "", active_only: bool = False) -> list[Job]:
        """Jobs, newest first; those that cannot be read are left out (GetJob says what is wrong with one)."""
        found = []
        for job_id in list(self.jobs.active_ids() if active_only else self.jobs.all_ids()):
            try:
                job = self.jobs.find(job_id)
            except DataLoss:
                continue
            if job is not None and (not kind or job.kind == kind) and not (active_only and job.is_terminal):
                found.append(job)
        return sorted(found, key=lambda job: (job.created_at, job.id), reverse=True)


class JobServicer(jobs_pb2_grpc.JobServiceServicer):
    """Lists, shows, watches and cancels jobs. `draining` set: watchers are sent elsewhere."""

    def __init__(self, board: JobBoard, draining: asyncio.Event) -> None:
        self._board = board
        self._draining = draining

    async def ListJobs(self, request: jobs_pb2.ListJobsRequest, context: Any) -> jobs_pb2.ListJobsResponse:
        size = page_size(request.page_size)
        jobs = await asyncio.to_thread(self._board.newest, kind=request.kind, active_only=request.active_only)
        shown, token = page(jobs, token=request.page_token, size=size)
        messages = await asyncio.to_thread(
            lambda: [job_message(job, self._board.jobs.progress(job.id)) for job in shown]
        )
        return jobs_pb2.ListJobsResponse(jobs=messages, next_page_token=token)

    async def GetJob(self, request: jobs_pb2.GetJobRequest, context: Any) -> jobs_pb2.GetJobResponse:
        return jobs_pb2.GetJobResponse(job=await asyncio.to_thread(self._board.message, request.job_id))

    async def WatchJob(
        self, request: jobs_pb2.WatchJobRequest, context: Any
    ) -> AsyncIterator[jobs_pb2.WatchJobResponse]:
        last: jobs_pb2.Job | None = None
        while True:
            job = await asyncio.to_thread(self._board.message, request.job_id)
            if job != last:
                yield jobs_pb2.WatchJobResponse(job=job)
                last = job
            if job.phase in (_PHASES["succeeded"], _PHASES["failed"], _PHASES["cancelled"]):
                return
            if await _set_within(self._draining, WATCH_INTERVAL_S):
                raise Unavailable("this server ends; watch the job again, the next one goes on", reason="DRAINING")

    async def CancelJob(self, request: jobs_pb2.CancelJobRequest, context: Any) -> jobs_pb2.CancelJobResponse:
        job = await asyncio.to_thread(self._board.cancel, request.job_id)
        return jobs_pb2.CancelJobResponse(job=await asyncio.to_thread(self._board.message, job.id))


class OperationsServicer(operations_pb2_grpc.OperationsServicer):  # type: ignore[misc]  # untyped upstream
    """google.longrunning.Operations (AIP-151); an operation's name is `operations/{job id}`.

    `draining` set: whoever waits gets the operation as it is, and waits again elsewhere.
    """

    def __init__(self, board: JobBoard, draining: asyncio.Event) -> None:
        self._board = board
        self._draining = draining

    async def GetOperation(self, request: Any, context: Any) -> operations_pb2.Operation:
        return await asyncio.to_thread(self._read, request.name)

    async def ListOperations(self, request: Any, context: Any) -> operations_pb2.ListOperationsResponse:
        if request.filter:
            raise InvalidInput("filter is not supported here; use JobService.ListJobs", metadata={"field": "filter"})
        size = page_size(request.page_size)
        jobs = await asyncio.to_thread(self._board.newest_own)
        shown, token = page(jobs, token=request.page_token, size=size)
        operations = await asyncio.to_thread(lambda: [self._board.operation(job) for job in shown])
        return operations_pb2.ListOperationsResponse(operations=operations, next_page_token=token)

    async def CancelOperation(self, request: Any, context: Any) -> empty_pb2.Empty:
        await asyncio.to_thread(self._board.cancel, job_id_of(request.name))
        return empty_pb2.Empty()

    async def DeleteOperation(self, request: Any, context: Any) -> empty_pb2.Empty:
        raise Unsupported("operations are kept as the record of what was done and cannot be deleted")

    async def WaitOperation(self, request: Any, context: Any) -> operations_pb2.Operation:
        asked_s = request.timeout.ToTimedelta().total_seconds() if request.HasField("timeout") else WAIT_LIMIT_S
        loop = asyncio.get_running_loop()
        # Answer a little before the interceptor's own deadline would cut the call off.
        until_s = loop.time() + min(asked_s, WAIT_LIMIT_S - 1, (context.time_remaining() or WAIT_LIMIT_S) - 0.2)
        while True:
            operation = await asyncio.to_thread(self._read, request.name)
            if operation.done or loop.time() >= until_s or await _set_within(self._draining, WATCH_INTERVAL_S):
                return operation

    def _read(self, name: str) -> operations_pb2.Operation:
        return self._board.operation(self._board.jobs.get(job_id_of(name)))


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set now or becomes so within that time."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


def job_id_of(name: str) -> str:
    """The job behind an operation's name."""
    if not name.startswith(PREFIX) or not name.removeprefix(PREFIX):
        raise InvalidInput(
            f"operation name {name[:80]!r} has not the form operations/JOB_ID", metadata={"field": "name"}
        )
    return name.removeprefix(PREFIX)
