"""How soon retraining follows: enough new data -> run, promotion -> first token. Run: python benchmarks/retraining.py

Bars: from DatasetBuilt to the run's job running p95 <= 1 s; from a promotion to the first token of the new adapter
p95 <= 2 s; 0 failed requests under load meanwhile. A real `tunesmith up` on an empty data folder, with models of random
weights: what is measured is the way, not the model. The first time counts from the event's own time, before it was
published; the second from the return of PromoteModel.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import grpc

from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.sqlite_bus import SqliteBus
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.cli.connection import Channels, Connection, address_at
from tunesmith.domain import keys
from tunesmith.domain.events import DATASET_BUILT, Event
from tunesmith.domain.ids import canonical_json, sha256_hex
from tunesmith.domain.models import GateResult, ModelVersion, Report
from tunesmith.ports.clock import rfc3339
from tunesmith.ports.language_model import Adapter
from tunesmith_proto.common.v1 import jobs_pb2
from tunesmith_proto.generator.v1 import generator_pb2
from tunesmith_proto.scraper.v1 import scraper_pb2
from tunesmith_proto.trainer.v1 import models_pb2, policies_pb2
from tunesmith_trainer.bases import base_fingerprint

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from contract.tiny_models import build_adapter, build_base  # type: ignore[import-not-found]

RECIPE = "micro_genre"
NUM_CLIENTS = 4
"""Requests on the way at any time."""
MAX_NEW_TOKENS = 16
POLL_S = 0.01
PATIENCE_S = 180.0

WORDS = ("acid", "balkan", "cosmic", "desert", "ember", "frozen", "ghost", "harbour", "iron", "jade")
NAMES = [f"{one} {two}" for one in WORDS for two in ("jazz", "mambo", "polka", "techno", "waltz", "grindcore")]

T = TypeVar("T")


class Load:
    """Clients that ask one question after the other, and count what fails."""

    def __init__(self, connection: Connection) -> None:
        self.num_answers = 0
        self.failures: list[str] = []
        self._connection = connection
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(NUM_CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        seed = number
        while not self._stop.is_set():
            seed += NUM_CLIENTS
            try:
                self._connection.generator.Generate(question(seed), timeout=60)
            except grpc.RpcError as error:
                with self._lock:
                    self.failures.append(str(error)[:200])
            else:
                with self._lock:
                    self.num_answers += 1


def question(seed: int) -> generator_pb2.GenerateRequest:
    """One request that takes MAX_NEW_TOKENS steps of the model."""
    parameters = generator_pb2.GenerationParameters(seed=seed, max_new_tokens=MAX_NEW_TOKENS)
    return generator_pb2.GenerateRequest(recipe=RECIPE, parameters=parameters, allow_known=True)


def threshold_to_running(connection: Connection, data: Path, base: Path, rounds: int) -> list[float]:
    """Seconds from each DatasetBuilt that makes a policy start a run, to that run's job running."""
    policy = policies_pb2.Policy(
        recipe=RECIPE, enabled=True, min_new_examples=1, base_model=str(base), follow_up="FOLLOW_UP_NONE"
    )
    connection.call(connection.policies.SetPolicy, policies_pb2.SetPolicyRequest(policy=policy))
    bus = SqliteBus(data / "bus.sqlite", clock=SystemClock())
    subscription = bus.subscribe("benchmark", ["tunesmith.trainer"])
    waited_s = []

    def built() -> Event | None:
        events = [message.event for message in subscription.poll(timeout_s=POLL_S)]
        return next((event for event in events if event and event.type == DATASET_BUILT), None)

    for number in range(rounds):
        collect(connection, [*NAMES, *(f"{word} number{number}" for word in WORDS)])
        event = until(built)
        job = until(lambda: active(connection, "tune", jobs_pb2.JOB_PHASE_RUNNING))
        began = job.update_time.ToNanoseconds() / 1e9
        waited_s.append(began - datetime.fromisoformat(event.time).timestamp())
        print(f"  run {number + 1} of {rounds}: {waited_s[-1]:.3f} s", file=sys.stderr)
        # Only its beginning is measured; a training would take its own time.
        connection.call(connection.jobs.CancelJob, jobs_pb2.CancelJobRequest(job_id=job.id))
        until(lambda: active(connection, "tune") is None)
    subscription.close()
    bus.close()
    policy.enabled = False
    connection.call(connection.policies.SetPolicy, policies_pb2.SetPolicyRequest(policy=policy))
    return waited_s


def promotion_to_token(connection: Connection, versions: Sequence[ModelVersion]) -> tuple[list[float], Load]:
    """Seconds from each promotion to the first token of that version, while clients keep asking."""
    promote(connection, versions[0])
    connection.generator.Generate(question(0), timeout=PATIENCE_S)
    waited_s = []
    with Load(connection) as load:
        for number, version in enumerate(versions[1:]):
            asked = load.num_answers
            until(lambda asked=asked: load.num_answers >= asked + NUM_CLIENTS)  # type: ignore[misc]
            promote(connection, version)
            promoted_s = time.monotonic()
            waited_s.append(first_token_s(connection, version, seed=1000 + number) - promoted_s)
            print(f"  promotion {number + 1} of {len(versions) - 1}: {waited_s[-1]:.3f} s", file=sys.stderr)
    return waited_s, load


def first_token_s(connection: Connection, version: ModelVersion, *, seed: int) -> float:
    """When the first token of the version came, by the monotonic clock. Streams are opened until one is of it."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        first_s, answered_by = 0.0, ""
        request = generator_pb2.GenerateStreamRequest(request=question(seed))
        for reply in connection.generator.GenerateStream(request, timeout=60):
            first_s = first_s or time.monotonic()
            answered_by = reply.answer.model_version or answered_by
        if answered_by == version.id:
            return first_s
    raise TimeoutError(f"version {version.id} did not answer within {PATIENCE_S:g} s")


def planted_versions(store: LocalStore, base: Path, folder: Path, count: int) -> list[ModelVersion]:
    """Model versions with passed reports and random adapters, as the judge would have left them."""
    fingerprint, now = base_fingerprint(str(base)), rfc3339(SystemClock().now())
    dataset_id = next(iter(store.list(f"datasets/{RECIPE}/"))).key.split("/")[2]
    made = []
    for number in range(count):
        name = f"mv-bench{number:03d}"
        adapter: Adapter = build_adapter(
            store, base, name=f"run-{name}", seed=number, folder=folder / name, fingerprint=fingerprint
        )
        version = ModelVersion(
            id=name,
            recipe=RECIPE,
            run_id=f"run-{name}",
            dataset_id=dataset_id,
            base_model=str(base),
            base_fingerprint=fingerprint,
            adapter_key=adapter.key,
            adapter_hash=adapter.hash,
            report_id=f"rep-{name}",
            passed=True,
            created_at=now,
        )
        gate = GateResult("planted", "valid_share", True, 1.0, ">=", 0.0, "Planted by the benchmark.")
        report = Report(
            id=version.report_id,
            recipe=RECIPE,
            run_id=version.run_id,
            dataset_id=dataset_id,
            model_version=name,
            champion_version="",
            metrics={},
            anchors={},
            samples={},
            distributions={},
            gates=(gate,),
            passed=True,
            created_at=now,
        )
        store.put(keys.report(RECIPE, report.id), canonical_json(report.to_json()))
        store.put(keys.model_version(RECIPE, name), canonical_json(version.to_json()))
        made.append(version)
    return made


def promote(connection: Connection, version: ModelVersion) -> None:
    """Make a version the champion, as a person would."""
    connection.call(connection.models.PromoteModel, models_pb2.PromoteModelRequest(recipe=RECIPE, version=version.id))


def collect(connection: Connection, names: Sequence[str]) -> None:
    """Have a list collected; its event does the rest."""
    body = "\n".join(names).encode()
    connection.scraper.UploadSource(iter([scraper_pb2.UploadSourceRequest(chunk=body)]), timeout=60)
    source = scraper_pb2.Source(url=f"upload:{sha256_hex(body)}", format="SOURCE_FORMAT_TEXT", display_name="names")
    connection.call(connection.scraper.Collect, scraper_pb2.CollectRequest(recipe=RECIPE, source=source))


def active(connection: Connection, kind: str, phase: jobs_pb2.JobPhase | None = None) -> jobs_pb2.Job | None:
    """A job of that kind, in that phase where one is given, that has not ended."""
    reply: jobs_pb2.ListJobsResponse = connection.call(
        connection.jobs.ListJobs, jobs_pb2.ListJobsRequest(kind=kind, active_only=True)
    )
    return next((job for job in reply.jobs if phase in (None, job.phase)), None)


def until(condition: Callable[[], T | None]) -> T:
    """The first truthy value of `condition`."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"nothing came within {PATIENCE_S:g} s")
        time.sleep(POLL_S)
    return value


def line(name: str, values: Sequence[float], bar_s: float) -> bool:
    """Print one row of the table; whether the bar is met."""
    p95 = statistics.quantiles(values, n=20)[-1]
    met = p95 <= bar_s
    print(
        f"{name:34} {statistics.median(values):8.3f} {p95:8.3f} {max(values):8.3f} {bar_s:6.1f}  "
        f"{'met' if met else 'NOT MET'}   ({len(values)} times)"
    )
    return met


def main() -> int:
    """Measure, print the table, and return 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, base = folder / "data", build_base(folder / "base")
        argv = [sys.executable, "-m", "tunesmith.cli", "--json", "--data", str(data), "up", "--listen", "127.0.0.1:0"]
        environment = {**os.environ, "TUNESMITH_LOG_LEVEL": "error"}
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        ) as server:
            try:
                assert server.stdout is not None
                address = json.loads(server.stdout.readline())["address"]
                connection = Connection(Channels(address_at(address, "benchmark")), timeout_s=None)
                started_s = threshold_to_running(connection, data, base, rounds)
                versions = planted_versions(LocalStore(data / "store"), base, folder, rounds + 1)
                served_s, load = promotion_to_token(connection, versions)
            finally:
                server.terminate()
    print(f"{'seconds':34} {'p50':>8} {'p95':>8} {'max':>8} {'bar':>6}")
    met = [
        line("enough new data -> run started", started_s, 1.0),
        line("promotion -> first token", served_s, 2.0),
        not load.failures,
    ]
    print(
        f"failed requests meanwhile: {len(load.failures)} of {load.num_answers + len(load.failures)}, bar 0  "
        f"{'met' if met[-1] else 'NOT MET: ' + load.failures[0]}"
    )
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
