"""A writing whose worker is killed goes on in the next one and asks only for what is missing."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import grpc
import psutil
import pytest
from google.longrunning import operations_pb2, operations_pb2_grpc

from doubles.language_model_server import serving
from fixtures_places import Place, variables
from tunesmith.embedded import session
from tunesmith_proto.trainer.v1 import pairs_pb2, pairs_pb2_grpc

pytestmark = pytest.mark.heavy

NUM_PAIRS, NUM_BEFORE, CONCURRENCY = 24, 8, 2


def test_a_killed_writing_asks_nothing_twice_but_what_was_on_its_way(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_TRAINER_MAX_PARALLEL_QUESTIONS", str(CONCURRENCY))
    asked, go_on = threading.Event(), threading.Event()

    def answer(_prompt: str, seed: int) -> str:
        if len(server.prompts) > NUM_BEFORE:
            asked.set()
            go_on.wait(60)
        row = {
            "prompt": f"I feel like {seed}",
            "title": f"Mix {seed}",
            "opening": "I hear you.",
            "songs": [{"title": f"Tune {seed}", "artist": "Rue", "reason": "it fits"}],
            "closing": "Keep going.",
        }
        return json.dumps(row)

    data = tmp_path / "data"
    place.store(data)
    with (
        variables(place.environment(data)),
        serving(answer) as server,
        session(data) as address,
        grpc.insecure_channel(address) as channel,
    ):
        operation = pairs_pb2_grpc.PairServiceStub(channel).WritePairs(
            pairs_pb2.WritePairsRequest(
                recipe="playlist", mode=pairs_pb2.WRITE_MODE_INVENT, num_pairs=NUM_PAIRS, llm=f"tgi+{server.url}"
            )
        )
        assert asked.wait(60)
        (worker,) = (p for p in psutil.Process().children(recursive=True) if "tunesmith_trainer" in p.cmdline())
        worker.kill()
        worker.wait(30)
        kept = len(list(place.store(data).list("pairs/")))
        go_on.set()
        operations = operations_pb2_grpc.OperationsStub(channel)
        while not operation.done:
            operation = operations.WaitOperation(operations_pb2.WaitOperationRequest(name=operation.name))

    written = pairs_pb2.WrittenPairs()
    assert operation.response.Unpack(written)
    assert (written.num_written, dict(written.bad)) == (NUM_PAIRS, {})
    assert NUM_BEFORE - CONCURRENCY <= kept <= NUM_BEFORE
    assert len(server.prompts) <= NUM_PAIRS + CONCURRENCY
