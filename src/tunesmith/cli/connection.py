"""Finding the server, the channel to it, and one typed door to each service."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
from google.longrunning import operations_pb2_grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tunesmith.cli.options import Globals
from tunesmith.cli.problems import NO_SERVER
from tunesmith.domain.errors import Unavailable
from tunesmith_proto.captioner.v1 import captioner_pb2_grpc
from tunesmith_proto.common.v1 import jobs_pb2_grpc
from tunesmith_proto.generator.v1 import generator_pb2_grpc
from tunesmith_proto.scraper.v1 import scraper_pb2_grpc, watches_pb2_grpc
from tunesmith_proto.trainer.v1 import (
    catalogues_pb2_grpc,
    models_pb2_grpc,
    pairs_pb2_grpc,
    policies_pb2_grpc,
    publishing_pb2_grpc,
    sweeps_pb2_grpc,
    trainer_pb2_grpc,
)

CALL_TIMEOUT_S = 30.0
GENERATE_TIMEOUT_S = 300.0
"""The first answer may have to wait until a model is loaded."""
UPLOAD_TIMEOUT_S = 600.0
WATCH_TIMEOUT_S = 3600.0
"""Deadline of one watching call; the watcher calls again, so that a watched job has no limit."""
PROBE_TIMEOUT_S = 3.0
"""How long a server may take to say that it is alive."""

CLOSE_TIMEOUT_S = 1.0
KEEPALIVE_S = 310
"""A server that is not told otherwise takes more than one ping in 5 minutes of silence for an attack, and hangs up."""

SERVER_FILE = "server.json"
"""In a data folder while a server runs on it: `{"address": "127.0.0.1:50400", "pid": 1}`."""

_RETRIED = {
    "tunesmith_proto.scraper.v1.ScraperService": ("Collect", "GetCollection", "ListCollections"),
    "tunesmith_proto.scraper.v1.WatchService": ("PutWatch", "ListWatches"),
    "tunesmith_proto.captioner.v1.CaptionerService": ("ListCaptioners", "CaptionClips"),
    "tunesmith_proto.trainer.v1.TrainerService": (
        "ListRecipes",
        "BuildDataset",
        "GetDataset",
        "ListDatasets",
        "StartRun",
        "GetRun",
        "ListRuns",
        "JudgeRun",
    ),
    "tunesmith_proto.trainer.v1.ModelService": (
        "ListModels",
        "GetModel",
        "GetReport",
        "GetReportPage",
        "GetChampion",
        "TraceLineage",
    ),
    "tunesmith_proto.trainer.v1.PolicyService": ("GetPolicy", "ListPolicies"),
    "tunesmith_proto.trainer.v1.PairService": ("WritePairs",),
    "tunesmith_proto.trainer.v1.PublishingService": ("Publish", "ReadFile", "GetModelCard"),
    "tunesmith_proto.trainer.v1.CatalogueService": ("SetCatalogue", "GetCatalogue"),
    "tunesmith_proto.generator.v1.GeneratorService": ("Generate", "Compare", "ListServed"),
    "google.longrunning.Operations": ("GetOperation",),
    "tunesmith_proto.common.v1.JobService": ("ListJobs", "GetJob", "CancelJob"),
}
"""RPCs that may be sent twice. Those that start jobs are among them because they always carry a request id."""

SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": service, "method": method} for service, names in _RETRIED.items() for method in names],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server should be, and what said so."""

    target: str
    origin: str


class Connection:
    """A channel to one server. Stubs are `Any` because generated gRPC code carries no types; replies are annotated."""

    def __init__(self, channel: grpc.Channel, *, address: str, timeout_s: float | None) -> None:
        self.channel = channel
        self.address = address
        self._timeout_s = timeout_s
        token = os.environ.get("TUNESMITH_AUTH_TOKEN", "")
        self.metadata: Sequence[tuple[str, str]] = (("authorization", f"Bearer {token}"),) if token else ()

    @cached_property
    def jobs(self) -> Any:
        return jobs_pb2_grpc.JobServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @cached_property
    def scraper(self) -> Any:
        return scraper_pb2_grpc.ScraperServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @cached_property
    def watches(self) -> Any:
        return watches_pb2_grpc.WatchServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @cached_property
    def captioner(self) -> Any:
        return captioner_pb2_grpc.CaptionerServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @cached_property
    def trainer(self) -> Any:
        return trainer_pb2_grpc.TrainerServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @cached_property
    def models(self) -> Any:
        return models_pb2_grpc.ModelServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @cached_property
    def policies(self) -> Any:
        return policies_pb2_grpc.PolicyServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @cached_property
    def pairs(self) -> Any:
        return pairs_pb2_grpc.PairServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @cached_property
    def catalogues(self) -> Any:
        return catalogues_pb2_grpc.CatalogueServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @cached_property
    def sweeps(self) -> Any:
        return sweeps_pb2_grpc.SweepServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @cached_property
    def publishing(self) -> Any:
        return publishing_pb2_grpc.PublishingServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @cached_property
    def generator(self) -> Any:
        return generator_pb2_grpc.GeneratorServiceStub(self.channel)  # type: ignore[no-untyped-call]

    @cached_property
    def operations(self) -> Any:
        return operations_pb2_grpc.OperationsStub(self.channel)

    def call(self, method: Callable[..., Any], request: Message, *, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """One call under a deadline: `--timeout` if given, else `timeout_s`."""
        return method(request, timeout=self._timeout_s or timeout_s, metadata=self.metadata)

    def call_stream(self, method: Callable[..., Any], requests: Iterator[Message], *, timeout_s: float) -> Any:
        """The same for a call that sends a stream of requests and gets one reply."""
        return method(requests, timeout=self._timeout_s or timeout_s, metadata=self.metadata)

    def pages(self, method: Callable[..., Any], request: Any, field: str, *, limit: int) -> list[Any]:
        """Up to `limit` items of a paged list; `request` and its replies have the fields of AIP-158."""
        found: list[Any] = []
        while True:
            request.page_size = min(1000, limit - len(found))
            reply = self.call(method, request)
            found += getattr(reply, field)
            if len(found) >= limit or not reply.next_page_token:
                return found[:limit]
            request.page_token = reply.next_page_token


def address_of(options: Globals) -> Address | None:
    """The server that was named, else the one that the data folder records; None when there is neither."""
    if options.server:
        return Address(options.server, "--server")
    path = options.data / SERVER_FILE
    try:
        target = json.loads(path.read_text(encoding="utf-8"))["address"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Address(target, str(path)) if isinstance(target, str) and target else None


def open_channel(target: str) -> grpc.Channel:
    """A channel that retries idempotent calls and notices a dead peer. TLS when TUNESMITH_TLS_CA names a PEM file."""
    # gRPC's C core logs connection attempts to standard error, which belongs to our own messages.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]
    if target.startswith(("127.", "localhost:", "[::1]:", "unix:")):
        options.append(("grpc.enable_http_proxy", 0))
    if authority := os.environ.get("TUNESMITH_TLS_CA"):
        credentials = grpc.ssl_channel_credentials(Path(authority).read_bytes())
        return grpc.secure_channel(target, credentials, options=options)
    return grpc.insecure_channel(target, options=options)


def answers(channel: grpc.Channel, *, timeout_s: float) -> bool:
    """Whether a server is there and serving."""
    check = health_pb2_grpc.HealthStub(channel).Check
    try:
        reply = check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
    except grpc.RpcError as error:
        return isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNIMPLEMENTED
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@contextlib.contextmanager
def connect(options: Globals) -> Iterator[Connection]:
    """A connection to the server in charge; Unavailable, with the fix, when none answers."""
    address = address_of(options)
    if address is None:
        raise _no_server(f"for the data folder {options.data}")
    with connected(address, options) as connection:
        if connection is None:
            raise _no_server(f"at {address.target}")
        yield connection


@contextlib.contextmanager
def connected(address: Address, options: Globals) -> Iterator[Connection | None]:
    """A connection to `address`, or None when nothing answers there."""
    channel = open_channel(address.target)
    try:
        timeout_s = min(PROBE_TIMEOUT_S, options.timeout_s or PROBE_TIMEOUT_S)
        if answers(channel, timeout_s=timeout_s):
            yield Connection(channel, address=address.target, timeout_s=options.timeout_s)
        else:
            yield None
    finally:
        close(channel)


def close(channel: grpc.Channel) -> None:
    """Cancel what is under way and close the channel, within CLOSE_TIMEOUT_S.

    grpcio's close cancels every call and then waits for all of them without limit, also for one whose bookkeeping a
    Ctrl-C has cut in half (https://github.com/grpc/grpc/issues/20026; use plain `channel.close` once that is closed).
    """
    closing = threading.Thread(target=channel.close, name="close-channel", daemon=True)
    closing.start()
    closing.join(CLOSE_TIMEOUT_S)


def _no_server(where: str) -> Unavailable:
    return Unavailable(
        f"no Tunesmith server answers {where}; start one with `tunesmith up` or use `tunesmith run`", reason=NO_SERVER
    )
