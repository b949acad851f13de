"""The generator's own base as the language model that writes pairs, in a real server over real gRPC."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc

from contract.tiny_models import FINGERPRINT, build_adapter
from fixtures_places import Place, variables
from tunesmith.domain import keys
from tunesmith.domain.errors import InvalidInput, NotFound, Unsupported
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.models import Champion, ModelVersion
from tunesmith.embedded import session
from tunesmith.platform import open_language_model
from tunesmith.ports.language_model import Adapter, GenerationParameters
from tunesmith.settings import Settings
from tunesmith_proto.trainer.v1 import pairs_pb2, pairs_pb2_grpc

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

PARAMETERS = GenerationParameters(max_new_tokens=12, do_sample=True, temperature=1.0, seed=5)


@pytest.fixture(scope="module")
def data(place: Place, tmp_path_factory: pytest.TempPathFactory, micro_base: Path) -> Path:
    """A data folder with a playlist champion on a base of random weights."""
    folder = tmp_path_factory.mktemp("embedded")
    store = place.store(folder)
    base = folder / "base"
    shutil.copytree(micro_base, base)
    # The questions are longer than what the micro base says that it can read; rotary positions go on anyway.
    shape = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(shape | {"max_position_embeddings": 4096}))
    adapter = build_adapter(store, base, name="v1", seed=1, folder=folder / "v1")
    version = ModelVersion(
        id="v1",
        recipe="playlist",
        run_id="run-1",
        dataset_id="",
        base_model=str(base),
        base_fingerprint=FINGERPRINT,
        adapter_key=adapter.key,
        adapter_hash=adapter.hash,
        report_id="rep-1",
        passed=True,
        created_at="2026-01-01T00:00:00Z",
    )
    store.put(keys.model_version("playlist", "v1"), canonical_json(version.to_json()))
    store.put(keys.champion("playlist"), canonical_json(Champion("playlist", "v1", 1, "test", ()).to_json()))
    return folder


@pytest.fixture(scope="module")
def address(place: Place, data: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNESMITH_GENERATOR_MAX_PROMPT_TOKENS", "4096")
        with variables(place.environment(data)), session(data) as served:
            yield served


async def test_the_base_answers_by_the_address_that_the_data_folder_tells(data: Path, address: str) -> None:
    embedded = open_language_model(Settings.read(data=data), recipe="playlist")
    named = open_language_model(Settings.read(data=data, llm=f"grpc://{address}"), recipe="playlist")

    generation = await embedded.generate("say", PARAMETERS, adapter=None)

    assert generation == await named.generate("say", PARAMETERS, adapter=None)
    assert generation != await embedded.generate("say", replace(PARAMETERS, seed=6), adapter=None)
    assert (generation.num_generated_tokens, generation.num_prompt_tokens, generation.seed) == (12, 3, 5)
    chunks = [chunk async for chunk in embedded.stream("say", PARAMETERS, adapter=None)]
    assert chunks[-1].generation == generation
    assert len(chunks) == 12
    assert FINGERPRINT in await embedded.describe()
    with pytest.raises(NotFound, match="v1"):
        await embedded.generate("say", PARAMETERS, adapter="v1")
    with pytest.raises(InvalidInput, match="temperature"):
        await embedded.generate("say", replace(PARAMETERS, temperature=-1.0), adapter=None)
    with pytest.raises(Unsupported):
        await embedded.load(Adapter("v2", "", "", "", ""))
    await embedded.close()
    await named.close()


async def test_greedy_is_greedy_though_the_recipe_samples(data: Path, address: str) -> None:
    model = open_language_model(Settings.read(data=data), recipe="playlist")
    greedy = GenerationParameters(max_new_tokens=12)

    texts = {(await model.generate("say", replace(greedy, seed=seed), adapter=None)).text for seed in range(4)}

    assert len(texts) == 1
    await model.close()


def test_a_model_that_only_babbles_writes_no_pairs_and_the_job_says_what_came(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        pairs = pairs_pb2_grpc.PairServiceStub(channel)
        operations = operations_pb2_grpc.OperationsStub(channel)
        operation = pairs.WritePairs(
            pairs_pb2.WritePairsRequest(recipe="playlist", mode=pairs_pb2.WRITE_MODE_INVENT, num_pairs=3)
        )
        while not operation.done:
            operation = operations.WaitOperation(operations_pb2.WaitOperationRequest(name=operation.name))

    assert operation.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert "wrote not one usable pair for 3 rows" in operation.error.message
    assert "cut_off" in operation.error.message or "not_json" in operation.error.message, operation.error.message
