"""JSON answers: every one that comes is allowed by its schema; what cannot be whole is an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from registry_material import promote, put_version

from contract.fake_language_model import FakeLanguageModel
from contract.tiny_models import FINGERPRINT, Tiny
from doubles.fake_clock import FakeClock
from doubles.model_server import ModelServer
from tunesmith.adapters.local_store import LocalStore
from tunesmith.domain.errors import InvalidInput, ResourceExhausted, Unavailable
from tunesmith.ports.language_model import GenerationParameters, StreamChunk
from tunesmith_generator import handlers
from tunesmith_generator.backends import BackendList, read_backend
from tunesmith_generator.decoding import GenerateRequest, Restarted, plan_of
from tunesmith_generator.handlers import Serving
from tunesmith_generator.known import KnownAnswers
from tunesmith_generator.reload import ModelTable, bare_base
from tunesmith_generator.runners.embedded import EmbeddedRunner
from tunesmith_generator.runners.remote import RemoteRunner, RemoteSettings
from tunesmith_generator.servers import connector
from tunesmith_generator.structured import StructuredLanguageModel, problem_of

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

MakeRunner = Callable[..., Awaitable[EmbeddedRunner]]

NUM_ANSWERS = 120

TAGS = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 6}, "minItems": 1, "maxItems": 3},
        "bpm": {"type": "integer", "minimum": 40, "maximum": 220},
        "part": {"anyOf": [{"const": "verse"}, {"$ref": "#/$defs/part"}]},
        "live": {"type": ["boolean", "null"]},
    },
    "required": ["tags", "bpm"],
    "additionalProperties": False,
    "$defs": {
        "part": {
            "type": "object",
            "properties": {"name": {"enum": ["intro", "é€🎵"]}},
            "required": ["name"],
            "additionalProperties": False,
        }
    },
}
SCHEMA = json.dumps(TAGS)
PARAMETERS = GenerationParameters(max_new_tokens=250, json_schema=SCHEMA)


def of_temperature(number: int) -> GenerationParameters:
    """0 to 2, one after the other."""
    temperature = (number % 5) / 2
    drawn = {"temperature": temperature, "do_sample": True, "seed": number} if temperature else {}
    return replace(PARAMETERS, **cast(Any, drawn))


@pytest.fixture
async def model(make_runner: MakeRunner) -> StructuredLanguageModel:
    return StructuredLanguageModel(await make_runner("v1", "v2", max_batch_size=16, queue_limit=1000))


async def test_every_answer_at_every_temperature_is_allowed_by_the_schema(model: StructuredLanguageModel) -> None:
    asked = [
        model.generate(f"{number}->", of_temperature(number), adapter=("v1", "v2", None)[number % 3])
        for number in range(NUM_ANSWERS)
    ]

    answers = [answer.text for answer in await asyncio.gather(*asked)]

    assert [problem_of(text, SCHEMA) for text in answers] == [""] * NUM_ANSWERS
    assert len(set(answers)) > NUM_ANSWERS / 2


async def test_plain_answers_beside_structured_ones_are_what_they_are_alone(model: StructuredLanguageModel) -> None:
    plain = GenerationParameters(max_new_tokens=30, do_sample=True, temperature=1.2, seed=4)
    alone = await model.generate("12->", plain, adapter="v1")

    together = await asyncio.gather(
        *(model.generate("12->", p, adapter="v1") for p in (plain, PARAMETERS, of_temperature(3), plain))
    )

    assert [together[0], together[3]] == [alone, alone]


async def test_a_stream_of_a_document_is_the_same_document(model: StructuredLanguageModel) -> None:
    whole = await model.generate("12->", of_temperature(2), adapter="v1")

    chunks = [chunk async for chunk in model.stream("12->", of_temperature(2), adapter="v1")]

    assert chunks[-1].generation == whole
    assert "".join(chunk.token.text for chunk in chunks if not chunk.token.special) == whole.text


async def test_an_answer_that_is_cut_off_is_an_error_and_never_half_a_document(model: StructuredLanguageModel) -> None:
    short = replace(PARAMETERS, max_new_tokens=9)

    with pytest.raises(ResourceExhausted, match="max_new_tokens=9") as refused:
        await model.generate("12->", short, adapter="v1")
    assert refused.value.reason == "INCOMPLETE_ANSWER"
    got: list[StreamChunk] = []

    async def read_all() -> None:
        async for chunk in model.stream("12->", short, adapter="v1"):
            got.append(chunk)

    with pytest.raises(ResourceExhausted, match="cut off"):
        await read_all()
    assert len(got) == 8
    assert all(chunk.generation is None for chunk in got)


async def test_stop_sequences_do_not_cut_a_document(model: StructuredLanguageModel) -> None:
    answer = await model.generate("12->", replace(of_temperature(1), stop=('"',)), adapter="v1")

    assert problem_of(answer.text, SCHEMA) == ""


async def test_the_full_text_begins_with_the_prompt(model: StructuredLanguageModel) -> None:
    answer = await model.generate("12->", replace(PARAMETERS, return_full_text=True), adapter="v1")

    assert answer.text.startswith("12->{")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"pattern": "x"}}},
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 4}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"enum": ["x" * 50] * 1000}, "b": {"enum": [9] * 1000}}},
    ],
)
async def test_a_schema_that_cannot_be_followed_fails_alone_and_quickly(
    model: StructuredLanguageModel, schema: dict[str, Any]
) -> None:
    hostile = replace(PARAMETERS, json_schema=json.dumps(schema))
    plain = GenerationParameters(max_new_tokens=30)

    async with asyncio.timeout(20):
        refused, answered = await asyncio.gather(
            model.generate("12->", hostile, adapter="v1"),
            model.generate("12->", plain, adapter="v1"),
            return_exceptions=True,
        )

    assert isinstance(refused, InvalidInput | ResourceExhausted) or problem_of(refused.text, json.dumps(schema)) == ""  # type: ignore[union-attr]
    assert answered.num_generated_tokens == 30  # type: ignore[union-attr]


def test_what_is_no_document_of_the_schema_is_told() -> None:
    assert problem_of('{"tags": ["a"], "bpm": 100}', SCHEMA) == ""
    for text, words in [
        ('{"tags": ["a"], "bpm": 100', "not JSON"),
        ('{"tags": ["a"]}', "bpm"),
        ('{"tags": ["a"], "bpm": NaN}', "NaN"),
        ('{"tags": ["a"], "bpm": 1}', "bpm"),
        ("[" * 5000, "not JSON"),
    ]:
        assert words in problem_of(text, SCHEMA)


async def test_a_backend_that_does_not_keep_to_the_schema_is_not_believed() -> None:
    writes = FakeLanguageModel(lambda _adapter, _prompt, _seed: '{"tags": "a"}')

    with pytest.raises(Unavailable, match=r"\$.tags"):
        await StructuredLanguageModel(writes).generate("12->", PARAMETERS, adapter=None)


class TestEachBackendInItsOwnWay:
    @pytest.fixture
    async def server(self, make_runner: MakeRunner, tiny: Tiny) -> AsyncIterator[ModelServer]:
        engine = await make_runner()
        await engine.load(bare_base("tiny", FINGERPRINT))
        server = ModelServer(engine, tiny.store, FINGERPRINT, "tiny")
        await server.start()
        yield server
        await server.stop()

    @pytest.fixture(params=["tgi", "openai"])
    async def remote(
        self, request: pytest.FixtureRequest, server: ModelServer, tmp_path: Path
    ) -> AsyncIterator[StructuredLanguageModel]:
        backend = read_backend(f"{request.param}+{server.url}")
        connect = connector(backend, store=LocalStore(tmp_path / "store"), cache_dir=tmp_path, api_key="")
        runner = RemoteRunner(BackendList(backend), connect, RemoteSettings(max_wait_s=0.5, backoff_s=0.01))
        yield StructuredLanguageModel(runner)
        await runner.close()

    async def test_the_schema_reaches_the_backend(self, remote: StructuredLanguageModel, server: ModelServer) -> None:
        answers = await asyncio.gather(
            *(remote.generate("12->", replace(of_temperature(n), max_new_tokens=200), adapter=None) for n in range(10))
        )

        assert [problem_of(answer.text, SCHEMA) for answer in answers] == [""] * 10
        sent = server.bodies[-1]
        told = sent["parameters"]["grammar"] if "inputs" in sent else sent["response_format"]
        assert told == (
            {"type": "json", "value": TAGS}
            if "inputs" in sent
            else {"type": "json_schema", "json_schema": {"name": "answer", "schema": TAGS, "strict": True}}
        )

    async def test_a_grammar_that_the_backend_refuses_is_invalid_input(
        self, remote: StructuredLanguageModel, server: ModelServer
    ) -> None:
        await remote.generate("12->", GenerationParameters(max_new_tokens=1), adapter=None)
        server.broken = [
            (
                422,
                "application/json",
                b'{"error":"Input validation error: grammar is not valid","error_type":"validation"}',
            ),
            (424, "application/json", b'{"error":"","error_type":"generation"}'),
        ]
        with pytest.raises(InvalidInput, match="grammar is not valid"):
            await remote.generate("12->", PARAMETERS, adapter=None)
        if "inputs" in server.bodies[-1]:
            with pytest.raises(InvalidInput, match="schema"):
                await remote.generate("12->", PARAMETERS, adapter=None)


SCENE = {"scene": "A dark blue picture."}


class TestRequests:
    """What a request's schema, and a recipe's own, do to the way of an answer."""

    @pytest.fixture
    def written(self) -> list[str]:
        return ['{"tags": ["calm piano"]}']

    @pytest.fixture
    async def serving(self, tiny: Tiny, tmp_path: Path, written: list[str]) -> Serving:
        store = LocalStore(tmp_path / "store")
        put_version(store, "mv-1", adapter=tiny.adapters["v1"], recipe="video_tags")
        promote(store, "mv-1", recipe="video_tags")
        model = StructuredLanguageModel(
            FakeLanguageModel(lambda _adapter, _prompt, _seed: written.pop(0) if len(written) > 1 else written[0])
        )
        table = ModelTable(store, model, FakeClock(), recipes=("video_tags",), max_loaded_adapters=2)
        return Serving(table, model, KnownAnswers(store), max_new_tokens_limit=512, concurrency=4)

    async def test_a_recipes_own_schema_is_asked_for_and_its_end_is_the_answers(self, serving: Serving) -> None:
        answer = await handlers.generate(GenerateRequest("video_tags", inputs=SCENE), serving=serving)

        assert (answer.valid, answer.answer, answer.finish_reason) == (True, '{"tags": ["calm piano"]}', "eos_token")

    async def test_a_requests_schema_takes_its_place_and_the_document_is_the_answer(
        self, serving: Serving, written: list[str]
    ) -> None:
        written[:] = ['{"bpm": 7}']
        schema = json.dumps({"type": "object", "properties": {"bpm": {"type": "integer"}}, "required": ["bpm"]})
        asked = GenerateRequest("video_tags", inputs=SCENE, overrides={"json_schema": schema})

        answer = await handlers.generate(asked, serving=serving)

        assert (answer.valid, answer.answer) == (True, '{"bpm": 7}')

    async def test_an_empty_schema_leaves_the_recipes_off(self, serving: Serving) -> None:
        plan = plan_of(
            GenerateRequest("video_tags", inputs=SCENE, overrides={"json_schema": ""}),
            handlers.recipe_named("video_tags"),
            max_new_tokens_limit=512,
        )

        assert plan.parameters.json_schema is None

    async def test_an_answer_that_was_cut_off_is_tried_again_while_the_recipe_allows(
        self, serving: Serving, written: list[str]
    ) -> None:
        written[:] = ['{"tags": ["' + "a" * 600, '{"tags": ["a"]}']
        asked = GenerateRequest("video_tags", inputs=SCENE)
        retries = handlers.recipe_named("video_tags").max_retries_known
        if retries == 0:
            with pytest.raises(ResourceExhausted, match="max_new_tokens"):
                await handlers.generate(asked, serving=serving)
            return
        items = [item async for item in handlers.generate_stream(asked, serving=serving)]

        assert any(isinstance(item, Restarted) for item in items)
        assert items[-1].valid  # type: ignore[union-attr]

    async def test_a_schema_beyond_the_limits_is_refused_before_the_model_is_asked(self, serving: Serving) -> None:
        with pytest.raises(InvalidInput, match="circle"):
            await handlers.generate(
                GenerateRequest(
                    "video_tags",
                    inputs=SCENE,
                    overrides={
                        "json_schema": '{"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}',
                    },
                ),
                serving=serving,
            )
