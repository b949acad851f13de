"""What the generator's gRPC adds to a call of text-generation-inference. Run: python benchmarks/gateway.py

Four ways to one stub that speaks TGI and answers at once, each in a process of its own, asked in turn in short rounds:
`direct` over HTTP, `bare hop` (the least that grpc.aio and aiohttp can be: a method that forwards bytes), and the
generator, `generate` (prompt, checks, lease, parsed answer) over its TGI backend. Figures are medians over the rounds.

Bars: at 8 in flight the generator adds at most 0.6 ms (p50) and 2 ms (p99). In a closed loop the time of a call is that
of everyone in flight before it: all of a hop's processor time counts eight times. So what it adds is told against the
bare hop and against the direct call, and again for a stub that takes some milliseconds to answer (`--delay`), as models
do, where the hop is not the bottleneck.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import psutil

from tunesmith.adapters.local_store import LocalStore
from tunesmith.domain import keys
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.models import Champion, ModelVersion
from tunesmith_proto.generator.v1 import generator_pb2, generator_pb2_grpc

ROUNDS = 9
ROUND_S = 1.0
IN_FLIGHT = (1, 8, 32)
BARS_MS = (0.6, 2.0)
"""What the generator may add at 8 in flight: p50, p99."""

VERSION = "mv-gateway"
NUM_TOKENS = 6
ANSWER = "acid jazz|<stop>|"
BARE_METHOD = "/bare.Hop/Generate"


# The stub


class Stub(asyncio.Protocol):
    """Text-generation-inference's routes with ready answers; HTTP/1.1, keep-alive, nothing else."""

    delay_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = self.data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.data) < end + 4 + length:
                return
            body, self.data = self.data[end + 4 : end + 4 + length], self.data[end + 4 + length :]
            asyncio.get_running_loop().call_later(
                Stub.delay_s * random.uniform(0.8, 1.2), self.answer, head.split(b" ", 2)[1], body
            ) if Stub.delay_s else self.answer(head.split(b" ", 2)[1], body)

    def answer(self, path: bytes, body: bytes) -> None:
        adapted = b"adapter_id" in body and VERSION.encode() in body
        if path == b"/generate":
            self.send(ANSWERS[adapted])
        elif path == b"/generate_stream":
            self.send(STREAM, kind=b"text/event-stream")
        elif path == b"/info":
            self.send(INFO)
        else:
            self.send(b"")

    def send(self, body: bytes, *, kind: bytes = b"application/json") -> None:
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\nx-prompt-tokens: 4\r\ncontent-length: %d\r\n\r\n%s"
            % (kind, len(body), body)
        )


def _answer(logprob: float) -> bytes:
    tokens = [{"id": n, "text": "a", "logprob": logprob, "special": False} for n in range(NUM_TOKENS)]
    details = {
        "finish_reason": "stop_sequence",
        "generated_tokens": NUM_TOKENS,
        "seed": 1,
        "prefill": [],
        "tokens": tokens,
    }
    return json.dumps({"generated_text": ANSWER, "details": details}).encode()


def _stream() -> bytes:
    events = []
    for index in range(1, NUM_TOKENS + 1):
        last = index == NUM_TOKENS
        details = {"finish_reason": "stop_sequence", "generated_tokens": NUM_TOKENS, "seed": 1, "input_length": 4}
        events.append(
            {
                "index": index,
                "token": {"id": index, "text": "a", "logprob": -0.5, "special": False},
                "generated_text": ANSWER if last else None,
                "details": details if last else None,
            }
        )
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


ANSWERS = {False: _answer(-1.0), True: _answer(-0.5)}
STREAM = _stream()
INFO = json.dumps(
    {"model_id": "gateway-base", "max_input_tokens": 4096, "max_total_tokens": 8192, "max_stop_sequences": 4,
     "version": "3.3.6"}
).encode()  # fmt: skip
REQUEST = json.dumps(
    {"inputs": "12->", "parameters": {"max_new_tokens": 32, "do_sample": True, "seed": 1, "details": True,
                                      "adapter_id": VERSION}}
).encode()  # fmt: skip


async def serve_stub(delay_ms: float) -> None:
    Stub.delay_s = delay_ms / 1000
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
    print(f"ready at 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


async def serve_bare(upstream: str) -> None:
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def forward(request: bytes, _context: Any) -> bytes:
            async with session.post(f"http://{upstream}/generate", data=request) as reply:
                return await reply.read()

        handler = grpc.method_handlers_generic_handler(
            "bare.Hop", {"Generate": grpc.unary_unary_rpc_method_handler(forward)}
        )
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(f"ready at 127.0.0.1:{port}", flush=True)
        await server.wait_for_termination()


# The load


@dataclass(frozen=True)
class Served:
    """A server in a process of its own."""

    address: str
    process: psutil.Process


@dataclass
class Way:
    """One way to the stub, and how long its calls took, by how many were in flight."""

    name: str
    call: Callable[[], Awaitable[object]]
    p50_ms: dict[int, list[float]] = field(default_factory=dict)
    p99_ms: dict[int, list[float]] = field(default_factory=dict)
    per_s: dict[int, list[float]] = field(default_factory=dict)
    process: psutil.Process | None = None
    """The hop's process, whose processor time counts."""
    cpu_us: dict[int, list[float]] = field(default_factory=dict)
    """A call."""

    async def round(self, in_flight: int) -> None:
        """Keep `in_flight` calls under way for a while."""
        times_s: list[float] = []
        began_cpu_s = self._cpu_s()
        end_s = time.perf_counter() + ROUND_S

        async def worker() -> None:
            while (began_s := time.perf_counter()) < end_s:
                await self.call()
                times_s.append(time.perf_counter() - began_s)

        await asyncio.gather(*(worker() for _ in range(in_flight)))
        times_s.sort()
        self.p50_ms.setdefault(in_flight, []).append(1000 * statistics.median(times_s))
        self.p99_ms.setdefault(in_flight, []).append(1000 * times_s[int(0.99 * (len(times_s) - 1))])
        self.per_s.setdefault(in_flight, []).append(len(times_s) / ROUND_S)
        self.cpu_us.setdefault(in_flight, []).append(1e6 * (self._cpu_s() - began_cpu_s) / len(times_s))

    def _cpu_s(self) -> float:
        if self.process is None:
            return 0.0
        times = self.process.cpu_times()
        return float(times.user + times.system)


async def measure(stub: Served, bare: Served, generator: Served) -> dict[str, Way]:
    async with (
        aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)) as session,
        grpc.aio.insecure_channel(bare.address) as bare_channel,
        grpc.aio.insecure_channel(generator.address) as channel,
    ):
        hop: Any = bare_channel.unary_unary(BARE_METHOD, None, None)  # bytes as they are
        generate: Any = generator_pb2_grpc.GeneratorServiceStub(channel)  # type: ignore[no-untyped-call]
        asked = generator_pb2.GenerateRequest(
            recipe="micro_genre", inputs={"seed": "12"}, allow_known=True, model="champion"
        )
        streamed = generator_pb2.GenerateStreamRequest(request=asked)

        async def direct() -> object:
            async with session.post(f"http://{stub.address}/generate", data=REQUEST) as reply:
                return await reply.read()

        async def direct_first() -> object:
            async with session.post(f"http://{stub.address}/generate_stream", data=REQUEST) as reply:
                first = await reply.content.readany()
                await reply.read()
                return first

        async def first_token() -> object:
            call = generate.GenerateStream(streamed)
            first = await call.read()
            assert first.token.text == "a"
            return first

        ways = [
            Way("direct", direct),
            Way("bare hop", lambda: hop(REQUEST), process=bare.process),
            Way("generate", lambda: generate.Generate(asked), process=generator.process),
            Way("direct, first token", direct_first),
            Way("generate, first token", first_token),
        ]
        answer = (await generate.Generate(asked)).answer
        assert answer.valid, answer
        assert answer.model_version == VERSION, answer
        for way in ways:
            await way.call()
        for _ in range(ROUNDS):
            for in_flight in IN_FLIGHT:
                for way in ways:
                    await way.round(in_flight)
    return {way.name: way for way in ways}


def report(ways: dict[str, Way], *, delay_ms: float) -> bool:
    """Print the table; whether the bars hold against the bare hop."""
    print(f"\nstub answers {'at once' if not delay_ms else f'after about {delay_ms:g} ms'}; medians of {ROUNDS} rounds")
    print(f"{'':24}" + "".join(f"{f'{n} in flight: p50':>19}{'p99 ms':>8}{'calls/s':>9}" for n in IN_FLIGHT))
    for way in ways.values():
        cells = (
            f"{statistics.median(way.p50_ms[n]):19.2f}{statistics.median(way.p99_ms[n]):8.2f}"
            f"{statistics.median(way.per_s[n]):9.0f}"
            for n in IN_FLIGHT
        )
        print(f"{way.name:24}" + "".join(cells))
    cpu_us = {name: statistics.median(ways[name].cpu_us[8]) for name in ("bare hop", "generate")}
    print("processor time of the hop a call, 8 in flight: " + ", ".join(f"{n} {us:.0f} us" for n, us in cpu_us.items()))
    held = True
    for peer in ("bare hop", "direct"):
        added = [
            statistics.median(a - b for a, b in zip(ours, theirs, strict=True))
            for ours, theirs in (
                (ways["generate"].p50_ms[8], ways[peer].p50_ms[8]),
                (ways["generate"].p99_ms[8], ways[peer].p99_ms[8]),
            )
        ]
        verdict = all(value <= bar for value, bar in zip(added, BARS_MS, strict=True))
        held &= verdict or peer == "direct"
        print(
            f"the generator adds to the {peer:8} at 8 in flight: p50 {added[0]:+.2f} ms (bar {BARS_MS[0]}), "
            f"p99 {added[1]:+.2f} ms (bar {BARS_MS[1]}){'  met' if verdict else '  NOT MET'}"
        )
    return held


# The processes


@contextlib.contextmanager
def process(*argv: str, env: dict[str, str] | None = None) -> Iterator[Served]:
    """A server of this file, or the generator."""
    with subprocess.Popen(
        [sys.executable, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | (env or {}),
    ) as running:
        assert running.stdout is not None
        try:
            for line in running.stdout:
                if "ready at 127.0.0.1:" in line:
                    port = line.split("ready at 127.0.0.1:")[1].split()[0]
                    yield Served(f"127.0.0.1:{port}", psutil.Process(running.pid))
                    break
            else:
                raise SystemExit(f"{' '.join(argv)} ended before it served")
        finally:
            running.terminate()
            running.communicate()


def put_champion(data: Path) -> None:
    """A champion whose adapter the stub answers for."""
    store = LocalStore(data / "store")
    version = ModelVersion(
        id=VERSION,
        recipe="micro_genre",
        run_id="run",
        dataset_id="",
        base_model="gateway-base",
        base_fingerprint="hub:gateway-base",
        adapter_key="runs/micro_genre/run/adapter/",
        adapter_hash="0" * 64,
        report_id="report",
        passed=True,
        created_at="2026-01-01T00:00:00.000000Z",
    )
    store.put(keys.model_version("micro_genre", VERSION), canonical_json(version.to_json()))
    alias = Champion("micro_genre", VERSION, 1, "benchmark", ())
    store.put(keys.champion("micro_genre"), canonical_json(alias.to_json()))


def run(delay_ms: float) -> bool:
    """One table."""
    this = str(Path(__file__).resolve())
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as processes:
        data = Path(name) / "data"
        put_champion(data)
        stub = processes.enter_context(process(this, "--stub", str(delay_ms)))
        bare = processes.enter_context(process(this, "--bare", stub.address))
        generator = processes.enter_context(
            process(
                "-m",
                "tunesmith_generator",
                env={
                    "TUNESMITH_DATA": str(data),
                    "TUNESMITH_LISTEN": "127.0.0.1:0",
                    "TUNESMITH_GENERATOR_BACKEND": f"tgi+http://{stub.address}",
                    "TUNESMITH_LOG_FORMAT": "text",
                },
            )
        )
        return report(asyncio.run(measure(stub, bare, generator)), delay_ms=delay_ms)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=20.0, metavar="MS", help="of the second table's stub")
    parser.add_argument("--stub", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--bare", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stub is not None:
        asyncio.run(serve_stub(options.stub))
    elif options.bare:
        asyncio.run(serve_bare(options.bare))
    else:
        run(0.0)
        run(options.delay)
