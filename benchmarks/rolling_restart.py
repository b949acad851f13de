"""Calls that fail while every replica of every service is restarted in turn. Run: python benchmarks/rolling_restart.py

Two replicas of each of the four services run as processes over one store and one bus, behind client-side balancing.
200 requests a second go to all four while each replica gets SIGTERM and is started again. Bar: 0 failed calls under the
shipped policy (src/tunesmith/service_config.json). The peer is gRPC's own default channel to the same addresses at the
same time. `--replicas 1` is a restart of single servers, which calls wait out; TUNESMITH_STORE and TUNESMITH_BUS choose
other parts than a folder and SQLite.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from tunesmith.addresses import SERVICE_PORTS
from tunesmith.cli.connection import SERVICE_CONFIG
from tunesmith.rpc.health import ask
from tunesmith_proto.captioner.v1 import captioner_pb2, captioner_pb2_grpc
from tunesmith_proto.generator.v1 import generator_pb2, generator_pb2_grpc
from tunesmith_proto.scraper.v1 import scraper_pb2, scraper_pb2_grpc
from tunesmith_proto.trainer.v1 import trainer_pb2, trainer_pb2_grpc

REQUESTS_PER_S = 200
PEER_REQUESTS_PER_S = 40
DEADLINE_S = 30.0
START_TIMEOUT_S = 60.0
PAUSE_S = 2.0
"""Between two restarts, so that clients have connected to the replica that is back."""

CALLS: dict[str, tuple[Any, str, Callable[[], Message]]] = {
    "scraper": (
        scraper_pb2_grpc.ScraperServiceStub,
        "ListCollections",
        lambda: scraper_pb2.ListCollectionsRequest(recipe="micro_genre"),
    ),
    "captioner": (captioner_pb2_grpc.CaptionerServiceStub, "ListCaptioners", captioner_pb2.ListCaptionersRequest),
    "trainer": (trainer_pb2_grpc.TrainerServiceStub, "ListRecipes", trainer_pb2.ListRecipesRequest),
    "generator": (generator_pb2_grpc.GeneratorServiceStub, "ListServed", generator_pb2.ListServedRequest),
}


@dataclass
class Replica:
    """One process of a service."""

    service: str
    folder: Path
    env: dict[str, str]
    address: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it where it was before, or on a free port."""
        if not self.address:
            with socket.create_server(("127.0.0.1", 0)) as server:
                self.address = f"127.0.0.1:{server.getsockname()[1]}"
        own = {"TUNESMITH_DATA": str(self.folder), "TUNESMITH_LISTEN": self.address}
        with self.folder.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"tunesmith_{self.service}"], env={**os.environ, **self.env, **own}, stderr=log
            )

    def wait_until_serving(self) -> None:
        """Raise RuntimeError when it does not serve in time."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while problem := ask(self.address):
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"{self.service} at {self.address}: {problem}; see {self.folder}.log")
            time.sleep(0.1)

    def kill(self) -> None:
        """End it whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def restart(self) -> float:
        """SIGTERM, and start it again; seconds until it serves."""
        assert self.process is not None
        began_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.start()
        self.wait_until_serving()
        return time.monotonic() - began_s


@dataclass
class Load:
    """Calls at a steady pace, and how they ended."""

    name: str
    per_s: float
    options: list[tuple[str, Any]]
    codes: Counter[str] = field(default_factory=Counter)
    took_s: list[float] = field(default_factory=list)

    async def run(self, targets: dict[str, str], stop: asyncio.Event) -> None:
        """Call all services in turn until `stop`, never waiting for an answer before the next call."""
        options = [*self.options, ("grpc.enable_http_proxy", 0)]
        channels = {service: grpc.aio.insecure_channel(target, options) for service, target in targets.items()}
        calls = [
            (getattr(stub(channels[service]), method), request) for service, (stub, method, request) in CALLS.items()
        ]
        loop = asyncio.get_running_loop()
        under_way: set[asyncio.Task[None]] = set()
        next_s = loop.time()
        for call, request in itertools.cycle(calls):
            if stop.is_set():
                break
            under_way.add(task := asyncio.create_task(self._call(call, request())))
            task.add_done_callback(under_way.discard)
            next_s += 1 / self.per_s
            await asyncio.sleep(max(0.0, next_s - loop.time()))
        await asyncio.gather(*under_way)
        for channel in channels.values():
            await channel.close(None)

    async def _call(self, call: Any, request: Message) -> None:
        began_s = time.perf_counter()
        try:
            await call(request, timeout=DEADLINE_S)
            self.codes["OK"] += 1
        except grpc.aio.AioRpcError as error:
            self.codes[error.code().name] += 1
        self.took_s.append(time.perf_counter() - began_s)

    def line(self) -> str:
        """The figures."""
        failed = self.codes.total() - self.codes["OK"]
        p50, p99 = statistics.median(self.took_s), statistics.quantiles(self.took_s, n=100)[98]
        kinds = ", ".join(f"{code} {count}" for code, count in self.codes.items() if code != "OK")
        return (
            f"{self.name:34} {self.codes.total():>7} {failed:>7} {p50 * 1000:>8.1f} {p99 * 1000:>8.0f} "
            f"{max(self.took_s) * 1000:>8.0f}  {kinds}"
        )


@contextmanager
def running(number: int) -> Iterator[list[Replica]]:
    """So many replicas of each service, serving."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        env = {
            "TUNESMITH_STORE": os.environ.get("TUNESMITH_STORE") or f"file://{folder}/store",
            "TUNESMITH_BUS": os.environ.get("TUNESMITH_BUS") or f"sqlite://{folder}/bus.sqlite",
        }
        replicas = [
            Replica(service, Path(folder, f"{service}-{n}"), env) for service in SERVICE_PORTS for n in range(number)
        ]
        for replica in replicas:
            replica.start()
            stack.callback(replica.kill)
        for replica in replicas:
            replica.wait_until_serving()
        yield replicas


async def measured(replicas: list[Replica]) -> tuple[list[Load], list[float]]:
    """Restart each replica in turn under load; the loads, and how long each restart took."""
    targets: dict[str, list[str]] = {}
    for replica in replicas:
        targets.setdefault(replica.service, []).append(replica.address)
    joined = {service: f"ipv4:{','.join(addresses)}" for service, addresses in targets.items()}
    loads = [
        Load("shipped policy", REQUESTS_PER_S, [("grpc.service_config", SERVICE_CONFIG.read_text("utf-8"))]),
        Load("peer: a channel of gRPC's defaults", PEER_REQUESTS_PER_S, []),
    ]
    stop = asyncio.Event()
    tasks = [asyncio.create_task(load.run(joined, stop)) for load in loads]
    restarts = []
    await asyncio.sleep(PAUSE_S)
    for replica in replicas:
        restarts.append(await asyncio.to_thread(replica.restart))
        await asyncio.sleep(PAUSE_S)
    stop.set()
    await asyncio.gather(*tasks)
    return loads, restarts


def main() -> int:
    """Print the table; 1 when a call failed under the shipped policy."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicas", type=int, default=2)
    number = parser.parse_args().replicas
    with running(number) as replicas:
        loads, restarts = asyncio.run(measured(replicas))
    failed = loads[0].codes.total() - loads[0].codes["OK"]
    print(
        f"{len(restarts)} restarts of {number} replicas of each service, {statistics.median(restarts):.1f} s each "
        f"(at most {max(restarts):.1f} s); deadline {DEADLINE_S:g} s"
    )
    print(f"{'':34} {'calls':>7} {'failed':>7} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}")
    for load in loads:
        print(load.line())
    print(f"bar: 0 failed under the shipped policy: {'met' if not failed else 'NOT MET'}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
