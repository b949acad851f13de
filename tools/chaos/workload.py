"""Jobs for the chaos tool: a client that keeps some of them under way and writes down what was acknowledged."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from chaos.fleet import Fleet
from tunesmith.cli.connection import open_channel
from tunesmith_proto.common.v1 import jobs_pb2, jobs_pb2_grpc
from tunesmith_proto.scraper.v1 import scraper_pb2, scraper_pb2_grpc
from tunesmith_proto.trainer.v1 import policies_pb2, policies_pb2_grpc, trainer_pb2, trainer_pb2_grpc

RECIPE = "micro_genre"
CALL_TIMEOUT_S = 20.0
MICRO_SETTINGS = {"epochs": 4, "batch_size": 2, "eval_every_steps": 4, "save_every_steps": 4, "adapter_dropout": 0.1}
"""A training of some twenty steps."""
_BEFORE = ("acid", "arctic", "cosmic", "desert", "dub", "folk", "jazz", "neo", "psy", "sea", "sun", "urban")
_AFTER = ("bounce", "chant", "disco", "drone", "groove", "house", "lament", "polka", "step", "swing", "wave")


class Client:
    """A gRPC client that sends a request again, under the same request id, until it is acknowledged."""

    def __init__(self, fleet: Fleet) -> None:
        self._channels = {service: open_channel(address) for service, address in fleet.addresses.items()}
        self.scraper: Any = scraper_pb2_grpc.ScraperServiceStub(self._channels["scraper"])  # type: ignore[no-untyped-call]
        self.trainer: Any = trainer_pb2_grpc.TrainerServiceStub(self._channels["trainer"])  # type: ignore[no-untyped-call]
        self.policies: Any = policies_pb2_grpc.PolicyServiceStub(self._channels["trainer"])  # type: ignore[no-untyped-call]
        self.jobs: Any = jobs_pb2_grpc.JobServiceStub(self._channels["trainer"])  # type: ignore[no-untyped-call]

    def call(self, method: Callable[..., Any], request: Any, *, patience_s: float = 120.0) -> Any:
        """The reply, however often the server dies meanwhile."""
        deadline_s = time.monotonic() + patience_s
        while True:
            try:
                return method(request, timeout=CALL_TIMEOUT_S)
            except grpc.RpcError as error:
                passing = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED,
                                           grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED)  # fmt: skip
                if not passing or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)

    def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            channel.close()


class Workload:
    """Keeps jobs under way until told to stop. `acknowledged` are the ids of jobs that a caller was promised."""

    def __init__(self, fleet: Fleet, *, max_under_way: int, base_model: Path | None) -> None:
        self.acknowledged: list[str] = []
        self.errors: list[str] = []
        self._fleet = fleet
        self._max_under_way = max_under_way
        self._base_model = base_model
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workload", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more; returns when the last request was acknowledged."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        client = Client(self._fleet)
        try:
            policy = policies_pb2.Policy(recipe=RECIPE, enabled=True, min_new_examples=10**6)
            client.call(client.policies.SetPolicy, policies_pb2.SetPolicyRequest(policy=policy))
            if self._base_model is not None:
                self._train(client)
            number = 0
            while not self._stopping.is_set():
                if self._num_under_way(client) >= self._max_under_way:
                    self._stopping.wait(0.1)
                    continue
                number += 1
                self._collect(client, number)
        except Exception as error:  # noqa: BLE001  # what the client was told is a finding, and is in the table
            self.errors.append(f"{type(error).__name__}: {str(error)[:300]}")
        finally:
            client.close()

    def _num_under_way(self, client: Client) -> int:
        """Follow-ups count as well: a backlog of them would have to be worked off after the last fault."""
        return len(client.call(client.jobs.ListJobs, jobs_pb2.ListJobsRequest(active_only=True)).jobs)

    def _collect(self, client: Client, number: int, names: list[str] | None = None) -> str:
        names = names or [f"{_word(number)} {before} {after}" for before in _BEFORE[:5] for after in _AFTER[:8]]
        source = self._fleet.folder / "lists" / f"{number}.txt"
        source.write_text("\n".join(names) + "\n")
        request = scraper_pb2.CollectRequest(
            recipe=RECIPE, source=scraper_pb2.Source(url=source.as_uri()), request_id=str(uuid.uuid4())
        )
        return self._acknowledge(client.call(client.scraper.Collect, request))

    def _train(self, client: Client) -> None:
        """One chain by hand: collect, curate, tune; the judgement follows by event."""
        names = [f"{before} {after}" for before in _BEFORE for after in _AFTER]
        collected = self._result(client, self._collect(client, 0, names))
        build = trainer_pb2.BuildDatasetRequest(
            recipe=RECIPE, collection_ids=[collected["collection"]["id"]], request_id=str(uuid.uuid4())
        )
        built = self._result(client, self._acknowledge(client.call(client.trainer.BuildDataset, build)))
        start = trainer_pb2.StartRunRequest(
            recipe=RECIPE,
            dataset_id=built["dataset"]["id"],
            base_model=str(self._base_model),
            follow_up=trainer_pb2.FOLLOW_UP_PROMOTE,
            request_id=str(uuid.uuid4()),
        )
        start.settings.update(MICRO_SETTINGS)
        self._acknowledge(client.call(client.trainer.StartRun, start))

    def _acknowledge(self, operation: Any) -> str:
        job_id = str(operation.name).rsplit("/", 1)[-1]
        self.acknowledged.append(job_id)
        return job_id

    def _result(self, client: Client, job_id: str) -> Any:
        while True:
            job = client.call(client.jobs.GetJob, jobs_pb2.GetJobRequest(job_id=job_id)).job
            if job.phase == jobs_pb2.JOB_PHASE_SUCCEEDED:
                return json.loads(json_format.MessageToJson(job.result))
            if job.phase in (jobs_pb2.JOB_PHASE_FAILED, jobs_pb2.JOB_PHASE_CANCELLED):
                raise RuntimeError(f"{job.kind} job {job_id} failed: {job.error.reason}: {job.error.message[:200]}")
            time.sleep(0.1)


def _word(number: int) -> str:
    """A word of its own for each number, made of syllables."""
    syllables = ("ba", "de", "fi", "go", "lu", "ma", "ne", "pi", "ro", "tu")
    return "".join(syllables[int(digit)] for digit in f"{number:03d}")
