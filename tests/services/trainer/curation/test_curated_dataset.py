from __future__ import annotations

import importlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from curation_material import PLAIN_NAMES, RECIPE, Workbench

from fixtures_places import Place
from tunesmith.domain import keys
from tunesmith.domain.datasets import CurationSettings, Dataset
from tunesmith.domain.errors import DataLoss, Interrupted, InvalidInput, NotFound, NoUsableRows, Unavailable
from tunesmith.domain.examples import SPLITS, Example, split_bucket
from tunesmith.ports.store import Store
from tunesmith_trainer.curation.load import iterate_examples, load_dataset_manifest, rows_path


def examples_of(bench: Workbench, dataset: Dataset) -> dict[str, list[Example]]:
    folder = bench.folder / "read"
    return {split: list(iterate_examples(dataset, split, store=bench.store, folder=folder)) for split in SPLITS}


def answers_of(bench: Workbench, dataset: Dataset) -> set[str]:
    return {example.answer for rows in examples_of(bench, dataset).values() for example in rows}


def lineage_of(bench: Workbench, dataset: Dataset) -> list[dict[str, str]]:
    data = bench.store.get(keys.dataset_lineage(RECIPE.name, dataset.id)).data
    return [json.loads(line) for line in data.splitlines()]


def test_usable_records_become_examples_and_every_record_is_counted(bench: Workbench) -> None:
    bad = ["", "x" * 61, "<b>bold</b>", "1234", "a\tb"]
    collection = bench.collect([*PLAIN_NAMES, *bad, "Acid JAZZ", "acid  jazz"])

    dataset, reused = bench.build(collection)

    assert not reused
    assert answers_of(bench, dataset) == set(PLAIN_NAMES)
    assert dataset.dropped == {
        "exact_duplicate": 2,
        "control_characters": 1,
        "empty": 1,
        "markup": 1,
        "no_letters": 1,
        "too_long": 1,
    }
    assert sum(dataset.num_examples.values()) + sum(dataset.dropped.values()) == dataset.num_records == 55


def test_prompts_number_the_kept_rows_in_record_order(bench: Workbench) -> None:
    collection = bench.collect(["", *PLAIN_NAMES[:30], PLAIN_NAMES[0], *PLAIN_NAMES[30:]])

    dataset, _ = bench.build(collection)

    prompts = {row.answer: row.prompt for rows in examples_of(bench, dataset).values() for row in rows}
    assert [prompts[name] for name in PLAIN_NAMES] == [f"{n}->" for n in range(len(PLAIN_NAMES))]


def test_the_split_of_a_plain_row_is_its_own_bucket(bench: Workbench) -> None:
    dataset, _ = bench.build(bench.collect(PLAIN_NAMES))

    for split, rows in examples_of(bench, dataset).items():
        assert rows, split
        assert {split_bucket(row.answer) for row in rows} == {split}


def test_the_same_inputs_give_the_same_id_and_bytes_in_another_store_at_another_time(
    place: Place, tmp_path: Path
) -> None:
    built = []
    for number in range(2):
        bench = Workbench(place.store(tmp_path / f"store{number}"), tmp_path / f"work{number}")
        bench.clock.sleep(3600.0 * number)
        old = bench.collect(PLAIN_NAMES[:25], source="list:old", created_at="2026-11-01")
        new = bench.collect(PLAIN_NAMES[20:], source="list:new", created_at="2026-11-02")
        dataset, _ = bench.build(*((old, new) if number else (new, old, old)))
        objects = [*dataset.shards.values(), keys.dataset_lineage(RECIPE.name, dataset.id)]
        built.append((replace(dataset, created_at=""), [bench.store.get(key).data for key in objects]))

    assert built[0] == built[1]


def test_a_later_collection_neither_renumbers_nor_takes_over_earlier_rows(bench: Workbench) -> None:
    old = bench.collect(PLAIN_NAMES[:40], source="list:old", created_at="2026-11-01")
    new = bench.collect([*PLAIN_NAMES[40:], *PLAIN_NAMES[:5]], source="list:new", created_at="2026-11-02")

    before, _ = bench.build(old)
    after, _ = bench.build(new, old)

    rows_before = {row for rows in examples_of(bench, before).values() for row in map(repr, rows)}
    rows_after = {row for rows in examples_of(bench, after).values() for row in map(repr, rows)}
    assert rows_before < rows_after


@pytest.mark.parametrize(
    "settings",
    [CurationSettings(seed=7), CurationSettings(near_duplicate_similarity=0.9), CurationSettings(max_word_share=0.9)],
)
def test_other_settings_make_another_dataset(bench: Workbench, settings: CurationSettings) -> None:
    collection = bench.collect(PLAIN_NAMES)

    assert bench.build(collection)[0].id != bench.build(collection, settings=settings)[0].id


def test_building_again_gives_the_stored_dataset_back(bench: Workbench) -> None:
    collection = bench.collect(PLAIN_NAMES)
    first, _ = bench.build(collection)

    again, reused = bench.build(collection)

    assert reused
    assert again == first == load_dataset_manifest(RECIPE.name, first.id, store=bench.store)


def test_collections_that_add_nothing_new_give_the_stored_dataset_back(bench: Workbench) -> None:
    old = bench.collect(PLAIN_NAMES, created_at="2026-11-01")
    repeat = bench.collect(PLAIN_NAMES, source="list:two", created_at="2026-11-02")
    first, _ = bench.build(old)
    lineage = lineage_of(bench, first)

    again, reused = bench.build(old, repeat)

    assert reused
    assert lineage_of(bench, again) == lineage
    assert again.num_records == first.num_records == len(PLAIN_NAMES)


def test_losing_the_race_for_the_manifest_gives_the_winners(bench: Workbench) -> None:
    collection = bench.collect(PLAIN_NAMES)
    winner, _ = bench.build(collection)

    again, reused = bench.build(collection, store=BlindStore(bench.store))

    assert reused
    assert again.created_at == winner.created_at


class BlindStore:
    """A store in which nothing seems to exist, as for a builder that looked a moment too early."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def exists(self, key: str) -> bool:
        del key
        return False


class FailingStore:
    """A store that stops answering after `num_writes` writes."""

    def __init__(self, store: Store, num_writes: int) -> None:
        self._store = store
        self._num_writes = num_writes

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def put_file(self, key: str, path: Path) -> None:
        if self._num_writes == 0:
            raise Unavailable("the store does not answer")
        self._num_writes -= 1
        self._store.put_file(key, path)


@pytest.mark.parametrize("num_writes", range(4))
def test_a_crash_while_publishing_leaves_no_manifest_and_the_next_build_succeeds(
    bench: Workbench, num_writes: int
) -> None:
    collection = bench.collect(PLAIN_NAMES)

    with pytest.raises(Unavailable):
        bench.build(collection, store=FailingStore(bench.store, num_writes))

    objects = [info.key for info in bench.store.list("datasets/")]
    assert len(objects) == num_writes
    assert not any(key.endswith("manifest.json") for key in objects)
    assert not (bench.folder / "work" / "curation").exists()
    dataset, reused = bench.build(collection)
    assert not reused
    assert answers_of(bench, dataset) == set(PLAIN_NAMES)


@pytest.mark.parametrize("stage", ["reading", "comparing", "balancing", "writing"])
def test_a_build_asked_to_stop_stops_at_the_next_stage_end_and_publishes_nothing(bench: Workbench, stage: str) -> None:
    collection = bench.collect(PLAIN_NAMES)

    with pytest.raises(Interrupted, match=f"stop while {stage}"):
        bench.build(
            collection,
            settings=CurationSettings(max_word_share=0.5),
            should_stop=lambda: bench.reported[-1].stage == stage,
        )

    assert list(bench.store.list("datasets/")) == []


def test_progress_tells_how_many_records_are_done(bench: Workbench) -> None:
    bench.build(bench.collect(PLAIN_NAMES))

    reading = [p for p in bench.reported if p.stage == "reading"]
    assert (reading[-1].done, reading[-1].total, reading[-1].unit) == (48, 48, "records")
    assert {p.stage for p in bench.reported} == {"reading", "comparing", "writing"}


def test_lineage_leads_from_every_answer_to_all_its_records_and_back(bench: Workbench) -> None:
    old = bench.collect([*PLAIN_NAMES, ""], source="list:old", created_at="2026-11-01")
    new = bench.collect([PLAIN_NAMES[0], "Acid-Jazz"], source="list:new", created_at="2026-11-02")

    dataset, _ = bench.build(old, new, settings=CurationSettings(drop_near_duplicates=True))

    rows = {row.answer: row for rows in examples_of(bench, dataset).values() for row in rows}
    sources = [row for row in lineage_of(bench, dataset) if row["example_id"] == rows["acid jazz"].id]
    assert [(row["relation"], row["collection_id"]) for row in sources] == [
        ("kept", old.id),
        ("exact_duplicate", new.id),
        ("near_duplicate", new.id),
    ]
    assert rows["acid jazz"].record_ids == (sources[0]["record_id"],)
    assert Counter(row["relation"] for row in lineage_of(bench, dataset))["kept"] == len(rows)


def test_near_twins_are_kept_on_one_side_or_dropped_as_asked(bench: Workbench) -> None:
    collection = bench.collect([*PLAIN_NAMES, "acid-jazz", "Ácid Jazz!"])

    together, _ = bench.build(collection)
    dropped, _ = bench.build(collection, settings=CurationSettings(drop_near_duplicates=True))

    twins = {"acid jazz", "acid-jazz", "ácid jazz!"}
    found = [(split, row.answer) for split, rows in examples_of(bench, together).items() for row in rows]
    assert {answer for _, answer in found} >= twins
    assert len({split for split, answer in found if answer in twins}) == 1
    assert "near_duplicate" not in together.dropped
    assert dropped.dropped["near_duplicate"] == 2
    assert answers_of(bench, dropped) == set(PLAIN_NAMES)


def test_the_manifest_counts_words_lengths_attributes_licences_and_sides(bench: Workbench) -> None:
    named = [{"name": name, "language": "en" if n % 2 else "de"} for n, name in enumerate(PLAIN_NAMES[:40])]
    free = bench.collect(named, source="list:free")
    shared = bench.collect(PLAIN_NAMES[40:], source="list:shared", licence="CC-BY-4.0")

    dataset, _ = bench.build(free, shared)

    assert dataset.licences == {"CC-BY-4.0": 8, "CC0-1.0": 40}
    assert set(dataset.collections) == {free.id, shared.id}
    assert dataset.distributions["language"] == {"de": 20, "en": 20}
    assert dataset.distributions["word"]["jazz"] == 8
    assert sum(dataset.distributions["length"].values()) == 48
    assert dataset.distributions["split"] == {k: v for k, v in dataset.num_examples.items() if v}


def test_no_attribute_keeps_more_than_100_values(bench: Workbench) -> None:
    rows = [{"name": f"{name} {n}", "tag": f"t{n}"} for n, name in enumerate(PLAIN_NAMES * 3)]

    dataset, _ = bench.build(bench.collect(rows))

    assert len(dataset.distributions["tag"]) == 100


def test_balancing_leaves_no_word_above_its_share_and_names_the_words(bench: Workbench) -> None:
    rock = [f"{name} rock" for name in PLAIN_NAMES]
    collection = bench.collect([*PLAIN_NAMES, *rock])

    dataset, _ = bench.build(collection, settings=CurationSettings(max_word_share=0.2))

    num_rows = sum(dataset.num_examples.values())
    assert max(dataset.distributions["word"].values()) <= 0.2 * num_rows
    assert dataset.dropped["balance_word"] == dataset.num_records - num_rows
    assert dataset.distributions["dropped_balance_word"]["rock"] > 20


def test_the_seed_and_not_the_record_order_decides_which_rows_balancing_drops(bench: Workbench) -> None:
    names = [*PLAIN_NAMES, *(f"{name} rock" for name in PLAIN_NAMES)]
    forward = bench.collect(names, source="list:forward")
    backward = bench.collect(names[::-1], source="list:backward")

    kept = [
        answers_of(bench, bench.build(collection, settings=CurationSettings(max_word_share=0.2, seed=seed))[0])
        for collection, seed in ((forward, 1), (backward, 1), (forward, 2))
    ]

    assert kept[0] == kept[1]
    assert kept[0] != kept[2]


def test_balancing_by_language_uses_the_records_own_language(bench: Workbench) -> None:
    rows = [{"name": name, "language": "EN" if n >= 10 else "es"} for n, name in enumerate(PLAIN_NAMES)]

    dataset, _ = bench.build(bench.collect(rows), settings=CurationSettings(max_language_share=0.7))

    assert dataset.dropped == {"balance_language": 15}
    assert dataset.distributions["dropped_balance_language"] == {"en": 15}


def test_a_shard_loads_with_load_dataset_though_rows_have_different_attributes(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = importlib.import_module("datasets")  # reads the variable when it is imported
    rows = [{"name": n} | ({"family": "electronic"} if i == 40 else {}) for i, n in enumerate(PLAIN_NAMES)]
    dataset, _ = bench.build(bench.collect(rows))

    files = {s: str(rows_path(dataset, s, store=bench.store, folder=bench.folder / "rows")) for s in SPLITS}
    loaded = datasets.load_dataset("json", data_files=files, cache_dir=str(bench.folder / "cache"))

    assert {split: loaded[split].num_rows for split in SPLITS} == dataset.num_examples
    families = [row["attributes"]["family"] for split in SPLITS for row in loaded[split]]
    assert sorted(families) == [""] * 47 + ["electronic"]


def test_examples_read_back_have_only_the_attributes_of_their_record(bench: Workbench) -> None:
    dataset, _ = bench.build(bench.collect([{"name": "solo", "family": "folk"}, *PLAIN_NAMES]))

    attributes = {row.answer: row.attributes for rows in examples_of(bench, dataset).values() for row in rows}

    assert attributes["solo"] == {"family": "folk"}
    assert attributes["acid jazz"] == {}


def test_a_corrupt_shard_is_data_loss_and_leaves_no_local_copy(bench: Workbench) -> None:
    dataset, _ = bench.build(bench.collect(PLAIN_NAMES))
    data = bench.store.get(dataset.shards["train"]).data
    bench.store.put(dataset.shards["train"], data.replace(b"acid", b"avid", 1))

    with pytest.raises(DataLoss, match=r"train\.jsonl of dataset .* has SHA-256"):
        rows_path(dataset, "train", store=bench.store, folder=bench.folder)

    assert not list(bench.folder.glob("ds-*/train.jsonl"))


def test_a_missing_shard_is_data_loss(bench: Workbench) -> None:
    dataset, _ = bench.build(bench.collect(PLAIN_NAMES))
    bench.store.delete(dataset.shards["test"])

    with pytest.raises(DataLoss, match="is missing"):
        rows_path(dataset, "test", store=bench.store, folder=bench.folder)


def test_a_damaged_local_copy_is_fetched_again(bench: Workbench) -> None:
    dataset, _ = bench.build(bench.collect(PLAIN_NAMES))
    path = rows_path(dataset, "train", store=bench.store, folder=bench.folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])

    assert rows_path(dataset, "train", store=bench.store, folder=bench.folder).read_bytes() == whole


def test_an_unknown_dataset_is_not_found_and_a_corrupt_manifest_is_data_loss(bench: Workbench) -> None:
    bench.store.put(keys.dataset(RECIPE.name, "ds-broken"), b'{"id": 1')

    with pytest.raises(NotFound, match="ds-none"):
        load_dataset_manifest(RECIPE.name, "ds-none", store=bench.store)
    with pytest.raises(DataLoss, match="manifest"):
        load_dataset_manifest(RECIPE.name, "ds-broken", store=bench.store)


def test_too_few_rows_say_what_came_in_what_was_dropped_and_what_to_do(bench: Workbench) -> None:
    collection = bench.collect(["acid jazz", "Acid Jazz", "", "<p>"])

    with pytest.raises(NoUsableRows) as caught:
        bench.build(collection)

    message = caught.value.message
    assert "needs at least 20 training rows" in message
    assert "4 records came in, 3 were dropped" in message
    assert "exact_duplicate 1 (first: 'acid jazz'), markup 1 (first: '<p>')" in message.replace("empty 1, ", "")
    assert message.endswith("collect more records with a usable 'name'")
    assert caught.value.metadata["dropped_empty"] == "1"


def test_no_records_at_all_is_no_usable_rows(bench: Workbench) -> None:
    with pytest.raises(NoUsableRows, match=r"0 records came in.*collect records first"):
        bench.build()


def test_a_share_that_cannot_hold_is_no_usable_rows_and_names_the_setting(bench: Workbench) -> None:
    collection = bench.collect([f"{name} rock" for name in PLAIN_NAMES])

    with pytest.raises(NoUsableRows, match=r"balance_word 47 \(first: 'rock'\).*raise max_word_share"):
        bench.build(collection, settings=CurationSettings(max_word_share=0.5))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (CurationSettings(near_duplicate_similarity=0.0), "near_duplicate_similarity=0.0"),
        (CurationSettings(near_duplicate_similarity=1.1), "near_duplicate_similarity=1.1"),
        (CurationSettings(max_word_share=-0.1), "max_word_share=-0.1"),
        (CurationSettings(max_language_share=float("nan")), "max_language_share=nan"),
    ],
)
def test_settings_out_of_range_are_refused(bench: Workbench, settings: CurationSettings, field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        bench.build(bench.collect(PLAIN_NAMES), settings=settings)


def test_a_collection_of_another_recipe_is_refused(bench: Workbench) -> None:
    collection = replace(bench.collect(PLAIN_NAMES), recipe="lyrics")

    with pytest.raises(InvalidInput, match="collected for recipe 'lyrics'"):
        bench.build(collection)


def test_a_missing_short_or_corrupt_record_shard_is_data_loss(bench: Workbench) -> None:
    collection = bench.collect(PLAIN_NAMES)
    short = replace(collection, num_records=49)
    corrupt = bench.collect(PLAIN_NAMES[:3], source="list:corrupt")
    bench.store.put(corrupt.shards[0], b'{"id": "rec-1"}\n')

    with pytest.raises(DataLoss, match="promises 49 records and its shards hold 48"):
        bench.build(short)
    with pytest.raises(DataLoss, match="line 1 of record shard"):
        bench.build(corrupt)
    bench.store.delete(collection.shards[3])
    with pytest.raises(DataLoss, match=r"00003\.jsonl of collection .* is gone"):
        bench.build(collection)
