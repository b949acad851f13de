"""A client that knows only the proto files drives the whole chain."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from contract.deadline import eventually
from e2e.conftest import MICRO_SETTINGS, NAMES
from fixtures_places import Place, variables
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain import keys
from tunesmith.embedded import session
from tunesmith_proto.captioner.v1 import captioner_pb2, captioner_pb2_grpc
from tunesmith_proto.common.v1 import jobs_pb2, jobs_pb2_grpc
from tunesmith_proto.events.v1 import events_pb2
from tunesmith_proto.generator.v1 import generator_pb2, generator_pb2_grpc
from tunesmith_proto.scraper.v1 import scraper_pb2, scraper_pb2_grpc
from tunesmith_proto.trainer.v1 import models_pb2, models_pb2_grpc, trainer_pb2, trainer_pb2_grpc

RECIPE = "micro_genre"


class Client:
    """Stubs of one server, and waiting for operations."""

    def __init__(self, address: str, data: Path, place: Place) -> None:
        self.data = data
        self.place = place
        self.channel = grpc.insecure_channel(address)
        self.scraper = scraper_pb2_grpc.ScraperServiceStub(self.channel)
        self.captioner = captioner_pb2_grpc.CaptionerServiceStub(self.channel)
        self.trainer = trainer_pb2_grpc.TrainerServiceStub(self.channel)
        self.models = models_pb2_grpc.ModelServiceStub(self.channel)
        self.generator = generator_pb2_grpc.GeneratorServiceStub(self.channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(self.channel)
        self.operations = operations_pb2_grpc.OperationsStub(self.channel)

    def finished(self, operation: Any) -> Any:
        """The operation once it is done."""
        while not operation.done:
            operation = self.operations.WaitOperation(operations_pb2.WaitOperationRequest(name=operation.name))
        return operation

    def result(self, operation: Any, kind: Any) -> Any:
        """The response of an operation that must succeed."""
        done = self.finished(operation)
        assert done.HasField("response"), done.error
        found = kind()
        assert done.response.Unpack(found)
        return found

    def collect(self, names: list[str] = NAMES) -> scraper_pb2.Collection:
        """A collection of a list that is sent as an upload."""
        body = "\n".join(names).encode()
        chunks = (scraper_pb2.UploadSourceRequest(chunk=body[i : i + 100]) for i in range(0, len(body), 100))
        uploaded = self.scraper.UploadSource(chunks)
        source = scraper_pb2.Source(url=uploaded.url, format=scraper_pb2.SOURCE_FORMAT_TEXT, display_name="my names")
        request = scraper_pb2.CollectRequest(recipe=RECIPE, source=source)
        return self.result(self.scraper.Collect(request), scraper_pb2.Collection)


@pytest.fixture(scope="module")
def client(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    data = tmp_path_factory.mktemp("grpc") / "data"
    place.store(data)
    with variables(place.environment(data)), session(data) as address:
        yield Client(address, data, place)


@pytest.fixture(scope="module")
def made(client: Client, micro_base: Path) -> dict[str, Any]:
    """One pass through the chain, up to a judged model."""
    collection = client.collect()
    dataset = client.result(
        client.trainer.BuildDataset(trainer_pb2.BuildDatasetRequest(recipe=RECIPE, collection_ids=[collection.id])),
        trainer_pb2.Dataset,
    )
    request = trainer_pb2.StartRunRequest(recipe=RECIPE, dataset_id=dataset.id, base_model=str(micro_base))
    for setting in MICRO_SETTINGS:
        name, value = setting.split("=")
        request.settings[name] = float(value)
    operation = client.trainer.StartRun(request)
    run = client.result(operation, trainer_pb2.Run)
    watched = list(client.jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=eventual_job(client, run.judge_job_id))))
    version = client.result(
        client.operations.GetOperation(operations_pb2.GetOperationRequest(name=f"operations/{run.judge_job_id}")),
        models_pb2.ModelVersion,
    )
    return {
        "collection": collection,
        "dataset": dataset,
        "request": request,
        "operation": operation,
        "run": run,
        "watched": watched,
        "version": version,
    }


def eventual_job(client: Client, job_id: str) -> str:
    """The id, once the event that starts the job has arrived."""
    eventually(lambda: job_id in {job.id for job in client.jobs.ListJobs(jobs_pb2.ListJobsRequest()).jobs})
    return job_id


def refused(call: Any, request: Any) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and message of a call that must fail."""

    def ask() -> None:
        reply = call(request)
        if hasattr(reply, "__next__"):
            list(reply)

    with pytest.raises(grpc.RpcError) as caught:
        ask()
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(caught.value).details[0].Unpack(info)
    return caught.value.code(), info.reason, caught.value.details()


def test_reflection_lists_all_services_on_one_port(client: Client) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    replies = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))

    names = {service.name for service in next(replies).list_services_response.service}
    assert names >= {
        "tunesmith_proto.scraper.v1.ScraperService",
        "tunesmith_proto.captioner.v1.CaptionerService",
        "tunesmith_proto.trainer.v1.TrainerService",
        "tunesmith_proto.trainer.v1.ModelService",
        "tunesmith_proto.generator.v1.GeneratorService",
        "tunesmith_proto.common.v1.JobService",
        "google.longrunning.Operations",
        "grpc.health.v1.Health",
    }


def test_a_collection_keeps_every_row_and_its_source(client: Client, made: dict[str, Any]) -> None:
    collection = made["collection"]

    assert collection.num_records == len(NAMES)
    assert collection.source == "my names"
    assert client.collect().reused, "the same rows are the same collection"


def test_a_dataset_accounts_for_every_record(made: dict[str, Any]) -> None:
    dataset = made["dataset"]

    assert sum(dataset.num_examples.values()) + sum(dataset.dropped.values()) == len(NAMES)
    assert set(dataset.num_examples) == {"train", "validation", "test"}


def test_a_run_is_judged_by_the_event_that_it_succeeded(made: dict[str, Any]) -> None:
    assert made["watched"][-1].job.phase == jobs_pb2.JOB_PHASE_SUCCEEDED
    assert made["version"].run_id == made["run"].id
    assert made["version"].adapter_hash == made["run"].adapter_hash


def test_the_same_run_again_is_the_same_job(client: Client, made: dict[str, Any]) -> None:
    again = client.trainer.StartRun(made["request"])
    metadata = jobs_pb2.JobMetadata()
    again.metadata.Unpack(metadata)

    assert again.name == made["operation"].name
    assert metadata.reused


def test_a_model_that_knows_nothing_is_refused_and_says_why(client: Client, made: dict[str, Any]) -> None:
    version = made["version"]
    report = client.models.GetReport(models_pb2.GetReportRequest(recipe=RECIPE, version=version.id)).report

    assert not version.passed
    assert not version.champion
    assert {gate.name for gate in report.gates if not gate.passed} >= {"format"}
    assert not client.models.GetChampion(models_pb2.GetChampionRequest(recipe=RECIPE)).HasField("champion")
    request = models_pb2.PromoteModelRequest(recipe=RECIPE, version=version.id)
    code, _, message = refused(client.models.PromoteModel, request)
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "format" in message


def test_the_report_page_is_one_whole_document(client: Client, made: dict[str, Any]) -> None:
    request = models_pb2.GetReportPageRequest(recipe=RECIPE, version=made["version"].id)

    page = b"".join(message.chunk for message in client.models.GetReportPage(request)).decode()

    assert page.lstrip().lower().startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert made["version"].id in page


def test_a_browser_draws_the_report_page_and_refuses_nothing_in_it(
    client: Client, made: dict[str, Any], chromium: str, tmp_path: Path
) -> None:
    request = models_pb2.GetReportPageRequest(recipe=RECIPE, version=made["version"].id)
    page = tmp_path / "report.html"
    page.write_bytes(b"".join(message.chunk for message in client.models.GetReportPage(request)))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]

    shown = subprocess.run(
        [chromium, *flags, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    console = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    assert shown.stdout.count("<svg") >= 3, "loss curve and distributions"
    assert "refused" in shown.stdout.lower()
    assert console == [], "neither errors nor policy violations"


def test_lineage_leads_from_a_model_to_rows_and_back(client: Client, made: dict[str, Any]) -> None:
    down = client.models.TraceLineage(
        models_pb2.TraceLineageRequest(recipe=RECIPE, subject=made["version"].id, max_rows=5)
    )
    up = client.models.TraceLineage(models_pb2.TraceLineageRequest(recipe=RECIPE, subject="Acid  House"))

    assert [node.kind for node in down.nodes[:4]] == ["model", "run", "dataset", "collection"]
    assert sum(node.kind == "record" for node in down.nodes) == 5
    assert down.truncated
    assert made["version"].id in {node.id for node in up.nodes if node.kind == "model"}
    (record,) = (node for node in up.nodes if node.kind == "record")
    assert record.summary == "acid house"
    assert record.facts["position"] == str(NAMES.index("acid house"))


def test_every_event_of_the_chain_has_the_shape_of_its_proto(client: Client, made: dict[str, Any]) -> None:
    bus = client.place.bus(client.data, clock=SystemClock())
    seen = set()
    for event in client.place.events(bus, ["tunesmith.scraper", "tunesmith.trainer"]):
        name = event.type.split(".")[1]
        json_format.ParseDict(dict(event.data), getattr(events_pb2, name)())
        seen.add(name)
    bus.close()

    assert seen >= {"RecordsCollected", "DatasetBuilt", "RunSucceeded", "ModelJudged", "ModelRejected"}


def test_generating_before_there_is_a_champion_says_what_to_do(client: Client, made: dict[str, Any]) -> None:
    request = generator_pb2.GenerateRequest(recipe=RECIPE)

    code, reason, message = refused(client.generator.Generate, request)

    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_CHAMPION")
    assert "tunesmith run micro_genre" in message


def test_an_unknown_model_is_not_found(client: Client) -> None:
    request = generator_pb2.GenerateRequest(recipe=RECIPE, model="mv-000000000000")

    assert refused(client.generator.Generate, request)[0] == grpc.StatusCode.NOT_FOUND
    stream = generator_pb2.GenerateStreamRequest(request=request)
    assert refused(client.generator.GenerateStream, stream)[0] == grpc.StatusCode.NOT_FOUND


def test_the_captioner_says_what_it_can_do(client: Client, made: dict[str, Any]) -> None:
    request = captioner_pb2.CaptionClipsRequest(recipe=RECIPE, collection_id=made["collection"].id)

    listed = client.captioner.ListCaptioners(captioner_pb2.ListCaptionersRequest()).captioners
    assert [one.name for one in listed] == ["signal-audio", "signal-video"]
    no_media = (grpc.StatusCode.INVALID_ARGUMENT, "NO_CAPTIONS_NEEDED")
    assert refused(client.captioner.CaptionClips, request)[:2] == no_media
    request.captioners.append("lp-music-caps")
    unknown = (grpc.StatusCode.FAILED_PRECONDITION, "NO_CAPTIONER")
    assert refused(client.captioner.CaptionClips, request)[:2] == unknown


def test_an_unknown_recipe_lists_the_known_ones(client: Client) -> None:
    request = trainer_pb2.BuildDatasetRequest(recipe="micro_gnere")

    code, reason, message = refused(client.trainer.BuildDataset, request)

    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_RECIPE")
    assert "known recipes: lyrics, micro_genre, playlist, video_tags" in message


def test_a_setting_out_of_range_names_value_and_limits(client: Client, made: dict[str, Any]) -> None:
    request = trainer_pb2.StartRunRequest(recipe=RECIPE, dataset_id=made["dataset"].id)
    request.settings["adapter_size"] = 1000

    code, reason, message = refused(client.trainer.StartRun, request)

    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "SETTING_OUT_OF_RANGE")
    assert "adapter_size=1000" in message
    assert "between 1 and 256" in message


def test_a_base_that_cannot_be_loaded_fails_the_job_with_the_reason(
    client: Client, made: dict[str, Any], tmp_path: Path
) -> None:
    request = trainer_pb2.StartRunRequest(recipe=RECIPE, dataset_id=made["dataset"].id, base_model=str(tmp_path))

    done = client.finished(client.trainer.StartRun(request))

    job = client.jobs.GetJob(jobs_pb2.GetJobRequest(job_id=done.name.split("/")[1])).job
    assert (job.error.code, job.error.reason) == ("INVALID_ARGUMENT", "BASE_MODEL_UNAVAILABLE")
    assert str(tmp_path) in done.error.message


def test_no_usable_rows_says_how_many_were_dropped_and_why(client: Client) -> None:
    collection = client.collect(["<b>bold</b>", "12345", "x" * 80, "one good name"])
    request = trainer_pb2.BuildDatasetRequest(recipe=RECIPE, collection_ids=[collection.id])

    done = client.finished(client.trainer.BuildDataset(request))

    job = client.jobs.GetJob(jobs_pb2.GetJobRequest(job_id=done.name.split("/")[1])).job
    assert job.error.reason == "NO_USABLE_ROWS"
    assert "4 records came in, 3 were dropped" in job.error.message
    for reason in ("markup", "no_letters", "too_long"):
        assert reason in job.error.message


def test_a_corrupt_job_is_reported_and_others_go_on(client: Client) -> None:
    client.place.store(client.data).put(keys.job_state("broken"), b"{")

    code, reason, message = refused(client.jobs.GetJob, jobs_pb2.GetJobRequest(job_id="broken"))

    assert (code, reason) == (grpc.StatusCode.DATA_LOSS, "CORRUPT_JOB_STATE")
    assert "jobs/broken/state.json" in message
    assert client.collect(["still", "works"]).num_records == 2
