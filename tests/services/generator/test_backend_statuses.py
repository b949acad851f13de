"""What callers of the generator's gRPC see of a backend's troubles: the status, the reason and the fix."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from registry_material import RECIPE, promote, put_version

from contract.fake_language_model import FakeLanguageModel
from contract.tiny_models import FINGERPRINT
from doubles.model_server import ModelServer
from tunesmith.adapters.local_store import LocalStore
from tunesmith.platform import Platform
from tunesmith.ports.language_model import Adapter
from tunesmith.rpc.hosting import host
from tunesmith.settings import Settings
from tunesmith_generator.bootstrap import build
from tunesmith_proto.generator.v1 import generator_pb2, generator_pb2_grpc

SCHEMA = '{"type": "object", "properties": {"a": {"type": "string"}}}'

Ask = Callable[..., Awaitable[generator_pb2.Answer]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ModelServer]:
    model = FakeLanguageModel(lambda adapter, _prompt, _seed: f"{adapter.name if adapter else 'base'} jazz|<stop>|")
    await model.load(Adapter("mv-1", "hash", "key/", "tiny", FINGERPRINT))
    running = ModelServer(model, LocalStore(tmp_path / "double"), FINGERPRINT, "tiny", started_with=("mv-1",))
    await running.start()
    yield running
    await running.stop()


@asynccontextmanager
async def generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> AsyncIterator[Ask]:
    """The service on a port of its own, with a champion."""
    monkeypatch.setenv("TUNESMITH_GENERATOR_BACKEND", backend)
    platform = Platform.open(Settings.read(data=tmp_path / "data", listen="127.0.0.1:0"))
    put_version(platform.store, "mv-1")
    put_version(platform.store, "mv-2")
    promote(platform.store, "mv-1")
    stop = asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    hosting = asyncio.create_task(host([build], platform, on_ready=ready.set_result, stop=stop))
    async with grpc.aio.insecure_channel(await ready) as channel:
        stub: Any = generator_pb2_grpc.GeneratorServiceStub(channel)  # type: ignore[no-untyped-call]

        async def ask(*, model: str = "", timeout_s: float = 5.0, **parameters: Any) -> generator_pb2.Answer:
            request = generator_pb2.GenerateRequest(
                recipe=RECIPE,
                prompt="12->",
                model=model,
                parameters=generator_pb2.GenerationParameters(max_new_tokens=20, **parameters),
            )
            answer: generator_pb2.Answer = (await stub.Generate(request, timeout=timeout_s)).answer
            return answer

        yield ask
    stop.set()
    await hosting
    platform.close()


async def refusal(asking: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asking
    return refused.value.code(), refused.value.details() or ""


async def test_answers_and_errors_of_a_backend_come_through(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with generator(tmp_path, monkeypatch, f"tgi+{server.url}") as ask:
        answer = await ask()
        assert (answer.raw_text, answer.model_version) == ("mv-1 jazz|<stop>|", "mv-1")

        code, words = await refusal(ask(model="mv-2"))
        assert (code, "LORA_ADAPTERS=mv-2" in words) == (grpc.StatusCode.NOT_FOUND, True)
        assert await refusal(ask(temperature=-1.0)) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "generation parameter temperature=-1.0 must be greater than 0 and finite",
        )
        code, words = await refusal(ask(json_schema='{"type": "string"}'))
        assert (code, "must describe an object" in words) == (grpc.StatusCode.INVALID_ARGUMENT, True)

        server.broken = [(422, "application/json", b'{"error":"grammar is not valid","error_type":"validation"}')]
        code, words = await refusal(ask(json_schema=SCHEMA))
        assert (code, "grammar is not valid" in words) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        code, words = await refusal(ask(json_schema=SCHEMA))  # the stand-in writes no JSON
        assert (code, "did not keep to the JSON schema" in words) == (grpc.StatusCode.UNAVAILABLE, True)

        server.broken = [(200, "text/html", b"<html>hello</html>")] * 100
        code, words = await refusal(ask())
        assert (code, "HTML page" in words) == (grpc.StatusCode.UNAVAILABLE, True)
        server.broken = []

        server.hanging = True
        code, _ = await refusal(ask(timeout_s=0.5))
        assert code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


async def test_a_restart_of_the_backend_is_waited_out_within_the_callers_time(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with generator(tmp_path, monkeypatch, f"tgi+{server.url}") as ask:
        await ask()
        port = server.port
        await server.stop()

        code, words = await refusal(ask(timeout_s=0.5))
        waiting = asyncio.create_task(ask(timeout_s=20))
        while not waiting.done() and server._runner is None:
            await server.start(port)
        answer = await waiting

    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert "127.0.0.1" in words or code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert answer.raw_text == "mv-1 jazz|<stop>|"


async def test_a_backend_of_another_base_or_none_at_all_is_told(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.model_id = "/models/other"
    async with generator(tmp_path / "other", monkeypatch, f"tgi+{server.url}") as ask:
        code, words = await refusal(ask())
        assert (code, "base=NAME" in words) == (grpc.StatusCode.INVALID_ARGUMENT, True)

    async with generator(tmp_path / "none", monkeypatch, "tgi+http://127.0.0.1:1") as ask:
        code, words = await refusal(ask())
        assert (code, "TUNESMITH_GENERATOR_BACKEND" in words) == (grpc.StatusCode.UNAVAILABLE, True)
