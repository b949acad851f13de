"""Finding the servers, the channels to them, and one typed door to each service."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
from google.longrunning import operations_pb2_grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

import tunesmith
from tunesmith.addresses import SERVICE_PORTS, read_servers
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

SERVICE_CONFIG = Path(tunesmith.__file__).with_name("service_config.json")
"""What any client does about servers that restart (gRPC's service config): which calls are sent again, that calls wait
for a server, and that several addresses are used in turn. Calls that start jobs may be sent again because they carry a
request id, or join the job of an equal request. CANCELLED is what a server that ends answers to a call which reached it
at that very instant, or was not done in time; a client's own cancelling is never repeated."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the services should be, and what said so."""

    targets: Mapping[str, str]
    """gRPC target by service; a service that was not named is missing."""
    origin: str

    @property
    def single(self) -> str:
        """The target of all services; empty when they have several."""
        targets = set(self.targets.values())
        return next(iter(targets)) if len(targets) == 1 and len(self.targets) == len(SERVICE_PORTS) else ""

    def __str__(self) -> str:
        return self.single or ",".join(f"{service}={target}" for service, target in self.targets.items())


class Channels:
    """A channel to each service, opened when it is first asked for; services at one target share one."""

    def __init__(self, address: Address, *, probe_timeout_s: float | None = None) -> None:
        """With `probe_timeout_s` each server must show within that time that it serves."""
        self.address = address
        self._probe_timeout_s = probe_timeout_s
        self._open: dict[str, grpc.Channel] = {}

    def of(self, service: str) -> grpc.Channel:
        """The channel to a service. Unavailable names the service and the address that does not answer."""
        target = self.address.targets.get(service)
        if target is None:
            raise Unavailable(
                f"{self.address.origin} names no address of the {service}; add {service}=HOST:PORT", reason=NO_SERVER
            )
        if target not in self._open:
            channel = open_channel(target)
            if self._probe_timeout_s is not None and not answers(channel, timeout_s=self._probe_timeout_s):
                close(channel)
                if self.address.single:
                    raise _no_server(f"at {target}")
                raise Unavailable(
                    f"no {service} answers at {target}; start it with `python -m tunesmith_{service}`, or say where it "
                    f"is with --server {service}=HOST:PORT",
                    reason=NO_SERVER,
                    metadata={"service": service, "address": target},
                )
            self._open[target] = channel
        return self._open[target]

    def any(self) -> grpc.Channel:
        """The channel to some service that answers: all of them know all jobs. Unavailable when none does."""
        for service in self.address.targets:
            if self.address.targets[service] in self._open:
                return self.of(service)
        failures: list[Unavailable] = []
        for service in self.address.targets:
            try:
                return self.of(service)
            except Unavailable as error:
                failures.append(error)
        raise failures[0]

    def close(self) -> None:
        """Close them all."""
        for channel in self._open.values():
            close(channel)


class Connection:
    """The services. Stubs are `Any` because generated gRPC code carries no types; replies are annotated."""

    def __init__(self, channels: Channels, *, timeout_s: float | None) -> None:
        self._channels = channels
        self._timeout_s = timeout_s
        token = os.environ.get("TUNESMITH_AUTH_TOKEN", "")
        self.metadata: Sequence[tuple[str, str]] = (("authorization", f"Bearer {token}"),) if token else ()

    @property
    def address(self) -> str:
        """Where the services are, for people."""
        return str(self._channels.address)

    def require(self, *services: str) -> None:
        """Raise Unavailable for the first of them that does not answer: before long work that will need it."""
        for service in services:
            self._channels.of(service)

    @cached_property
    def jobs(self) -> Any:
        """The jobs of all services, for reading."""
        return jobs_pb2_grpc.JobServiceStub(self._channels.any())  # type: ignore[no-untyped-call]

    def jobs_of(self, service: str) -> Any:
        """The jobs at the service that does them, which takes notice of a change at once."""
        channel = self._channels.of(service) if service else self._channels.any()
        return jobs_pb2_grpc.JobServiceStub(channel)  # type: ignore[no-untyped-call]

    def operations_of(self, service: str) -> Any:
        """The operations of one service, which alone can read their results."""
        return operations_pb2_grpc.OperationsStub(self._channels.of(service) if service else self._channels.any())

    @cached_property
    def watches(self) -> Any:
        return watches_pb2_grpc.WatchServiceStub(self._channels.of("scraper"))  # type: ignore[no-untyped-call]

    @cached_property
    def scraper(self) -> Any:
        return scraper_pb2_grpc.ScraperServiceStub(self._channels.of("scraper"))  # type: ignore[no-untyped-call]

    @cached_property
    def captioner(self) -> Any:
        return captioner_pb2_grpc.CaptionerServiceStub(self._channels.of("captioner"))  # type: ignore[no-untyped-call]

    @cached_property
    def trainer(self) -> Any:
        return trainer_pb2_grpc.TrainerServiceStub(self._channels.of("trainer"))  # type: ignore[no-untyped-call]

    @cached_property
    def models(self) -> Any:
        return models_pb2_grpc.ModelServiceStub(self._channels.of("trainer"))  # type: ignore[no-untyped-call]

    @cached_property
    def policies(self) -> Any:
        return policies_pb2_grpc.PolicyServiceStub(self._channels.of("trainer"))  # type: ignore[no-untyped-call]

    @cached_property
    def pairs(self) -> Any:
        return pairs_pb2_grpc.PairServiceStub(self._channels.of("trainer"))  # type: ignore[no-untyped-call]

    @cached_property
    def catalogues(self) -> Any:
        return catalogues_pb2_grpc.CatalogueServiceStub(self._channels.of("trainer"))  # type: ignore[no-untyped-call]

    @cached_property
    def sweeps(self) -> Any:
        return sweeps_pb2_grpc.SweepServiceStub(self._channels.of("trainer"))  # type: ignore[no-untyped-call]

    @cached_property
    def publishing(self) -> Any:
        return publishing_pb2_grpc.PublishingServiceStub(self._channels.of("trainer"))  # type: ignore[no-untyped-call]

    @cached_property
    def generator(self) -> Any:
        return generator_pb2_grpc.GeneratorServiceStub(self._channels.of("generator"))  # type: ignore[no-untyped-call]

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
    """What was named, else the server that the data folder records; None when there is neither."""
    if options.server:
        return Address(read_servers(options.server), "--server")
    path = options.data / SERVER_FILE
    try:
        target = json.loads(path.read_text(encoding="utf-8"))["address"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return address_at(target, str(path)) if isinstance(target, str) and target else None


def address_at(target: str, origin: str) -> Address:
    """All services at one target."""
    return Address(dict.fromkeys(SERVICE_PORTS, target), origin)


def open_channel(target: str) -> grpc.Channel:
    """A channel that retries idempotent calls and notices a dead peer. TLS when TUNESMITH_TLS_CA names a PEM file."""
    # gRPC's C core logs connection attempts to standard error, which belongs to our own messages.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", SERVICE_CONFIG.read_text("utf-8")),
        ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]
    if target.startswith(("127.", "localhost:", "[::1]:", "unix:", "ipv4:127.")):
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
    """A connection to the services in charge; Unavailable, with the fix, when none answers."""
    address = address_of(options)
    if address is None:
        raise _no_server(f"for the data folder {options.data}")
    with connected(address, options) as connection:
        yield connection


@contextlib.contextmanager
def connected(address: Address, options: Globals) -> Iterator[Connection]:
    """A connection to `address`.

    Unavailable when nothing answers at its one target; services at targets of their own are asked when they are needed.
    """
    timeout_s = min(PROBE_TIMEOUT_S, options.timeout_s or PROBE_TIMEOUT_S)
    channels = Channels(address, probe_timeout_s=timeout_s)
    try:
        if address.single:
            channels.any()
        yield Connection(channels, timeout_s=options.timeout_s)
    finally:
        channels.close()


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
