"""Which rows a dataset takes: the sample, the languages, the rows that are always kept, the shares of the splits."""

from __future__ import annotations

from collections import Counter

import pytest
from curation_material import PLAIN_NAMES, Workbench
from test_curated_dataset import answers_of, examples_of

from tunesmith.domain.datasets import CurationSettings
from tunesmith.domain.errors import InvalidInput, NoUsableRows
from tunesmith.domain.examples import split_bucket

NAMES = [f"{name} {n}" for n in range(10) for name in PLAIN_NAMES]

ENGLISH = [f"the empty street is where we walk tonight with {n} roses in" for n in range(30)]
SPANISH = [f"Camino solo por la calle y pienso en tus {n} rosas" for n in range(10)]


def songs(texts: list[str], language: str = "") -> list[dict[str, str]]:
    return [{"name": text} | ({"language": language} if language else {}) for text in texts]


def test_a_sample_is_its_share_of_the_rows_and_counts_the_others(bench: Workbench) -> None:
    dataset, _ = bench.build(bench.collect(NAMES), settings=CurationSettings(sample_share=0.25))

    num_rows = sum(dataset.num_examples.values())
    assert num_rows == pytest.approx(0.25 * len(NAMES), rel=0.2)
    assert dataset.dropped == {"sampled_out": len(NAMES) - num_rows}


def test_seed_and_text_alone_decide_the_sample(bench: Workbench) -> None:
    def sample(names: list[str], seed: int) -> set[str]:
        collection = bench.collect(names, source=f"list:{len(names)} {names[0]}")
        return answers_of(bench, bench.build(collection, settings=CurationSettings(sample_share=0.3, seed=seed))[0])

    whole = sample(NAMES, 1)

    assert sample(NAMES[::-1], 1) == whole
    assert sample(NAMES[:300], 1) == whole & set(NAMES[:300])
    assert sample(NAMES, 2) != whole


def test_a_smaller_sample_is_part_of_a_larger_one(bench: Workbench) -> None:
    collection = bench.collect(NAMES)
    small, large = (
        answers_of(bench, bench.build(collection, settings=CurationSettings(sample_share=share))[0])
        for share in (0.2, 0.5)
    )

    assert small < large


@pytest.mark.parametrize("keep", ["Odessa Finch; nobody", "artist= odessa  finch"])
def test_rows_of_kept_artists_pass_the_sample_and_the_balance(bench: Workbench, keep: str) -> None:
    rock = [f"{name} rock" for name in PLAIN_NAMES]
    rows = [{"name": name} for name in NAMES] + [{"name": name, "artist": "Odessa Finch"} for name in rock]
    settings = CurationSettings(sample_share=0.3, max_word_share=0.05, keep=keep)

    dataset, _ = bench.build(bench.collect(rows), settings=settings)

    assert answers_of(bench, dataset) >= set(rock)
    assert dataset.dropped["balance_word"] > 0


def test_an_attribute_that_is_named_keeps_no_other_attribute(bench: Workbench) -> None:
    rows = [{"name": name, "label": "Ashgrove"} for name in NAMES]

    dataset, _ = bench.build(bench.collect(rows), settings=CurationSettings(sample_share=0.3, keep="artist=Ashgrove"))

    assert dataset.dropped["sampled_out"] > 0


def test_an_item_of_a_list_is_kept_like_a_value(bench: Workbench) -> None:
    rows = [{"name": name, "genre": "Rock; Indie Folk"} for name in NAMES]

    dataset, _ = bench.build(bench.collect(rows), settings=CurationSettings(sample_share=0.1, keep="indie folk"))

    assert dataset.dropped == {}
    assert dataset.distributions["genre"] == {"Indie Folk": len(NAMES), "Rock": len(NAMES)}


def test_only_wanted_languages_stay_by_column_and_by_detection(bench: Workbench) -> None:
    rows = [
        *songs(ENGLISH[:20], "EN-gb"),
        *songs(ENGLISH[20:25]),
        *songs(ENGLISH[25:], "es"),
        *songs(SPANISH[:4], "en"),
        *songs(SPANISH[4:]),
        *songs(["zzz 1", "zzz 2"]),
    ]
    collection = bench.collect(rows)

    def dropped(language_by: str) -> Counter[str]:
        settings = CurationSettings().changed({"languages": "en", "language_by": language_by})
        return Counter(bench.build(collection, settings=settings)[0].dropped)

    assert dropped("both") == {"language_not_wanted": 5 + 6, "language_disagrees": 4, "language_unknown": 2}
    assert dropped("detection") == {"language_not_wanted": 10, "language_unknown": 2}
    assert dropped("column") == {"language_not_wanted": 5 + 6, "language_unknown": 2}


def test_several_languages_may_be_wanted(bench: Workbench) -> None:
    collection = bench.collect([*songs(ENGLISH, "en"), *songs(SPANISH, "es"), *songs(["samba de verão"], "pt")])

    dataset, _ = bench.build(collection, settings=CurationSettings(languages="es, EN"))

    assert dataset.dropped == {"language_not_wanted": 1}


def test_no_row_in_a_wanted_language_names_the_way_out(bench: Workbench) -> None:
    with pytest.raises(NoUsableRows, match=r"language_not_wanted 40.*allow more languages"):
        bench.build(bench.collect(songs([*ENGLISH, *SPANISH], "fi")), settings=CurationSettings(languages="en"))


def test_shares_of_the_split_are_about_what_was_asked_for(bench: Workbench) -> None:
    settings = CurationSettings(validation_share=0.08, test_share=0.2)

    dataset, _ = bench.build(bench.collect(NAMES), settings=settings)

    shares = {split: count / len(NAMES) for split, count in dataset.num_examples.items()}
    assert shares == pytest.approx({"train": 0.72, "validation": 0.08, "test": 0.2}, abs=0.05)
    for split, rows in examples_of(bench, dataset).items():
        found = [split_bucket(row.answer, validation_share=0.08, test_share=0.2) == split for row in rows]
        assert sum(found) > 0.9 * len(found), "near-twins alone share a side"


def test_larger_shares_only_move_rows_away_from_training() -> None:
    order = ("train", "validation", "test")
    for name in NAMES:
        before = split_bucket(name)
        after = split_bucket(name, validation_share=0.08, test_share=0.2)
        assert order.index(after) >= order.index(before)


def test_the_default_split_is_what_it_was() -> None:
    # Bases leave out of their own text what datasets hold out: a changed default would leak.
    assert [split_bucket(name) for name in ("dub", "drone", "deep house", "ska")] == ["test", "test", "train", "train"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sample_share": 0}, "sample_share=0.0 is out of range"),
        ({"test_share": "0.6"}, "test_share=0.6 is out of range"),
        ({"validation_share": 0}, "validation_share=0.0 is out of range"),
        ({"languages": "english"}, "languages='english' cannot be used: use ISO 639 codes such as en"),
        ({"language_by": "guess"}, "language_by='guess' cannot be used: use both, column, detection"),
        ({"keep": ";".join(map(str, range(10_001)))}, "keep='10001 values' cannot be used: at most 10000"),
    ],
)
def test_settings_that_cannot_work_name_value_and_fix(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        CurationSettings().changed(values)


@pytest.mark.parametrize(
    "change",
    [{"validation_share": 0.2}, {"test_share": 0.2}, {"sample_share": 0.9}, {"keep": "x"}, {"languages": "en"}],
)
def test_each_of_these_settings_is_part_of_the_datasets_identity(bench: Workbench, change: dict[str, object]) -> None:
    collection = bench.collect(songs(ENGLISH, "en"))
    changed = CurationSettings().changed({"language_by": "column"} | change)

    assert (
        bench.build(collection, settings=changed)[0].id
        != bench.build(collection, settings=CurationSettings(language_by="column"))[0].id
    )
