"""Hosts one or several services in a process: gRPC server, consumers, reconciler, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as aio_health  # type: ignore[attr-defined]  # missing in grpc-stubs
from grpc_reflection.v1alpha import reflection

from tunesmith.domain.addresses import is_loopback
from tunesmith.domain.errors import InvalidSettings, Unavailable
from tunesmith.jobs.hosts import Hosts
from tunesmith.jobs.reconciler import Reconciler
from tunesmith.platform import Platform
from tunesmith.rpc.interceptor import CallInterceptor
from tunesmith.rpc.jobs import JobBoard, JobServicer, OperationsServicer
from tunesmith.rpc.service import Mount, Service
from tunesmith.settings import Settings
from tunesmith_proto.common.v1 import jobs_pb2, jobs_pb2_grpc

log = logging.getLogger(__name__)

BuildService = Callable[[Platform, JobBoard], Service]
"""A service's bootstrap."""

MAX_CONNECTION_AGE_MS = 30 * 60 * 1000
"""Clients reconnect now and then, so that a new replica gets its share (one HTTP/2 connection pins one pod)."""


FIRST_LOOK_AGAIN_S = 0.25
LONGEST_LOOK_AGAIN_S = 3.0
"""Pauses between looks whether store and bus answer at the start."""


async def host(
    builders: Sequence[BuildService],
    platform: Platform,
    *,
    on_ready: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Serve until `stop` is set, then drain; `on_ready` gets the address once calls are answered.

    Health is answered from the start, NOT_SERVING until store and bus answer. InvalidSettings when the address may not
    be served on, Unavailable when its port is in use, or when store or bus stay away for TUNESMITH_START_TIMEOUT_S.
    """
    settings = platform.settings
    draining = asyncio.Event()
    board = JobBoard(platform.jobs)
    services = [build(platform, board) for build in builders]
    reconciler = Reconciler(
        jobs=platform.jobs,
        bus=platform.bus,
        launcher=platform.launcher,
        clock=platform.clock,
        kinds={kind: how for service in services for kind, how in service.kinds.items()},
        worker_env=settings.worker_env(),
        hosts=Hosts(
            platform.store,
            platform.clock,
            host=platform.launcher.scope,
            services=[service.name for service in services if service.kinds],
            lost_after_s=settings.host_lost_after_s,
        ),
    )
    board.connect(reconciler.wake)
    interceptor = CallInterceptor(auth_token=settings.auth_token)
    server = grpc.aio.server(
        interceptors=[interceptor],
        # Without this two servers share a port silently, each answering half of the calls.
        options=[("grpc.so_reuseport", 0), ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_MS)],
    )
    health_servicer = aio_health.HealthServicer()
    served = _mount_all(server, services, board, health_servicer, draining)
    for name in served:
        await health_servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
    address = _bind(server, settings)
    await server.start()
    try:
        if not await _surroundings_answer(platform, services, stop):
            return
        async with contextlib.AsyncExitStack() as started:
            for service in services:
                started.push_async_callback(service.stop)
                await service.start()
            interceptor.open()
            for name in served:
                await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
            reconciler.start()
            for service in services:
                for loop in (*service.consumers, *service.background):
                    loop.start()
            on_ready(address)
            log.info("serving %s on %s", ", ".join(service.name for service in services), address)
            try:
                await stop.wait()
            finally:
                log.info("draining")
                draining.set()
                await health_servicer.enter_graceful_shutdown()
                await server.stop(settings.drain_s)
                await asyncio.to_thread(_stop_background, services, reconciler, platform)
    finally:
        await server.stop(None)


async def _surroundings_answer(platform: Platform, services: Sequence[Service], stop: asyncio.Event) -> bool:
    """Wait until store and bus answer; False when the process is to end before that. Unavailable after the time-out."""
    topics = sorted({topic for service in services for topic in service.topics})
    timeout_s = platform.settings.start_timeout_s
    loop = asyncio.get_running_loop()
    began_s, pause_s = loop.time(), FIRST_LOOK_AGAIN_S
    while not stop.is_set():
        try:
            await asyncio.to_thread(platform.prepare, topics)
        except Unavailable as error:
            waited_s = loop.time() - began_s
            if waited_s + pause_s > timeout_s:
                raise Unavailable(
                    f"gave up after {waited_s:.0f} s (TUNESMITH_START_TIMEOUT_S={timeout_s:g}): {error.message}",
                    reason=error.reason,
                    metadata=error.metadata,
                ) from error
            if pause_s == FIRST_LOOK_AGAIN_S:
                log.warning("not ready yet; waiting up to %g s: %s", timeout_s, error.message)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)
            pause_s = min(1.5 * pause_s, LONGEST_LOOK_AGAIN_S)
        else:
            return True
    return False


def _mount_all(
    server: Any, services: Sequence[Service], board: JobBoard, health_servicer: Any, draining: asyncio.Event
) -> list[str]:
    """Mount everything; returns the names that health knows, the empty one for the whole server among them."""
    common = [
        Mount(
            _full_name(jobs_pb2, "JobService"),
            _adder(jobs_pb2_grpc.add_JobServiceServicer_to_server, JobServicer(board, draining)),
        ),
        Mount(
            _full_name(operations_pb2, "Operations"),
            _adder(operations_pb2_grpc.add_OperationsServicer_to_server, OperationsServicer(board, draining)),
        ),
        Mount(health.SERVICE_NAME, _adder(health_pb2_grpc.add_HealthServicer_to_server, health_servicer)),
    ]
    mounts = [*(mount for service in services for mount in service.mounts), *common]
    for mount in mounts:
        mount.add_to_server(server)
    names = [mount.full_name for mount in mounts]
    reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
    return ["", *names]


def _full_name(module: Any, service: str) -> str:
    return str(module.DESCRIPTOR.services_by_name[service].full_name)


def _adder(add: Callable[[Any, Any], None], servicer: Any) -> Callable[[Any], None]:
    return lambda server: add(servicer, server)


def mount(module: Any, service: str, add: Callable[[Any, Any], None], servicer: Any) -> Mount:
    """A Mount for `service` of a generated module."""
    return Mount(_full_name(module, service), _adder(add, servicer))


def _bind(server: Any, settings: Settings) -> str:
    host_name, _, port = settings.listen.rpartition(":")
    if not host_name or not port.isdigit() or int(port) > 65535:
        raise InvalidSettings(
            f"TUNESMITH_LISTEN={settings.listen!r} is not HOST:PORT; write for example 127.0.0.1:50400"
        )
    credentials = _credentials(settings)
    if credentials is None and not settings.allow_insecure and not is_loopback(host_name):
        raise InvalidSettings(
            f"TUNESMITH_LISTEN={settings.listen!r} reaches beyond this machine without TLS: set TUNESMITH_TLS_CERT and "
            "TUNESMITH_TLS_KEY, or TUNESMITH_ALLOW_INSECURE=true where a proxy or mesh encrypts"
        )
    try:
        if credentials is None:
            bound = server.add_insecure_port(settings.listen)
        else:
            bound = server.add_secure_port(settings.listen, credentials)
    except RuntimeError as error:
        raise Unavailable(
            f"cannot listen on {settings.listen}: the port is in use or not allowed ({str(error)[:120]}); "
            "stop the other program, or choose another port (--listen, TUNESMITH_LISTEN)",
            reason="PORT_IN_USE",
            metadata={"address": settings.listen},
        ) from error
    return f"{host_name}:{bound}"


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        raise InvalidSettings("TUNESMITH_TLS_CERT and TUNESMITH_TLS_KEY go together: set both or none")
    try:
        return grpc.ssl_server_credentials([(settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())])
    except OSError as error:
        raise InvalidSettings(f"the TLS files cannot be read: {error}") from error


def _stop_background(services: Sequence[Service], reconciler: Reconciler, platform: Platform) -> None:
    for service in services:
        for loop in (*service.background, *service.consumers):
            loop.stop()
    reconciler.stop()
    if platform.launcher.scope:  # nobody else would see to its workers
        reconciler.stop_workers(grace_s=max(platform.settings.drain_s, 1.0))
    reconciler.settle_ended()
