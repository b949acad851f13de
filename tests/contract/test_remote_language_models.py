"""Language models behind other servers, each held to one contract against a real server that speaks its protocol."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import pytest

from doubles.language_model_server import LanguageModelServer, serving
from tunesmith.adapters.http_endpoint import HttpEndpoint, Limits
from tunesmith.adapters.openai_language_model import OpenAILanguageModel
from tunesmith.adapters.tgi_language_model import TgiLanguageModel
from tunesmith.domain.errors import (
    BaseModelUnavailable,
    DeadlineExceeded,
    InvalidInput,
    InvalidSettings,
    NotFound,
    PermissionRefused,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
    Unsupported,
)
from tunesmith.platform import open_language_model
from tunesmith.ports.language_model import Adapter, DescribedLanguageModel, GenerationParameters
from tunesmith.settings import Settings, read_settings

LIMITS = Limits(connect_timeout_s=2, total_timeout_s=10, max_reply_bytes=200_000, attempts=3, backoff_s=0)
SAMPLED = GenerationParameters(max_new_tokens=20, do_sample=True, temperature=0.8, seed=7)
KINDS = ("openai chat", "openai completions", "tgi")


def noise(prompt: str, seed: int) -> str:
    """A long text that depends on everything."""
    return "".join(hashlib.sha256(f"{prompt} {seed} {n}".encode()).hexdigest() for n in range(4))


@pytest.fixture
def server() -> Iterator[LanguageModelServer]:
    with serving(noise) as running:
        yield running


def model_of(kind: str, server: LanguageModelServer, *, key: str = "", limits: Limits = LIMITS) -> Any:
    if kind == "tgi":
        return TgiLanguageModel(HttpEndpoint(server.url, api_key=key, limits=limits))
    endpoint = HttpEndpoint(f"{server.url}/v1", api_key=key, limits=limits)
    return OpenAILanguageModel(endpoint, api="chat" if kind == "openai chat" else "completions")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def model(kind: str, server: LanguageModelServer) -> AsyncIterator[DescribedLanguageModel]:
    made = model_of(kind, server)
    yield made
    await made.close()


async def asked(model: DescribedLanguageModel, parameters: GenerationParameters = SAMPLED, prompt: str = "say") -> str:
    return (await model.generate(prompt, parameters, adapter=None)).text


class TestEveryRemoteLanguageModel:
    async def test_it_says_which_model_answers(self, model: DescribedLanguageModel) -> None:
        assert (await model.describe()).startswith("stand-in")

    async def test_the_prompt_and_the_seed_decide_the_text(self, model: DescribedLanguageModel) -> None:
        once = await model.generate("say", SAMPLED, adapter=None)

        assert once.text == noise("say", 7)[:20]
        assert once == await model.generate("say", SAMPLED, adapter=None)
        assert (once.finish_reason, once.num_generated_tokens, once.num_prompt_tokens) == ("length", 20, 3)
        assert once.seed == 7
        assert await asked(model, replace(SAMPLED, seed=8)) != once.text

    async def test_the_models_own_end_is_told_from_the_limit(
        self, model: DescribedLanguageModel, server: LanguageModelServer
    ) -> None:
        server.answer = lambda _prompt, _seed: "short"

        generation = await model.generate("say", SAMPLED, adapter=None)

        assert (generation.text, generation.finish_reason) == ("short", "eos_token")

    async def test_a_stop_sequence_ends_an_answer_and_stays_in_it(self, model: DescribedLanguageModel) -> None:
        text = noise("say", 7)
        stop = text[5:9]

        generation = await model.generate("say", replace(SAMPLED, stop=(stop,)), adapter=None)

        assert generation.finish_reason == "stop_sequence"
        assert generation.text == text[: text.index(stop) + 4]

    @pytest.mark.parametrize("stops", [(), ("no-such-stop",), (noise("say", 7)[5:9],)])
    async def test_a_stream_is_the_same_answer(self, model: DescribedLanguageModel, stops: tuple[str, ...]) -> None:
        parameters = replace(SAMPLED, stop=stops)
        whole = await model.generate("say", parameters, adapter=None)

        chunks = [chunk async for chunk in model.stream("say", parameters, adapter=None)]

        assert chunks[-1].generation == whole
        assert all(chunk.generation is None for chunk in chunks[:-1])
        assert "".join(chunk.token.text for chunk in chunks) == whole.text

    async def test_closing_a_stream_leaves_the_model_usable(self, model: DescribedLanguageModel) -> None:
        async with aclosing(cast("Any", model.stream("say", SAMPLED, adapter=None))) as chunks:
            await anext(chunks)

        assert await asked(model)

    async def test_the_full_text_begins_with_the_prompt(self, model: DescribedLanguageModel) -> None:
        assert await asked(model, replace(SAMPLED, return_full_text=True)) == "say" + await asked(model)

    async def test_an_adapter_is_not_found_and_never_answered_by_the_base(
        self, model: DescribedLanguageModel, server: LanguageModelServer
    ) -> None:
        with pytest.raises(NotFound, match="v1"):
            await model.generate("say", SAMPLED, adapter="v1")
        with pytest.raises(NotFound, match="v1"):
            async for _ in model.stream("say", SAMPLED, adapter="v1"):
                pass
        with pytest.raises((BaseModelUnavailable, NotFound, Unsupported), match="v1"):
            await model.load(Adapter("v1", "0" * 64, "key/", "stand-in", "fingerprint"))
        assert server.prompts == []

    @pytest.mark.parametrize("prompt", ["", "half a pair \ud83c"])
    async def test_a_prompt_that_cannot_be_sent_is_refused(self, model: DescribedLanguageModel, prompt: str) -> None:
        with pytest.raises(InvalidInput, match="prompt"):
            await asked(model, prompt=prompt)

    async def test_a_busy_server_is_asked_again(
        self, model: DescribedLanguageModel, server: LanguageModelServer
    ) -> None:
        await model.describe()
        server.refusals += [(429, {"Retry-After": "0"}, b"{}"), (503, {}, b"later")]

        assert await asked(model) == noise("say", 7)[:20]
        assert len(server.bodies) == 3

    async def test_a_server_that_stays_busy_is_unavailable(
        self, model: DescribedLanguageModel, server: LanguageModelServer
    ) -> None:
        await model.describe()
        server.refusals += [(503, {}, b'{"error": {"message": "model is\\nloading"}}')] * 3

        with pytest.raises(Unavailable, match=r"HTTP 503.*: model is loading"):
            await asked(model)
        assert len(server.bodies) == 3

    async def test_a_server_that_is_not_there_is_unavailable(self, kind: str) -> None:
        with serving(noise) as gone:
            pass
        model = model_of(kind, gone)

        with pytest.raises(Unavailable, match="cannot be reached"):
            await asked(model)
        await model.close()

    @pytest.mark.parametrize(
        ("status", "error", "why"),
        [
            (400, InvalidInput, "refuses the request"),
            (422, InvalidInput, "refuses the request"),
            (404, NotFound, "no such path or model"),
            (301, NotFound, "redirects"),
            (403, PermissionRefused, "TUNESMITH_LLM_API_KEY"),
        ],
    )
    async def test_a_refusal_is_told_once_and_not_repeated(
        self,
        model: DescribedLanguageModel,
        server: LanguageModelServer,
        status: int,
        error: type[TunesmithError],
        why: str,
    ) -> None:
        await model.describe()
        server.refusals.append((status, {"Location": "http://127.0.0.1:1/"}, b'{"error": "because"}'))

        with pytest.raises(error, match=why) as refused:
            await asked(model)
        assert "because" in refused.value.message or status == 301
        assert len(server.bodies) == 1

    @pytest.mark.parametrize(
        "body", [b"<html>", b"", b"[]", b'{"choices": []}', b'{"choices": 5, "generated_text": 5}', b'"\xff"']
    )
    async def test_an_answer_in_another_shape_is_unavailable(
        self, model: DescribedLanguageModel, server: LanguageModelServer, body: bytes
    ) -> None:
        await model.describe()
        server.refusals.append((200, {}, body))

        with pytest.raises(Unavailable, match=r"shape|JSON"):
            await asked(model)

    async def test_an_endless_answer_is_cut_at_the_limit(
        self, model: DescribedLanguageModel, server: LanguageModelServer
    ) -> None:
        await model.describe()
        server.endless = True

        with pytest.raises(ResourceExhausted, match="200000 bytes"):
            await asked(model)

    async def test_an_answer_that_takes_too_long_is_given_up(self, kind: str, server: LanguageModelServer) -> None:
        model = model_of(kind, server, limits=replace(LIMITS, total_timeout_s=0.2))
        await model.describe()
        server.answer = lambda _prompt, _seed: str(server.closing.wait(5))

        with pytest.raises(DeadlineExceeded, match=r"0\.2 s"):
            await asked(model)
        server.closing.set()
        await model.close()

    async def test_the_key_is_sent_and_never_told(self, kind: str, server: LanguageModelServer) -> None:
        server.key = "sk-right"
        right, wrong = model_of(kind, server, key="sk-right"), model_of(kind, server, key="sk-wrong")

        assert await asked(right)
        with pytest.raises(PermissionRefused, match="refuses the key") as refused:
            await asked(wrong)
        assert server.authorizations == ["Bearer sk-right", "Bearer sk-wrong"]
        assert "sk-" not in refused.value.message
        await asyncio.gather(right.close(), wrong.close())


@pytest.mark.parametrize(
    ("kind", "error"), [("validation", InvalidInput), ("overloaded", Unavailable), ("generation", Unavailable)]
)
async def test_tgi_errors_inside_a_stream_are_told(
    server: LanguageModelServer, kind: str, error: type[TunesmithError]
) -> None:
    model = model_of("tgi", server)
    event = {"error": "the reason", "error_type": kind}
    server.refusals.append(
        (200, {"Content-Type": "text/event-stream"}, b"data:" + json.dumps(event).encode() + b"\n\n")
    )

    with pytest.raises(error, match="the reason"):
        async for _ in model.stream("say", SAMPLED, adapter=None):
            pass
    await model.close()


async def test_an_openai_server_with_several_models_wants_one_named(server: LanguageModelServer) -> None:
    server.models = ["a", "b"]
    model = model_of("openai chat", server)

    with pytest.raises(InvalidInput, match=r"2 models \(a, b\); name one"):
        await asked(model)
    await model.close()


@pytest.mark.parametrize("name", ["typical_p", "truncate"])
async def test_what_openai_does_not_have_is_unsupported(server: LanguageModelServer, name: str) -> None:
    model = model_of("openai chat", server)

    with pytest.raises(Unsupported, match=name):
        await asked(model, replace(SAMPLED, **{name: 1}))
    await model.close()


async def test_greedy_is_temperature_zero_for_openai(server: LanguageModelServer) -> None:
    model = model_of("openai chat", server)
    await asked(model, GenerationParameters(max_new_tokens=3))

    assert server.bodies[-1]["temperature"] == 0
    assert "seed" not in server.bodies[-1]
    await model.close()


@pytest.mark.parametrize(
    "url",
    [
        "openai+ftp://host/v1",
        "openai+http:///v1",
        "openai+http://host/v1?modl=x",
        "openai+http://host/v1?api=soap",
        "tgi+http://host?model=x",
        "openai+https://user:secret@host/v1",
        "grpc://host",
        "llama",
    ],
)
def test_an_address_that_names_no_language_model_stops_with_the_fix(url: str) -> None:
    def opened() -> object:
        return open_language_model(read_settings(Settings, llm=url), recipe="playlist")

    with pytest.raises(InvalidSettings, match="TUNESMITH_LLM") as refused:
        opened()
    assert "secret" not in refused.value.message


async def test_the_setting_chooses_the_adapter(server: LanguageModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_LLM", f"openai+{server.url}/v1?model=stand-in&api=completions")
    monkeypatch.setenv("TUNESMITH_LLM_API_KEY", "sk-right")
    server.key = "sk-right"
    settings = Settings.read()
    model = open_language_model(settings, recipe="playlist")

    assert await asked(model) == noise("say", 7)[:20]
    assert "sk-right" not in f"{settings!r} {settings.worker_env()}"
    await model.close()


def test_embedded_needs_a_server_on_the_data_folder(tmp_path: Any) -> None:
    with pytest.raises(Unavailable, match="tunesmith up"):
        open_language_model(Settings.read(data=tmp_path), recipe="playlist")
