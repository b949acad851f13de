"""Catalogues: kept as a whole, found by the judge, refused when they are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from doubles.fake_clock import FakeClock
from fixtures_places import Place
from tunesmith.domain import keys
from tunesmith.domain.datasets import Dataset
from tunesmith.domain.errors import DataLoss, InvalidInput, NotFound, ResourceExhausted, TunesmithError
from tunesmith.domain.ids import canonical_json, sha256_hex
from tunesmith.domain.records import Collection
from tunesmith.ports.store import Store
from tunesmith.recipes import recipe_named
from tunesmith_trainer import catalogues
from tunesmith_trainer.catalogues import clear_catalogue, find_catalogue, names_of, reference_of, set_catalogue
from tunesmith_trainer.evaluation.judge import report_id


@pytest.fixture
def store(place: Place, tmp_path: Path) -> Store:
    return place.store(tmp_path)


def uploaded(store: Store, content: bytes) -> str:
    store.put(keys.upload(sha256_hex(content)), content)
    return f"upload:{sha256_hex(content)}"


def dataset_from(store: Store, *sources: str) -> Dataset:
    for number, source in enumerate(sources):
        collection = Collection(f"col-{number}", "playlist", source, 1, ())
        store.put(keys.collection("playlist", collection.id), canonical_json(collection.to_json()))
    names = tuple(f"col-{number}" for number in range(len(sources)))
    return Dataset("ds-1", "playlist", {}, {}, {}, 1, {}, {}, {}, names, {}, "2026")


def test_a_catalogue_holds_each_name_once_and_replaces_the_one_before(store: Store) -> None:
    set_catalogue(store, FakeClock(), "playlist", uploaded(store, b"old\n"))
    made = set_catalogue(store, FakeClock(), "playlist", uploaded(store, b"\xef\xbb\xbfb  c\r\n\na\nb c\n"))

    assert find_catalogue(store, "playlist") == made
    assert names_of(store, made) == ("a", "b c")
    assert find_catalogue(store, "micro_genre") is None


def test_the_same_names_in_another_order_are_the_same_catalogue(store: Store) -> None:
    first = set_catalogue(store, FakeClock(), "playlist", uploaded(store, b"a\nb\n"))
    second = set_catalogue(store, FakeClock(), "playlist", uploaded(store, b"b\na\n\n"))

    assert first.hash == second.hash


def test_the_judge_finds_the_catalogue_of_the_recipe(store: Store) -> None:
    made = set_catalogue(store, FakeClock(), "playlist", uploaded(store, b"Tune - Act\n"))

    reference = reference_of(store, dataset_from(store, "sample:playlists"))

    assert (reference.names, reference.hash) == (("Tune - Act",), made.hash)


def test_a_dataset_of_the_sample_alone_has_the_samples_catalogue(store: Store) -> None:
    reference = reference_of(store, dataset_from(store, "sample:playlists"))

    assert "Moss on the Radio — Elin Sandwater" in reference.names
    assert reference.hash
    for others in ((), ("mixes.json",), ("sample:playlists", "mixes.json"), ("sample:genres",), ("sample:../x",)):
        assert reference_of(store, dataset_from(store, *others)).names == ()


def test_a_report_against_another_catalogue_is_another_report() -> None:
    recipe = recipe_named("playlist")

    assert len({report_id(recipe, "run-1", "", name) for name in ("", "a", "b")}) == 3
    assert report_id(recipe, "run-1", "", "") == report_id(recipe, "run-1", "")


def test_a_cleared_catalogue_is_gone(store: Store) -> None:
    set_catalogue(store, FakeClock(), "playlist", uploaded(store, b"a\n"))
    clear_catalogue(store, "playlist")

    assert find_catalogue(store, "playlist") is None
    with pytest.raises(NotFound, match="no catalogue"):
        clear_catalogue(store, "playlist")


@pytest.mark.parametrize(
    ("content", "error", "why"),
    [
        (b"", InvalidInput, "lists no name"),
        (b"\n \n", InvalidInput, "lists no name"),
        (b"caf\xe9\n", InvalidInput, "not UTF-8"),
        (b"x" * 501, InvalidInput, "no name"),
        (b"a\0b", InvalidInput, "no name"),
        (b"x\n" * 600, ResourceExhausted, "limit is 1000"),
    ],
)
def test_what_is_no_list_of_names_is_refused_and_the_old_one_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch, content: bytes, error: type[TunesmithError], why: str
) -> None:
    monkeypatch.setattr(catalogues, "MAX_CATALOGUE_BYTES", 1000)
    before = set_catalogue(store, FakeClock(), "playlist", uploaded(store, b"a\n"))

    with pytest.raises(error, match=why):
        set_catalogue(store, FakeClock(), "playlist", uploaded(store, content))
    assert find_catalogue(store, "playlist") == before


@pytest.mark.parametrize("url", ["https://example.org/list", "upload:abc", f"upload:{'../' * 21}a", ""])
def test_only_an_upload_can_be_a_catalogue(store: Store, url: str) -> None:
    with pytest.raises(InvalidInput, match="not an upload"):
        set_catalogue(store, FakeClock(), "playlist", url)


def test_an_upload_that_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="send the file first"):
        set_catalogue(store, FakeClock(), "playlist", f"upload:{'0' * 64}")


def test_names_that_changed_are_data_loss(store: Store) -> None:
    made = set_catalogue(store, FakeClock(), "playlist", uploaded(store, b"a\n"))
    store.put(keys.catalogue_names("playlist", made.hash), b"b\n")

    with pytest.raises(DataLoss, match="set the catalogue again"):
        reference_of(store, dataset_from(store))
