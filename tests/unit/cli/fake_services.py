"""All services of Tunesmith, scripted: what they were asked is kept, what they answer can be changed by a test."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent import futures
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from tunesmith_proto.captioner.v1 import captioner_pb2, captioner_pb2_grpc
from tunesmith_proto.common.v1 import jobs_pb2, jobs_pb2_grpc
from tunesmith_proto.generator.v1 import generator_pb2, generator_pb2_grpc
from tunesmith_proto.scraper.v1 import scraper_pb2, scraper_pb2_grpc
from tunesmith_proto.trainer.v1 import (
    catalogues_pb2,
    catalogues_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    pairs_pb2,
    pairs_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
)

NEW, OLD, REFUSED = "mv-new", "mv-old", "mv-refused"


def moment(*, ago_s: float = 0) -> Timestamp:
    """A time in the past."""
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC) - timedelta(seconds=ago_s))
    return stamp


def measures(bits: float) -> models_pb2.Measures:
    return models_pb2.Measures(
        measures={
            "bits_per_char": models_pb2.Measure(value=bits, low=bits - 0.1, high=bits + 0.1),
            "valid_share": models_pb2.Measure(value=0.99, low=0.97, high=1.0),
        }
    )


class FakeServices:
    """State that every servicer below shares. The defaults make a chain in which everything passes."""

    def __init__(self) -> None:
        self.requests: list[Message] = []
        self.uploaded: list[bytes] = []
        self.metadata: list[tuple[str, str]] = []
        self.answered_by: list[tuple[str, str]] = []
        """Each request's type and the service that was asked; an empty one where all are one server."""
        self.ready: set[str] = set()
        """Kinds of jobs whose result is there already."""
        self.held: set[str] = set()
        """Kinds of jobs that go on until `release`."""
        self.watched: dict[str, threading.Event] = defaultdict(threading.Event)
        """Set, by kind, when a job is held and its watcher has been told so."""
        self.release = threading.Event()
        self.failed_jobs: dict[str, jobs_pb2.JobError] = {}
        """Errors by kind of job."""
        self.failures: dict[str, list[status_pb2.Status]] = {}
        """Statuses that the next calls of an RPC end with."""
        self.health = health_pb2.HealthCheckResponse.SERVING
        self.champion = NEW
        self.has_datasets = True
        self.catalogue = catalogues_pb2.Catalogue()
        self.needs = ""
        """What the recipe says that it needs."""
        self.results: dict[str, Message] = {
            "collect": scraper_pb2.Collection(
                id="co-1", recipe="micro_genre", num_records=1950, licences={"CC0-1.0": 1950}, create_time=moment()
            ),
            "curate": trainer_pb2.Dataset(
                id="ds-1",
                recipe="micro_genre",
                num_examples={"train": 1560, "validation": 195, "test": 195},
                create_time=moment(ago_s=125),
            ),
            "tune": trainer_pb2.Run(
                id="ru-1", recipe="micro_genre", dataset_id="ds-1", num_steps=120, judge_job_id="job-judge"
            ),
            "judge": models_pb2.ModelVersion(id=NEW, recipe="micro_genre", run_id="ru-1", passed=True),
            "write": pairs_pb2.WrittenPairs(
                id="co-3",
                recipe="micro_genre",
                derived_from="co-1",
                derived_by="stand-in, pairs 1, rewrite",
                num_records=25,
                num_written=24,
                bad={"not_json": 1},
                bad_replies=[pairs_pb2.BadReply(reason="not_json", text="I\ncannot.")],
                create_time=moment(),
            ),
            "caption": captioner_pb2.CaptionedCollection(
                id="co-2",
                recipe="micro_genre",
                derived_from="co-1",
                derived_by="lp-music-caps 1",
                num_records=25,
                num_failed=2,
                failures={"no_audio": 2},
                create_time=moment(),
            ),
        }
        self.report = models_pb2.Report(
            id="re-1",
            recipe="micro_genre",
            model_version=NEW,
            champion_version=OLD,
            metrics={"base": measures(4.0), "candidate": measures(2.5), "champion": measures(3.0)},
            anchors={"five_gram_bits_per_char": 2.4},
            samples={"base": models_pb2.Samples(texts=["xq"]), "candidate": models_pb2.Samples(texts=["dub wave"])},
            gates=[
                models_pb2.GateResult(
                    name="format", metric="valid_share", passed=True, value=0.99, comparison=">=", limit=0.9
                )
            ],
            passed=True,
        )

    def refuse(self) -> None:
        """Let the candidate fail a gate."""
        self.results["judge"] = models_pb2.ModelVersion(id=REFUSED, recipe="micro_genre", passed=False)
        self.report.model_version = REFUSED
        self.report.passed = False
        self.report.gates.append(
            models_pb2.GateResult(
                name="novelty",
                metric="novel_share",
                value=0.41,
                comparison=">=",
                limit=0.5,
                detail="the model recites names it was trained on",
            )
        )

    def of(self, kind: type[Message]) -> list[Any]:
        """The requests of one type, in order."""
        return [request for request in self.requests if isinstance(request, kind)]

    def operation(self, kind: str) -> operations_pb2.Operation:
        """The operation of a job that was just asked for."""
        done = kind in self.ready
        operation = operations_pb2.Operation(name=f"operations/job-{kind}", done=done)
        operation.metadata.Pack(jobs_pb2.JobMetadata(job=self.job(kind, jobs_pb2.JOB_PHASE_QUEUED), reused=done))
        if done:
            operation.response.Pack(self.results[kind])
        return operation

    def job(self, kind: str, phase: jobs_pb2.JobPhase) -> jobs_pb2.Job:
        service = SERVICE_OF.get(kind, "trainer")
        job = jobs_pb2.Job(id=f"job-{kind}", kind=kind, service=service, phase=phase, create_time=moment(ago_s=61))
        if phase == jobs_pb2.JOB_PHASE_RUNNING:
            job.progress.MergeFrom(
                jobs_pb2.Progress(stage=kind, done=40, total=120, unit="steps", values={"train_loss": 2.31})
            )
        if phase == jobs_pb2.JOB_PHASE_FAILED:
            job.error.CopyFrom(self.failed_jobs[kind])
        return job

    def enter(self, request: Message, context: grpc.ServicerContext) -> None:
        """Note a call, or end it with the status that a test wants."""
        self.requests.append(request)
        self.metadata += [(str(key), str(value)) for key, value in context.invocation_metadata()]
        waiting = self.failures.get(type(request).__name__.removesuffix("Request"))
        if waiting:
            context.abort_with_status(rpc_status.to_status(waiting.pop(0)))


def status(code: int, message: str, reason: str = "", **metadata: str) -> status_pb2.Status:
    """A status with an ErrorInfo, as the real services send it; without one for an empty reason."""
    made = status_pb2.Status(code=code, message=message)
    if reason:
        made.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="tunesmith", metadata=metadata))
    return made


def not_found(message: str) -> status_pb2.Status:
    return status(code_pb2.NOT_FOUND, message, "NOT_FOUND")


class FakeHealth(health_pb2_grpc.HealthServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    def Check(self, request: Any, context: Any) -> Any:
        return health_pb2.HealthCheckResponse(status=self.fake.health)


class FakeJobs(jobs_pb2_grpc.JobServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    def ListJobs(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        offset = int(request.page_token or 0)
        jobs = [
            self.fake.job("tune", jobs_pb2.JOB_PHASE_RUNNING),
            self.fake.job("collect", jobs_pb2.JOB_PHASE_SUCCEEDED),
        ]
        return jobs_pb2.ListJobsResponse(jobs=jobs[offset : offset + 1], next_page_token="1" if offset == 0 else "")

    def GetJob(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return jobs_pb2.GetJobResponse(job=self.fake.job("tune", jobs_pb2.JOB_PHASE_RUNNING))

    def WatchJob(self, request: Any, context: Any) -> Iterator[jobs_pb2.WatchJobResponse]:
        self.fake.enter(request, context)
        kind = request.job_id.removeprefix("job-")
        yield jobs_pb2.WatchJobResponse(job=self.fake.job(kind, jobs_pb2.JOB_PHASE_RUNNING))
        if kind in self.fake.held:
            self.fake.watched[kind].set()
            self.fake.release.wait()
        failed = kind in self.fake.failed_jobs
        phase = jobs_pb2.JOB_PHASE_FAILED if failed else jobs_pb2.JOB_PHASE_SUCCEEDED
        yield jobs_pb2.WatchJobResponse(job=self.fake.job(kind, phase))

    def CancelJob(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        job = self.fake.job("tune", jobs_pb2.JOB_PHASE_RUNNING)
        job.cancel_requested = True
        return jobs_pb2.CancelJobResponse(job=job)


class FakeOperations(operations_pb2_grpc.OperationsServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    def GetOperation(self, request: Any, context: Any) -> Any:
        operation = operations_pb2.Operation(name=request.name, done=True)
        operation.response.Pack(self.fake.results[request.name.removeprefix("operations/job-")])
        return operation


class FakeScraper(scraper_pb2_grpc.ScraperServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    def Collect(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return self.fake.operation("collect")

    def UploadSource(self, request_iterator: Any, context: Any) -> Any:
        self.fake.uploaded += [request.chunk for request in request_iterator]
        return scraper_pb2.UploadSourceResponse(url="upload:abc", size_bytes=sum(map(len, self.fake.uploaded)))

    def ListCollections(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return scraper_pb2.ListCollectionsResponse(collections=[self.fake.results["collect"]])

    def GetCollection(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return scraper_pb2.GetCollectionResponse(collection=self.fake.results["collect"])


class FakePairs(pairs_pb2_grpc.PairServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    def WritePairs(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return self.fake.operation("write")


class FakeCatalogues(catalogues_pb2_grpc.CatalogueServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    def SetCatalogue(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        self.fake.catalogue.CopyFrom(
            catalogues_pb2.Catalogue(
                recipe=request.recipe, hash="ab" * 32, num_names=2, create_time=moment(), sample=["Tune — Act"]
            )
        )
        return catalogues_pb2.SetCatalogueResponse(catalogue=self.fake.catalogue)

    def GetCatalogue(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return catalogues_pb2.GetCatalogueResponse(
            catalogue=self.fake.catalogue if self.fake.catalogue.num_names else None
        )

    def ClearCatalogue(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        self.fake.catalogue.Clear()
        return catalogues_pb2.ClearCatalogueResponse()


class FakeCaptioner(captioner_pb2_grpc.CaptionerServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    def ListCaptioners(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        kinds = [captioner_pb2.MEDIA_KIND_AUDIO, captioner_pb2.MEDIA_KIND_VIDEO]
        return captioner_pb2.ListCaptionersResponse(
            captioners=[captioner_pb2.Captioner(name="lp-music-caps", version="1", media_kinds=kinds)]
        )

    def CaptionClips(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return self.fake.operation("caption")


class FakeTrainer(trainer_pb2_grpc.TrainerServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    def ListRecipes(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        recipe = trainer_pb2.Recipe(
            name="micro_genre",
            title="Invent micro-genre names",
            default_source="sample:genres",
            needs=self.fake.needs,
        )
        recipe.training_defaults.update({"epochs": 3, "adapter_size": 16, "seed": 42})
        recipe.curation_defaults.update({"max_word_share": 0, "seed": 42})
        return trainer_pb2.ListRecipesResponse(recipes=[recipe])

    def BuildDataset(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return self.fake.operation("curate")

    def GetDataset(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return trainer_pb2.GetDatasetResponse(dataset=self.fake.results["curate"])

    def ListDatasets(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return trainer_pb2.ListDatasetsResponse(datasets=[self.fake.results["curate"]] * self.fake.has_datasets)

    def StartRun(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return self.fake.operation("tune")

    def GetRun(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return trainer_pb2.GetRunResponse(run=self.fake.results["tune"])

    def ListRuns(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return trainer_pb2.ListRunsResponse(runs=[self.fake.results["tune"]])

    def JudgeRun(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        self.fake.failed_jobs.pop("judge", None)
        return self.fake.operation("judge")


class FakeModels(models_pb2_grpc.ModelServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    def ListModels(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        models = [
            models_pb2.ModelVersion(id=NEW, passed=True, champion=True),
            models_pb2.ModelVersion(id=REFUSED, passed=False),
        ]
        return models_pb2.ListModelsResponse(models=models)

    def GetReport(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return models_pb2.GetReportResponse(report=self.fake.report)

    def GetReportPage(self, request: Any, context: Any) -> Iterator[models_pb2.GetReportPageResponse]:
        self.fake.enter(request, context)
        yield models_pb2.GetReportPageResponse(chunk=b"<html>")
        yield models_pb2.GetReportPageResponse(chunk=b"</html>")

    def PromoteModel(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        champion = models_pb2.Champion(recipe=request.recipe, version=request.version, rev=2)
        return models_pb2.PromoteModelResponse(champion=champion, changed=True)

    def RollbackModel(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return models_pb2.RollbackModelResponse(champion=models_pb2.Champion(recipe=request.recipe, version=OLD, rev=3))

    def GetChampion(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        champion = models_pb2.Champion(version=self.fake.champion) if self.fake.champion else None
        return models_pb2.GetChampionResponse(champion=champion)

    def TraceLineage(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        nodes = [("model", NEW), ("run", "ru-1"), ("dataset", "ds-1"), ("collection", "co-1"), ("record", "rec-1")]
        return models_pb2.TraceLineageResponse(
            nodes=[models_pb2.LineageNode(kind=kind, id=node) for kind, node in nodes],
            edges=[models_pb2.LineageEdge(from_id=above[1], to_id=below[1]) for above, below in pairwise(nodes)],
            truncated=True,
        )


class FakeGenerator(generator_pb2_grpc.GeneratorServiceServicer):
    def __init__(self, fake: FakeServices) -> None:
        self.fake = fake

    def answer(self, request: Any, model: str) -> generator_pb2.Answer:
        seed = request.parameters.seed
        # Every third seed gives the answer of the one before it, as when a known answer is tried again.
        named = seed - 1 if seed % 3 == 0 else seed
        return generator_pb2.Answer(
            text=f"genre {named}", raw_text=f"genre {named}|<stop>|", valid=True, seed=seed, model_version=model
        )

    def Generate(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return generator_pb2.GenerateResponse(answer=self.answer(request, request.model or "champion"))

    def GenerateStream(self, request: Any, context: Any) -> Iterator[generator_pb2.GenerateStreamResponse]:
        self.fake.enter(request, context)
        for text in ("xx", None, "dub", " wave", "\x1b[31m"):
            if text is None:
                restarted = generator_pb2.Restarted(attempt=2, reason="known")
                yield generator_pb2.GenerateStreamResponse(restarted=restarted)
            else:
                yield generator_pb2.GenerateStreamResponse(token=generator_pb2.StreamedToken(id=1, text=text))
        yield generator_pb2.GenerateStreamResponse(answer=self.answer(request.request, NEW))

    def Compare(self, request: Any, context: Any) -> Any:
        self.fake.enter(request, context)
        return generator_pb2.CompareResponse(answers=[self.answer(request, model) for model in request.models])


SERVICE_OF = {"collect": "scraper", "caption": "captioner"}
"""Who does a kind of job; the trainer does all others."""


class Note(grpc.ServerInterceptor):  # type: ignore[misc]  # untyped upstream
    """Notes which service was asked what."""

    def __init__(self, fake: FakeServices, service: str) -> None:
        self.fake = fake
        self.service = service

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        self.fake.answered_by.append((details.method.rpartition("/")[2] + "Request", self.service))
        return continuation(details)


def start(fake: FakeServices, *, only: str = "") -> tuple[Any, str]:
    """Serve the fakes (those of one service, for `only`) on a free port; the server and its address."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), interceptors=[Note(fake, only)])
    health_pb2_grpc.add_HealthServicer_to_server(FakeHealth(fake), server)
    jobs_pb2_grpc.add_JobServiceServicer_to_server(FakeJobs(fake), server)
    operations_pb2_grpc.add_OperationsServicer_to_server(FakeOperations(fake), server)
    if only in ("", "scraper"):
        scraper_pb2_grpc.add_ScraperServiceServicer_to_server(FakeScraper(fake), server)
    if only in ("", "captioner"):
        captioner_pb2_grpc.add_CaptionerServiceServicer_to_server(FakeCaptioner(fake), server)
    if only in ("", "trainer"):
        pairs_pb2_grpc.add_PairServiceServicer_to_server(FakePairs(fake), server)
        catalogues_pb2_grpc.add_CatalogueServiceServicer_to_server(FakeCatalogues(fake), server)
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(FakeTrainer(fake), server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(FakeModels(fake), server)
    if only in ("", "generator"):
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(FakeGenerator(fake), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"
