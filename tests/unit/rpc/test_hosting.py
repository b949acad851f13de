"""What every hosted service gives its callers."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from tunesmith.domain.errors import InvalidInput, InvalidSettings, NotFound, Unavailable
from tunesmith.domain.jobs import JobError
from tunesmith.platform import Platform
from tunesmith.rpc.hosting import host
from tunesmith.settings import Settings
from tunesmith_proto.captioner.v1 import captioner_pb2, captioner_pb2_grpc
from tunesmith_proto.common.v1 import jobs_pb2, jobs_pb2_grpc


async def answer(request, context):
    return captioner_pb2.ListCaptionersResponse(captioners=[captioner_pb2.Captioner(name="echo")])


async def call(channel, **options):
    stub = captioner_pb2_grpc.CaptionerServiceStub(channel)
    return await stub.ListCaptioners(captioner_pb2.ListCaptionersRequest(), **options)


def raising(error):
    async def behaviour(request, context):
        raise error

    return behaviour


async def error_of(channel, **options):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, **options)
    return caught.value


def details_of(error):
    found = {}
    for detail in rpc_status.from_call(error).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            if detail.Is(kind.DESCRIPTOR):
                found[kind.__name__] = kind.FromString(detail.value)
    return found


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


async def test_calls_are_answered_and_health_says_so(hosted):
    async with hosted(answer) as (channel, _, _, _):
        assert (await call(channel)).captioners[0].name == "echo"
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "tunesmith_proto.captioner.v1.CaptionerService"):
            reply = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_every_service(hosted):
    async with hosted(answer) as (channel, _, _, _):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        replies = [r async for r in stub.ServerReflectionInfo(iter([request]))]

    names = {service.name for service in replies[0].list_services_response.service}
    assert names == {
        "tunesmith_proto.captioner.v1.CaptionerService",
        "tunesmith_proto.common.v1.JobService",
        "google.longrunning.Operations",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_a_domain_error_carries_reason_field_and_metadata(hosted):
    error = InvalidInput("epochs=0 is out of range", reason="SETTING_OUT_OF_RANGE", metadata={"field": "epochs"})
    async with hosted(raising(error)) as (channel, _, _, _):
        caught = await error_of(channel)

    details = details_of(caught)
    assert (caught.code(), caught.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "epochs=0 is out of range")
    assert (details["ErrorInfo"].reason, details["ErrorInfo"].domain) == ("SETTING_OUT_OF_RANGE", "tunesmith")
    assert details["BadRequest"].field_violations[0].field == "epochs"


async def test_an_unavailable_dependency_says_when_to_come_back(hosted):
    async with hosted(raising(Unavailable("no broker"))) as (channel, _, _, _):
        caught = await error_of(channel)

    assert caught.code() == grpc.StatusCode.UNAVAILABLE
    assert details_of(caught)["RetryInfo"].retry_delay.seconds == 1


async def test_an_unexpected_error_shows_an_id_and_no_secret(hosted, caplog):
    async with hosted(raising(RuntimeError("password=hunter2"))) as (channel, _, _, _):
        caught = await error_of(channel)

    error_id = details_of(caught)["ErrorInfo"].metadata["error_id"]
    assert caught.code() == grpc.StatusCode.INTERNAL
    assert "hunter2" not in caught.details()
    assert any(error_id in record.getMessage() and record.exc_info for record in caplog.records)


async def test_a_call_past_its_deadline_is_cut_off_on_the_server_too(hosted):
    cut_off = asyncio.Event()

    async def stuck(request, context):
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.set()

    async with hosted(stuck) as (channel, _, _, _):
        caught = await error_of(channel, timeout=0.3)
        assert caught.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(cut_off.wait(), 10)


async def test_draining_finishes_running_calls_and_refuses_new_ones(hosted):
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(request, context):
        entered.set()
        await release.wait()
        return await answer(request, context)

    async with hosted(slow) as (channel, address, stop, _):
        running = asyncio.ensure_future(call(channel))
        await entered.wait()
        stop.set()
        async with grpc.aio.insecure_channel(address) as another:
            while True:
                try:
                    refused = await error_of(another, timeout=0.2)
                except AssertionError:
                    continue
                if refused.code() == grpc.StatusCode.UNAVAILABLE:
                    break
        release.set()
        assert (await running).captioners[0].name == "echo"


async def test_a_token_is_asked_for_when_one_is_set(hosted):
    async with hosted(answer, auth_token="s3cret") as (channel, _, _, _):
        assert (await error_of(channel)).code() == grpc.StatusCode.UNAUTHENTICATED
        wrong = await error_of(channel, metadata=(("authorization", "Bearer other"),))
        assert wrong.code() == grpc.StatusCode.UNAUTHENTICATED
        assert (await call(channel, metadata=(("authorization", "Bearer s3cret"),))).captioners


async def test_a_port_in_use_is_named(hosted, tmp_path):
    async with hosted(answer) as (_, address, _, _):
        with pytest.raises(Unavailable, match=f"{address}: the port is in use"):
            async with hosted(answer, listen=address):
                pass


async def test_until_store_and_bus_answer_it_is_not_serving_and_calls_may_come_again(hosted, monkeypatch, caplog):
    looks, there = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def prepare(platform, topics):
        loop.call_soon_threadsafe(looks.set)
        if not there.is_set():
            raise Unavailable("the broker kafka:9092 does not answer")

    monkeypatch.setattr(Platform, "prepare", prepare)
    port = free_port()

    async def ask_meanwhile():
        await looks.wait()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            refused = await error_of(channel)
        there.set()
        return health.status, refused.code(), details_of(refused)["ErrorInfo"].reason

    asked = asyncio.create_task(ask_meanwhile())
    async with hosted(answer, listen=f"127.0.0.1:{port}") as (channel, _, _, _):
        assert (await call(channel)).captioners

    expected = (health_pb2.HealthCheckResponse.NOT_SERVING, grpc.StatusCode.UNAVAILABLE, "STARTING")
    assert await asked == expected
    waits = [record.getMessage() for record in caplog.records if "not ready yet" in record.getMessage()]
    assert waits == ["not ready yet; waiting up to 60 s: the broker kafka:9092 does not answer"]


async def test_a_bus_that_stays_away_ends_the_start_with_what_is_missing(hosted, monkeypatch):
    def prepare(platform, topics):
        raise Unavailable("the broker kafka:9092 does not answer")

    monkeypatch.setattr(Platform, "prepare", prepare)
    with pytest.raises(Unavailable, match=r"gave up after .* \(TUNESMITH_START_TIMEOUT_S=0\): the broker kafka:9092"):
        async with hosted(answer, start_timeout_s=0):
            pass


async def test_what_waiting_does_not_mend_ends_the_start_at_once(hosted, monkeypatch):
    def prepare(platform, topics):
        raise NotFound("topic tunesmith.trainer does not exist; run `tunesmith setup`")

    monkeypatch.setattr(Platform, "prepare", prepare)
    with pytest.raises(NotFound, match="tunesmith setup"):
        async with hosted(answer, start_timeout_s=3600):
            pass


async def test_a_process_that_is_told_to_end_while_it_waits_does(hosted, monkeypatch):
    stop_now = asyncio.get_running_loop().call_soon_threadsafe

    def prepare(platform, topics):
        stop_now(stop.set)
        raise Unavailable("the broker does not answer")

    monkeypatch.setattr(Platform, "prepare", prepare)
    stop = asyncio.Event()
    with contextlib.closing(Platform.open(Settings.read(listen="127.0.0.1:0"))) as platform:
        await host([], platform, on_ready=pytest.fail, stop=stop)


async def test_a_watch_ends_with_its_server_so_that_the_next_one_goes_on_with_it(hosted):
    async with hosted(answer) as (channel, _, stop, platform):
        platform.jobs.submit(job_id="j1", kind="tune", service="trainer", request={})
        watch = jobs_pb2_grpc.JobServiceStub(channel).WatchJob(jobs_pb2.WatchJobRequest(job_id="j1"))
        assert (await anext(aiter(watch))).job.id == "j1"
        stop.set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(watch))

    assert (caught.value.code(), details_of(caught.value)["ErrorInfo"].reason) == (
        grpc.StatusCode.UNAVAILABLE,
        "DRAINING",
    )


async def test_the_result_of_another_services_job_is_asked_for_there(hosted):
    async with hosted(answer) as (channel, _, _, platform):
        platform.jobs.submit(job_id="j1", kind="collect", service="scraper", request={})
        platform.jobs.change("j1", lambda j: platform.jobs.step(j, phase="succeeded", result={"n": 1}))
        operations = operations_pb2_grpc.OperationsStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await operations.GetOperation(operations_pb2.GetOperationRequest(name="operations/j1"))
        listed = await operations.ListOperations(operations_pb2.ListOperationsRequest())
        read = await jobs_pb2_grpc.JobServiceStub(channel).GetJob(jobs_pb2.GetJobRequest(job_id="j1"))

    assert caught.value.details() == "operations/j1 is a collect job of the scraper; ask the scraper for it"
    assert list(listed.operations) == []
    assert read.job.result["n"] == 1


@pytest.mark.parametrize(
    ("listen", "message"),
    [("0.0.0.0:0", "beyond this machine without TLS"), ("nonsense", "not HOST:PORT"), ("127.0.0.1:99999", "HOST:PORT")],
)
async def test_an_address_that_may_not_be_served_on_stops_the_start(hosted, listen, message):
    with pytest.raises(InvalidSettings, match=message):
        async with hosted(answer, listen=listen):
            pass


async def test_a_job_is_seen_as_an_operation_until_it_fails(hosted):
    async with hosted(answer) as (channel, _, _, platform):
        platform.jobs.submit(job_id="j1", kind="tune", service="trainer", request={"a": 1})
        watch = jobs_pb2_grpc.JobServiceStub(channel).WatchJob(jobs_pb2.WatchJobRequest(job_id="j1"))
        messages = aiter(watch)
        assert (await anext(messages)).job.phase == jobs_pb2.JOB_PHASE_QUEUED
        operations = operations_pb2_grpc.OperationsStub(channel)
        request = operations_pb2.GetOperationRequest(name="operations/j1")
        assert not (await operations.GetOperation(request)).done

        failure = JobError("FAILED_PRECONDITION", "NO_USABLE_ROWS", "0 rows", {"empty": "3"})
        platform.jobs.change("j1", lambda j: platform.jobs.step(j, phase="failed", error=failure))

        last = [message async for message in messages][-1]
        done = await operations.WaitOperation(operations_pb2.WaitOperationRequest(name="operations/j1"))
        assert last.job.phase == jobs_pb2.JOB_PHASE_FAILED
        assert (done.error.code, done.error.message) == (grpc.StatusCode.FAILED_PRECONDITION.value[0], "0 rows")


async def test_cancelling_an_operation_marks_its_job(hosted):
    async with hosted(answer) as (channel, _, _, platform):
        platform.jobs.submit(job_id="j1", kind="tune", service="trainer", request={})
        operations = operations_pb2_grpc.OperationsStub(channel)

        await operations.CancelOperation(operations_pb2.CancelOperationRequest(name="operations/j1"))

        assert platform.jobs.get("j1").cancel_requested


async def test_jobs_are_listed_newest_first_in_pages(hosted):
    async with hosted(answer) as (channel, _, _, platform):
        for number in range(5):
            platform.jobs.submit(job_id=f"j{number}", kind="tune", service="trainer", request={})
        stub = jobs_pb2_grpc.JobServiceStub(channel)
        first = await stub.ListJobs(jobs_pb2.ListJobsRequest(page_size=3))
        rest = await stub.ListJobs(jobs_pb2.ListJobsRequest(page_size=3, page_token=first.next_page_token))

    assert [job.id for job in (*first.jobs, *rest.jobs)] == ["j4", "j3", "j2", "j1", "j0"]
    assert rest.next_page_token == ""


async def test_an_unknown_job_is_not_found(hosted):
    async with hosted(answer) as (channel, _, _, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await jobs_pb2_grpc.JobServiceStub(channel).GetJob(jobs_pb2.GetJobRequest(job_id="nope"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
