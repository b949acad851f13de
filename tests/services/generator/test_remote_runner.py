"""Several servers behind one language model: choice, health, retries, a changing list; and servers that misbehave."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from contract.fake_language_model import FakeLanguageModel
from contract.tiny_models import FINGERPRINT
from doubles.model_server import ModelServer
from tunesmith.adapters.http_endpoint import Limits
from tunesmith.adapters.local_store import LocalStore
from tunesmith.domain.deadlines import set_deadline
from tunesmith.domain.errors import (
    BaseModelUnavailable,
    DeadlineExceeded,
    InvalidInput,
    InvalidSettings,
    NotFound,
    PermissionRefused,
    TunesmithError,
    Unavailable,
    Unsupported,
)
from tunesmith.ports.language_model import Adapter, GenerationParameters
from tunesmith_generator.backends import BackendList, read_backend
from tunesmith_generator.runners.remote import RemoteRunner, RemoteSettings
from tunesmith_generator.servers import LIMITS, connector

SETTINGS = RemoteSettings(check_interval_s=0.05, check_timeout_s=0.5, backoff_s=0.01, max_wait_s=0.3)
GREEDY = GenerationParameters(max_new_tokens=8)
ADAPTER = Adapter("v1", "0" * 64, "key/", "tiny", FINGERPRINT)

StartServer = Callable[..., Awaitable[ModelServer]]
Open = Callable[..., RemoteRunner]


def writing(adapter: Adapter | None, prompt: str, seed: int | None) -> str:
    return f"{adapter.name if adapter else 'base'} {seed} {prompt} " * 60


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[StartServer]:
    """Starts servers over a model that was started with `v1`."""
    started: list[ModelServer] = []

    async def start(port: int = 0, **values: Any) -> ModelServer:
        model = FakeLanguageModel(writing)
        await model.load(ADAPTER)
        options = {"model_id": "tiny", "started_with": ("v1",)} | values
        server = ModelServer(model, LocalStore(tmp_path / "store"), FINGERPRINT, **options)
        await server.start(port)
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the language model of a setting."""
    made: list[RemoteRunner] = []

    def open_one(setting: str, *, settings: RemoteSettings = SETTINGS, limits: Limits = LIMITS) -> RemoteRunner:
        backend = read_backend(setting)
        connect = connector(
            backend, store=LocalStore(tmp_path / "store"), cache_dir=tmp_path / "cache", api_key="", limits=limits
        )
        made.append(RemoteRunner(BackendList(backend), connect, settings))
        return made[-1]

    yield open_one
    for runner in made:
        await runner.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


async def asked(runner: RemoteRunner, *, adapter: str | None = None) -> str:
    return (await runner.generate("hello", GREEDY, adapter=adapter)).text


async def test_requests_go_to_the_server_with_the_fewest(start_server: StartServer, opened: Open) -> None:
    servers = [await start_server() for _ in range(3)]
    runner = opened("tgi+" + ",".join(server.url for server in servers))

    for _ in range(4):
        await asyncio.gather(*(asked(runner) for _ in range(6)))

    assert [len(server.bodies) for server in servers] == [8, 8, 8]


async def test_a_server_that_goes_gets_no_requests_and_gets_them_again_when_it_is_back(
    start_server: StartServer, opened: Open
) -> None:
    stays, goes = await start_server(), await start_server()
    runner = opened(f"tgi+{stays.url},{goes.url}", settings=replace(SETTINGS, max_wait_s=5))
    await runner.load(ADAPTER)

    await goes.stop()
    answers = [await asked(runner, adapter="v1") for _ in range(6)]
    back = await start_server(goes.port)
    async with asyncio.timeout(10):
        while not any(body["inputs"] == "hello" for body in back.bodies):  # others prove that it has the adapter
            answers.append(await asked(runner, adapter="v1"))

    assert set(answers) == {"v1 None "}


async def test_requests_do_not_wait_while_a_server_is_checked(start_server: StartServer, opened: Open) -> None:
    server = await start_server()
    runner = opened(f"tgi+{server.url}", settings=replace(SETTINGS, check_timeout_s=60.0))
    await runner.load(ADAPTER)

    server.hanging_path = "/info"
    await until(lambda: server.num_running["/info"] == 1)

    async with asyncio.timeout(10):
        assert await asked(runner, adapter="v1") == "v1 None "
    assert server.num_running["/info"] == 1


async def test_a_server_that_came_back_without_the_adapter_is_not_asked_for_it(
    start_server: StartServer, opened: Open
) -> None:
    only = await start_server()
    runner = opened(f"tgi+{only.url}")
    await runner.load(ADAPTER)
    assert await asked(runner, adapter="v1") == "v1 None "

    await only.stop()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await asked(runner, adapter="v1")
    back = await start_server(only.port, started_with=())
    await until(lambda: len(back.bodies) >= 6)

    with pytest.raises(NotFound, match="LORA_ADAPTERS=v1"):
        await asked(runner, adapter="v1")
    assert await asked(runner) == "base Non"


async def test_a_busy_server_is_asked_again_within_the_callers_time(start_server: StartServer, opened: Open) -> None:
    server = await start_server()
    runner = opened(f"tgi+{server.url}", settings=replace(SETTINGS, max_wait_s=5))
    busy = (429, "application/json", b'{"error":"Model is overloaded","error_type":"overloaded"}')
    server.broken = [busy, (503, "text/html", b"<html>"), busy]

    assert await asked(runner) == "base Non"
    assert server.broken == []

    server.broken = [busy] * 1000
    set_deadline(0.2)
    async with asyncio.timeout(2):
        with pytest.raises(Unavailable, match="overloaded"):
            await asked(runner)


async def test_a_busy_server_is_passed_over_for_another(start_server: StartServer, opened: Open) -> None:
    busy, free = await start_server(), await start_server()
    runner = opened(f"tgi+{busy.url},{free.url}")
    await asked(runner)
    busy.broken = [(429, "application/json", b"{}")] * 100

    assert {await asked(runner) for _ in range(5)} == {"base Non"}


@pytest.mark.parametrize("kind", ["tgi", "openai"])
async def test_cancelling_reaches_the_server(start_server: StartServer, opened: Open, kind: str) -> None:
    server = await start_server()
    model = cast(FakeLanguageModel, server.model)
    runner = opened(f"{kind}+{server.url}")
    long = replace(GREEDY, max_new_tokens=250)

    def running() -> int:
        return sum(model.num_running.values())

    async with aclosing(cast(Any, runner.stream("hello", long, adapter=None))) as chunks:
        await anext(chunks)
        assert running() == 1
    await until(lambda: running() == 0)

    model._slots = asyncio.Semaphore(0)
    waiting = asyncio.create_task(runner.generate("hello", long, adapter=None))
    await until(lambda: running() == 1)
    waiting.cancel()
    await until(lambda: running() == 0)


async def test_the_list_in_a_file_may_change(start_server: StartServer, opened: Open, tmp_path: Path) -> None:
    old, new = await start_server(), await start_server()
    file = tmp_path / "backends"
    file.write_text(f"# replicas\n{old.url}\n")
    runner = opened(f"tgi+file://{file}")
    await runner.load(ADAPTER)
    assert await asked(runner, adapter="v1") == "v1 None "

    async with aclosing(cast(Any, runner.stream("hello", replace(GREEDY, max_new_tokens=200), adapter="v1"))) as chunks:
        await anext(chunks)
        file.write_text(f"{new.url}\n")
        await until(lambda: len(new.bodies) >= 3)
        rest = [chunk async for chunk in chunks]
    num_asked_of_old = len(old.bodies)
    async with asyncio.timeout(5):
        while await asked(runner, adapter="v1") and len(new.bodies) < 6:
            pass

    assert rest[-1].generation.num_generated_tokens == 200
    assert len(old.bodies) == num_asked_of_old


async def test_a_list_that_cannot_be_read_is_told_of_once_each_time_it_goes(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "backends"
    runner = opened(f"tgi+file://{file}")

    async def looked(times: int) -> int:
        for _ in range(times):
            with suppress(Unavailable):
                await runner.load(ADAPTER)
        return caplog.text.count("the old one stays")

    assert await looked(3) == 1
    file.write_text("http://127.0.0.1:9\n")
    assert await looked(1) == 1
    file.unlink()
    assert await looked(2) == 2


async def test_a_name_of_several_machines_is_several_servers(
    start_server: StartServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start_server()

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        assert host == "tgi.example"
        return [(0, 0, 0, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    listed = BackendList(read_backend(f"tgi+http://tgi.example:{server.port}?discover=dns"))

    assert await listed() == [f"http://127.0.0.1:{server.port}", f"http://127.0.0.2:{server.port}"]


async def test_an_adapter_of_the_start_is_told_from_one_that_the_base_would_answer_for(
    start_server: StartServer, opened: Open
) -> None:
    server = await start_server()
    runner = opened(f"tgi+{server.url}")

    with pytest.raises(NotFound, match="LORA_ADAPTERS=v2=FOLDER"):
        await runner.load(replace(ADAPTER, name="v2"))
    with pytest.raises(NotFound, match="v2 is not loaded"):
        await asked(runner, adapter="v2")

    await runner.load(ADAPTER)
    assert await asked(runner, adapter="v1") == "v1 None "


async def test_a_server_that_was_started_with_another_version_is_asked_and_told_of_once(
    start_server: StartServer, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """While versions change, each server has one of the two; a check every two seconds must not be six requests."""
    has, lacks = await start_server(), await start_server(started_with=("v0",))
    runner = opened(f"tgi+{has.url},{lacks.url}")
    await runner.load(ADAPTER)
    asked_by_then = len(lacks.bodies)
    assert asked_by_then > 0

    checks = lacks.num_checks
    await until(lambda: lacks.num_checks >= checks + 5)

    assert len(lacks.bodies) == asked_by_then
    assert sum("does not answer with v1" in record.getMessage() for record in caplog.records) == 1
    assert await asked(runner, adapter="v1")


async def test_a_merged_model_is_recognised_by_its_folder(start_server: StartServer, opened: Open) -> None:
    server = await start_server(model_id="/models/v7", started_with=())
    runner = opened(f"tgi+{server.url}")

    await runner.load(replace(ADAPTER, name="v7"))

    assert await asked(runner, adapter="v7") == "base Non"
    assert "adapter_id" not in server.bodies[-1]["parameters"]


@pytest.mark.parametrize("kind", ["tgi", "openai"])
async def test_an_adapter_of_another_base_is_refused(start_server: StartServer, opened: Open, kind: str) -> None:
    server = await start_server(model_id="/models/other")
    with pytest.raises(BaseModelUnavailable, match=r"serves /models/other.*tuned on tiny.*base=NAME"):
        await opened(f"{kind}+{server.url}").load(ADAPTER)

    if kind == "tgi":
        await opened(f"{kind}+{server.url}?base=tiny").load(ADAPTER)
        by_fingerprint = await start_server(model_id=f"/bases/{FINGERPRINT}")
        await opened(f"{kind}+{by_fingerprint.url}").load(ADAPTER)


@pytest.mark.parametrize(("loads", "options"), [(True, ""), (False, "?adapters={folder}")])
async def test_a_server_without_run_time_loading_says_how_to_turn_it_on(
    start_server: StartServer, opened: Open, tmp_path: Path, loads: bool, options: str
) -> None:
    store = LocalStore(tmp_path / "store")
    weights = b"weights"
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        store.put(f"key/{file}", weights)
    server = await start_server(loads=loads)
    runner = opened(f"openai+{server.url}{options.format(folder=tmp_path / 'shared')}")

    with pytest.raises(Unsupported, match=r"v1.*(VLLM_ALLOW_RUNTIME_LORA_UPDATING|adapters=)"):
        await runner.load(replace(ADAPTER, hash=hashlib.sha256(weights).hexdigest()))


@pytest.mark.parametrize(
    ("broken", "error", "words"),
    [
        ((200, "text/html", b"<html>hello</html>"), Unavailable, "HTML page"),
        ((502, "text/html", b"<html>bad gateway</html>"), Unavailable, "HTTP 502"),
        ((200, "application/json", b'{"text": "hello"}'), Unavailable, "not text-generation-inference's"),
        ((401, "text/plain", b""), PermissionRefused, "TUNESMITH_GENERATOR_BACKEND_API_KEY"),
        ((424, "application/json", b'{"error":"","error_type":"generation"}'), Unavailable, "gave no reason"),
        ((422, "application/json", b'{"error":"no","error_type":"validation"}'), InvalidInput, "no"),
    ],
)
async def test_a_server_that_answers_something_else_is_named_with_what_it_said(
    start_server: StartServer, opened: Open, broken: tuple[int, str, bytes], error: type[TunesmithError], words: str
) -> None:
    server = await start_server()
    runner = opened(f"tgi+{server.url}")
    assert await asked(runner) == "base Non"
    server.broken = [broken] * 500

    with pytest.raises(error, match=words) as refused:
        await asked(runner)

    assert server.url in refused.value.message


async def test_a_server_that_is_not_there_is_unavailable_and_one_that_hangs_is_late(
    start_server: StartServer, opened: Open
) -> None:
    gone = await start_server()
    await gone.stop()
    with pytest.raises(Unavailable, match=r"cannot be reached.*TUNESMITH_GENERATOR_BACKEND"):
        await opened(f"tgi+{gone.url}").load(ADAPTER)
    with pytest.raises(Unavailable, match="none of 2 backends"):
        await asked(opened(f"tgi+{gone.url},http://127.0.0.1:1"))

    hangs = await start_server(hanging=True)
    with pytest.raises(Unavailable, match="check"):
        await asked(opened(f"tgi+{hangs.url}"))

    slow = await start_server()
    runner = opened(f"tgi+{slow.url}", limits=replace(LIMITS, total_timeout_s=0.2))
    await asked(runner)
    cast(FakeLanguageModel, slow.model)._slots = asyncio.Semaphore(0)
    with pytest.raises(DeadlineExceeded, match=r"0\.2 s"):
        await asked(runner)


async def test_another_version_is_refused_for_adapters(start_server: StartServer, opened: Open) -> None:
    server = await start_server(version="2.0.1")

    with pytest.raises(Unsupported, match=r"2\.0\.1.*v1"):
        await opened(f"tgi+{server.url}").load(ADAPTER)


async def test_the_servers_own_limits_hold_before_a_call(start_server: StartServer, opened: Open) -> None:
    server = await start_server(max_total_tokens=100)
    runner = opened(f"tgi+{server.url}")

    for parameters, name in (
        (replace(GREEDY, max_new_tokens=100), "max_new_tokens"),
        (replace(GREEDY, truncate=51), "truncate"),
    ):
        with pytest.raises(InvalidInput, match=rf"{name}=.* must be between 1 and (99|50)"):
            await runner.generate("hello", parameters, adapter=None)
    assert server.bodies == []


@pytest.mark.parametrize(
    "setting",
    [
        "tgi",
        "tgi+",
        "tgi+ftp://host",
        "tgi+http://",
        "tgi+http://host:0",
        "tgi+http://host:99999",
        "tgi+http://host?model=x",
        "openai+http://host?discover=no",
        "tgi+http://user:secret@host",
        "tgi+file://relative",
        "grpc://host:1",
    ],
)
def test_a_setting_that_names_no_backend_stops_with_the_fix(setting: str) -> None:
    with pytest.raises(InvalidSettings, match="TUNESMITH_GENERATOR_BACKEND") as refused:
        read_backend(setting)
    assert "secret" not in refused.value.message
