"""What a real text-generation-inference answered, line by line of `tests/golden/tgi_replies.jsonl`.

The recording: router 3.3.6, a tiny Llama of random weights on CPU; long generated texts are shortened. Three things are
held to it: the client, which must read every reply rightly; the embedded runner, which must take and refuse the same
requests, but where a difference is meant; and the server of `doubles.model_server`, so that the contract suite, which
runs the client against that server, means something. `TUNESMITH_TEST_TGI_REPLIES` names another recording.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from contract.tiny_models import FINGERPRINT, build_base
from doubles.model_server import MAX_INPUT_TOKENS, MAX_TOTAL_TOKENS, ModelServer
from tunesmith.adapters.http_endpoint import HttpEndpoint, Limits
from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.openai_language_model import OpenAILanguageModel
from tunesmith.adapters.tgi_language_model import TgiLanguageModel
from tunesmith.domain.errors import InvalidInput, NotFound, Unavailable
from tunesmith.ports import parameters as limits
from tunesmith.ports.language_model import GenerationParameters, StreamChunk
from tunesmith_generator.reload import bare_base
from tunesmith_generator.runners.embedded import EmbeddedRunner
from tunesmith_generator.runners.exchange import EngineSettings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

GOLDEN = Path(__file__).parents[1] / "golden" / "tgi_replies.jsonl"
GREEDY = GenerationParameters(max_new_tokens=4)
PORT_PARAMETERS = {field.name for field in fields(GenerationParameters)}

WITHOUT_MEANING = {"details", "decoder_input_details", "adapter_id"}
"""Parameters that change what is told of an answer, or nothing in the recorded requests."""

REFUSED_BY_NAME = {"best_of 2 sampled", "best_of 2 stream", "watermark", "unknown fields", "grammar regex"}
"""TGI takes these requests, and ignores what it does not know; parameters that the port does not have are refused by
name (see `stream` for best_of: TGI refuses it too)."""

NO_PORT_REQUEST = {"inputs missing", "inputs list", "empty body", "get generate"}
"""Requests that cannot be made through the port."""

OTHER_ROUTES = {"/tokenize", "/chat_tokenize", "/v1/chat/completions", "/v1/completions"}
"""TGI's routes that the double does not have: below /v1 it speaks vLLM's."""


@dataclass(frozen=True)
class Line:
    """One request and its reply."""

    name: str
    method: str
    path: str
    body: Any
    raw: str | None
    status: int
    content_type: str | None
    reply: str

    @property
    def streams(self) -> bool:
        return self.content_type == "text/event-stream"

    @property
    def events(self) -> list[Any]:
        told = [line.removeprefix("data:").strip() for line in self.reply.splitlines() if line.startswith("data:")]
        return [json.loads(each) for each in told if each != "[DONE]"]

    @property
    def is_refused(self) -> bool:
        return self.status != 200 or (self.streams and "error" in self.events[0])

    @property
    def error(self) -> str:
        """The server's words on what it refused."""
        if self.streams:
            return str(self.events[0]["error"])
        return str(json.loads(self.reply)["error"]) if self.content_type == "application/json" else self.reply


def read_lines() -> dict[str, Line]:
    recording = Path(os.environ.get("TUNESMITH_TEST_TGI_REPLIES", GOLDEN))
    rows = [json.loads(line) for line in recording.read_text().splitlines()]
    return {
        row["name"]: Line(
            row["name"], row["method"], row["path"], row["body"], row.get("raw"), row["status"], row["content_type"],
            row["reply"] if "reply" in row else row["response"],
        )
        for row in rows
    }  # fmt: skip


LINES = read_lines()
GENERATING = [line for line in LINES.values() if line.path in ("/generate", "/generate_stream")]


def named(lines: list[Line]) -> Any:
    return pytest.mark.parametrize("line", lines, ids=[line.name for line in lines])


@pytest.fixture
async def replaying() -> AsyncIterator[tuple[str, list[Line]]]:
    """A server that answers every POST with the bytes of the line put into the list, and GETs with their own."""
    chosen: list[Line] = []

    def replied(line: Line) -> web.Response:
        headers = {"Content-Type": line.content_type} if line.content_type else {}
        return web.Response(status=line.status, body=line.reply.encode(), headers=headers)

    async def answer(request: web.Request) -> web.Response:
        own = {each.path: each for each in LINES.values() if each.method == "GET" and each.status == 200}
        return replied(own[request.path] if request.method == "GET" and request.path in own else chosen[0])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", chosen
    await runner.cleanup()


@pytest.fixture
async def client(replaying: tuple[str, list[Line]]) -> AsyncIterator[TgiLanguageModel]:
    made = TgiLanguageModel(HttpEndpoint(replaying[0], limits=Limits(attempts=1)))
    yield made
    await made.close()


def test_the_recording_is_whole() -> None:
    assert len(LINES) == 76


class TestTheClient:
    """Given a recorded reply, it gives what the reply says, or the error that the reply means."""

    @named([line for line in LINES.values() if line.is_refused])
    async def test_a_refusal_is_an_error_with_the_servers_words(
        self, client: TgiLanguageModel, replaying: tuple[str, list[Line]], line: Line
    ) -> None:
        replaying[1].append(line)
        expected = NotFound if line.status == 405 else InvalidInput

        with pytest.raises(expected) as refused:
            await _asked(client, GREEDY, stream=line.streams)

        assert " ".join(line.error.split())[:200] in refused.value.message

    @named([line for line in GENERATING if not line.is_refused and not line.streams])
    async def test_an_answer_is_read_and_one_without_details_is_not_guessed_at(
        self, client: TgiLanguageModel, replaying: tuple[str, list[Line]], line: Line
    ) -> None:
        replaying[1].append(line)
        told = json.loads(line.reply)
        if "details" not in told:
            # The client always asks for details: whoever leaves them out is no text-generation-inference.
            with pytest.raises(Unavailable, match="details"):
                await _asked(client, GREEDY, stream=False)
            return

        (chunk,) = await _asked(client, GREEDY, stream=False)

        generation = chunk.generation
        assert generation is not None
        assert (generation.text, generation.finish_reason, generation.num_generated_tokens) == (
            told["generated_text"],
            told["details"]["finish_reason"],
            told["details"]["generated_tokens"],
        )

    @named([line for line in GENERATING if not line.is_refused and line.streams])
    async def test_a_stream_is_read_token_by_token(
        self, client: TgiLanguageModel, replaying: tuple[str, list[Line]], line: Line
    ) -> None:
        replaying[1].append(line)
        got: list[StreamChunk] = []

        async def read() -> None:
            async for chunk in client.stream("12->", GREEDY, adapter=None):
                got.append(chunk)

        if line.events[-1]["details"] is None:
            with pytest.raises(Unavailable, match="shape"):
                await read()
        else:
            await read()
            assert got[-1].generation is not None
            assert got[-1].generation.text == line.events[-1]["generated_text"]
            assert got[-1].generation.num_prompt_tokens == line.events[-1]["details"]["input_length"]

        told = [event["token"] for event in line.events][: len(got)]
        assert [(c.token.id, c.token.text, c.token.logprob, c.token.special) for c in got] == [
            (t["id"], t["text"], t["logprob"], t["special"]) for t in told
        ]
        assert len(got) >= len(line.events) - 1

    async def test_info_and_health_are_understood(self, client: TgiLanguageModel) -> None:
        told = json.loads(LINES["info"].reply)

        await client.check()

        assert await client.describe() == told["model_id"]
        with pytest.raises(InvalidInput, match=f"max_new_tokens=.* between 1 and {told['max_total_tokens'] - 1}"):
            await _asked(client, GenerationParameters(max_new_tokens=told["max_total_tokens"]), stream=False)
        with pytest.raises(InvalidInput, match=f"truncate=.* between 1 and {told['max_input_tokens']}"):
            await _asked(client, GenerationParameters(truncate=told["max_input_tokens"] + 1), stream=False)

    @named([LINES[name] for name in ("compat root", "invocations", "tokenize", "chat_tokenize", "metrics", "health")])
    async def test_the_reply_of_another_route_is_taken_for_no_answer(
        self, client: TgiLanguageModel, replaying: tuple[str, list[Line]], line: Line
    ) -> None:
        replaying[1].append(line)

        with pytest.raises(Unavailable, match=r"shape|JSON"):
            await _asked(client, GREEDY, stream=False)

    @named([line for line in LINES.values() if line.path.startswith("/v1/")])
    async def test_its_openai_routes_are_read_by_the_openai_client(
        self, replaying: tuple[str, list[Line]], line: Line
    ) -> None:
        replaying[1].append(line)
        chat = "chat" in line.path
        endpoint = HttpEndpoint(f"{replaying[0]}/v1", limits=Limits(attempts=1))
        model = OpenAILanguageModel(endpoint, model="x", api="chat" if chat else "completions")
        rows = line.events if line.streams else [json.loads(line.reply)]
        choices = [choice for row in rows for choice in row["choices"]]
        texts = [
            (choice.get("delta") or choice.get("message") or {}).get("content") if chat else choice["text"]
            for choice in choices
        ]
        usage = next((row["usage"] for row in reversed(rows) if row.get("usage")), {"completion_tokens": 0})

        *_, chunk = await _asked(model, GREEDY, stream=line.streams)
        await model.close()

        assert chunk.generation is not None
        assert chunk.generation.text == "".join(text or "" for text in texts)
        assert chunk.generation.finish_reason == "length"
        assert chunk.generation.num_generated_tokens == usage["completion_tokens"]


async def _asked(model: Any, parameters: GenerationParameters, *, stream: bool) -> list[StreamChunk]:
    if stream:
        return [chunk async for chunk in model.stream("12->", parameters, adapter=None)]
    generation = await model.generate("12->", parameters, adapter=None)
    return [StreamChunk(token=None, generation=generation)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base(tmp_path_factory.mktemp("replies") / "base")


@pytest.fixture
async def engine(base: Path, tmp_path: Path) -> AsyncIterator[EmbeddedRunner]:
    """The embedded runner, with the recorded server's limits."""
    runner = EmbeddedRunner(
        LocalStore(tmp_path / "store"),
        resolve_base=lambda _model, _fingerprint: base,
        cache_dir=tmp_path / "cache",
        settings=EngineSettings(
            max_new_tokens_limit=MAX_TOTAL_TOKENS - 1, max_prompt_tokens=MAX_INPUT_TOKENS, device="cpu", num_threads=1
        ),
    )
    await runner.load(bare_base("MODEL", FINGERPRINT))
    yield runner
    await runner.close()


def overrides_of(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """TGI's parameters in the port's words; absent ones mean sampling."""
    if parameters is None:
        return {"do_sample": True}
    told = {name: value for name, value in parameters.items() if name not in WITHOUT_MEANING}
    grammar = told.pop("grammar", None)
    if grammar is not None and grammar["type"] == "regex":
        return told | {"regex": grammar["value"]}
    if grammar is not None:
        schema = grammar["value"]["schema"] if grammar["type"] == "json_schema" else grammar["value"]
        told["json_schema"] = schema if isinstance(schema, str) else json.dumps(schema)
    return told


class TestTheEmbeddedRunner:
    """It takes and refuses what text-generation-inference takes and refuses."""

    @named([line for line in GENERATING if line.name not in NO_PORT_REQUEST])
    async def test_the_same_requests_are_taken_and_refused(self, engine: EmbeddedRunner, line: Line) -> None:
        async def ask() -> None:
            parameters = limits.merged(
                GenerationParameters(max_new_tokens=20), overrides_of(line.body.get("parameters"))
            )
            await engine.generate(line.body["inputs"], parameters, adapter=None)

        if line.is_refused or line.name in REFUSED_BY_NAME:
            with pytest.raises(InvalidInput):
                await ask()
        else:
            await ask()

    @named([line for line in GENERATING if line.is_refused and line.name not in NO_PORT_REQUEST])
    async def test_a_refusal_names_the_same_parameter(self, engine: EmbeddedRunner, line: Line) -> None:
        with pytest.raises(InvalidInput) as refused:
            await engine.generate(
                line.body["inputs"],
                limits.merged(GREEDY, overrides_of(line.body.get("parameters"))),
                adapter=None,
            )

        named_ones = [name for name in overrides_of(line.body.get("parameters")) if name in refused.value.message]
        assert named_ones or "prompt" in refused.value.message

    async def test_where_the_difference_is_meant_it_says_which_parameter(self, engine: EmbeddedRunner) -> None:
        with pytest.raises(InvalidInput, match="'watermark' is unknown"):
            limits.merged(GREEDY, {"watermark": True})
        # TGI stops after one token for it.
        with pytest.raises(InvalidInput, match="stop"):
            await engine.generate("12->", GenerationParameters(stop=("",)), adapter=None)
        # TGI answers from the base for it.
        with pytest.raises(NotFound):
            await engine.generate("12->", GREEDY, adapter="")


@pytest.fixture
async def double(engine: EmbeddedRunner, tmp_path: Path) -> AsyncIterator[ModelServer]:
    server = ModelServer(engine, LocalStore(tmp_path / "double"), FINGERPRINT, "MODEL")
    await server.start()
    yield server
    await server.stop()


class TestTheDouble:
    """The test server answers as the real one did: status, type of content, shape, and the words of errors."""

    @named([line for line in LINES.values() if line.path not in OTHER_ROUTES])
    async def test_it_answers_as_the_real_server_did(self, double: ModelServer, line: Line) -> None:
        data = line.raw.encode() if line.raw is not None else None if line.body is None else json.dumps(line.body)
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                line.method, double.url + line.path, data=data, headers={"Content-Type": "application/json"}
            ) as reply,
        ):
            said, status, kind = await reply.text(), reply.status, reply.headers.get("Content-Type", "")

        assert status == line.status
        if line.content_type is not None:
            assert kind.split(";")[0] == line.content_type.split(";")[0]
        if line.is_refused and line.status != 405:
            mine = Line(line.name, "", "", None, None, status, kind.split(";")[0], said)
            assert _essence(mine.error) == _essence(line.error)
        elif line.content_type == "application/json":
            assert _shape(json.loads(said)) == _shape(json.loads(line.reply))
        elif line.streams:
            mine = Line(line.name, "", "", None, None, status, kind, said)
            assert [event["index"] for event in mine.events] == list(range(1, len(mine.events) + 1))
            for which in (0, -1):
                assert _shape(mine.events[which]) == _shape(line.events[which])

    @named([line for line in GENERATING if not line.is_refused and line.name not in REFUSED_BY_NAME])
    async def test_the_client_gets_by_its_own_request_what_the_recorded_request_gets(
        self, double: ModelServer, line: Line
    ) -> None:
        asked = dict(line.body.get("parameters") or {})
        if limits.samples(limits.merged(GREEDY, overrides_of(line.body.get("parameters")))):
            asked |= {"do_sample": True, "seed": asked.get("seed", 5)}
        asked.setdefault("max_new_tokens", 20)
        model = TgiLanguageModel(HttpEndpoint(double.url, limits=Limits(attempts=1)))
        parameters = limits.merged(GREEDY, overrides_of(asked))

        chunks = [chunk async for chunk in model.stream(line.body["inputs"], parameters, adapter=None)]
        generation = await model.generate(line.body["inputs"], parameters, adapter=None)
        await model.close()

        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{double.url}/generate", json={**line.body, "parameters": asked}) as reply,
        ):
            assert generation.text == (await reply.json())["generated_text"]
        assert chunks[-1].generation == generation
        assert all(math.isfinite(chunk.token.logprob) for chunk in chunks)


def _essence(words: str) -> str:
    """Words without positions, counts and the reason that one schema library or another gives."""
    words = re.sub(r" at line .*", "", words).replace("e+", "e")
    words = re.sub(r"(grammar is not valid).*", r"\1", words)
    return re.sub(r"Given: \d+ `inputs`", "Given: N `inputs`", words)


def _shape(value: Any) -> Any:
    """Keys and types; a list has the shape of its first element, numbers are alike."""
    if isinstance(value, dict):
        return {name: _shape(each) for name, each in value.items() if name not in ("prefill", "seed", "sha")}
    if isinstance(value, list):
        return [_shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
