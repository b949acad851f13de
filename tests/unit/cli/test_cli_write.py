"""`tunesmith write`, `catalogue`, and `run --llm`: what is asked, what is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_results import Tunesmith
from fake_services import FakeServices

from tunesmith_proto.scraper.v1 import scraper_pb2
from tunesmith_proto.trainer.v1 import catalogues_pb2, pairs_pb2, trainer_pb2


def test_a_collection_is_rewritten_by_the_language_model_that_is_named(
    tunesmith: Tunesmith, fake: FakeServices
) -> None:
    ended = tunesmith("write", "micro_genre", "--collection", "co-1", "--llm", "tgi+http://h:1", "--seed", "4")

    [request] = fake.of(pairs_pb2.WritePairsRequest)
    assert (request.collection_id, request.llm, request.seed) == ("co-1", "tgi+http://h:1", 4)
    assert request.mode == pairs_pb2.WRITE_MODE_REWRITE
    assert "written: collection co-3, 24 pairs of co-1 (stand-in, pairs 1, rewrite); bad: not_json 1" in ended.out
    assert "I cannot." in ended.out


def test_a_source_is_collected_first(tunesmith: Tunesmith, fake: FakeServices, tmp_path: Path) -> None:
    (tmp_path / "mix.jspf").write_text('{"playlist": {}}')

    tunesmith("write", "micro_genre", "--source", str(tmp_path / "mix.jspf"))

    [collect] = fake.of(scraper_pb2.CollectRequest)
    [request] = fake.of(pairs_pb2.WritePairsRequest)
    assert collect.source.format == scraper_pb2.SOURCE_FORMAT_JSPF
    assert request.collection_id == "co-1"


def test_pairs_are_invented_by_number(tunesmith: Tunesmith, fake: FakeServices) -> None:
    tunesmith("write", "micro_genre", "--mode", "invent", "--pairs", "30")

    [request] = fake.of(pairs_pb2.WritePairsRequest)
    assert (request.mode, request.num_pairs, request.collection_id) == (pairs_pb2.WRITE_MODE_INVENT, 30, "")


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--collection", "co-1", "--source", "sample:playlists"),
        ("--collection", "co-1", "--pairs", "3"),
        ("--mode", "invent"),
        ("--mode", "invent", "--pairs", "3", "--collection", "co-1"),
        ("--mode", "invent", "--pairs", "0"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(
    tunesmith: Tunesmith, fake: FakeServices, options: tuple[str, ...]
) -> None:
    assert tunesmith("write", "micro_genre", *options).code == 2
    assert fake.of(pairs_pb2.WritePairsRequest) == []


def test_a_run_with_a_language_model_writes_pairs_between_collecting_and_curating(
    tunesmith: Tunesmith, fake: FakeServices
) -> None:
    ended = tunesmith("run", "micro_genre", "--source", "https://lists.test/a.jspf", "--llm", "openai+https://h/v1")

    [request] = fake.of(pairs_pb2.WritePairsRequest)
    [curate] = fake.of(trainer_pb2.BuildDatasetRequest)
    assert (request.collection_id, request.llm) == ("co-1", "openai+https://h/v1")
    assert list(curate.collection_ids) == ["co-3"]
    assert "written: collection co-3" in ended.out


def test_a_run_without_one_writes_nothing(tunesmith: Tunesmith, fake: FakeServices) -> None:
    tunesmith("run", "micro_genre")

    assert fake.of(pairs_pb2.WritePairsRequest) == []


def test_a_catalogue_is_sent_shown_and_cleared(tunesmith: Tunesmith, fake: FakeServices, tmp_path: Path) -> None:
    (tmp_path / "songs.txt").write_text("Tune — Act\nB — c\n")

    assert "has no catalogue" in tunesmith("catalogue", "micro_genre").out
    assert "2 names (abababababab)" in tunesmith("catalogue", "micro_genre", str(tmp_path / "songs.txt")).out
    assert "Tune — Act" in tunesmith("catalogue", "micro_genre").out
    assert "no catalogue now" in tunesmith("catalogue", "micro_genre", "--clear").out

    [request] = fake.of(catalogues_pb2.SetCatalogueRequest)
    assert request.url.startswith("upload:")
    assert b"".join(fake.uploaded) == (tmp_path / "songs.txt").read_bytes()
