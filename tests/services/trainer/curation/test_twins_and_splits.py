from __future__ import annotations

import csv
from importlib import resources
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tunesmith.domain.examples import SPLITS, Split, split_bucket
from tunesmith_trainer.curation import near_twins
from tunesmith_trainer.curation.disk_lines import DiskLines
from tunesmith_trainer.curation.near_twins import folded, jaccard, rows_per_band, shingles, twin_clusters
from tunesmith_trainer.curation.splits import assign_splits

SIMILARITY = 0.85


def clusters_of(names: list[str], *, similarity: float = SIMILARITY, seed: int = 1) -> list[int]:
    with TemporaryDirectory() as folder, DiskLines(Path(folder) / "folds") as folds:
        for name in names:
            folds.append(folded(name).encode())
        return list(twin_clusters(folds, similarity=similarity, seed=seed, checkpoint=lambda _: None))


def splits_of(names: list[str]) -> list[Split]:
    buckets = [SPLITS.index(split_bucket(name)) for name in names]
    ranks = [sum(name.encode()) for name in names]
    splits = assign_splits(clusters_of(names), buckets, [1] * len(names), ranks=ranks)
    return [split for split in splits if split is not None]


def are_twins(one: str, other: str) -> bool:
    return jaccard(shingles(folded(one)), shingles(folded(other))) >= SIMILARITY


def no_split_was_empty(names: list[str], roots: list[int]) -> bool:
    """Whether every split has a cluster of its own, so that none is filled up (which assign_splits excepts)."""
    sides: dict[int, int] = {}
    for name, root in zip(names, roots, strict=True):
        sides[root] = min(sides.get(root, len(SPLITS)), SPLITS.index(split_bucket(name)))
    return len(set(sides.values())) == len(SPLITS)


words = st.sampled_from(["lo", "fi", "post", "rock", "drum", "bass", "é", "neo", "soul", "synthwave", "psychedelic"])
joints = st.sampled_from([" ", "-", "", " & ", "'n'"])
distinct_names = st.text(st.sampled_from("abcdefghijklmnop"), min_size=3, max_size=12)
names = st.builds(lambda first, joint, rest: first + joint + " ".join(rest), words, joints, st.lists(words, max_size=6))
lists_of_names = st.lists(names, min_size=1, max_size=40, unique=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("drum and bass", "drum 'n' bass"),
        ("drum and bass", "drum & bass"),
        ("drum and bass", "Drum’n’Bass"),
        ("drum and bass", "drum n bass"),
        ("rock and roll", "rock'n'roll"),
        ("rock and roll", "rock 'n roll"),
        ("rock and roll", "rock n' roll"),
        ("lo-fi", "lofi"),
        ("post-rock", "post rock"),
        ("post-rock", "Post‐Rock!"),
        ("chanson française", "chanson francaise"),
        ("música popular", "musica  popular"),
        ("Ｊ－ＰＯＰ", "j-pop"),
        ("й-фолк", "й фолк"),
    ],
)
def test_spellings_of_one_name_are_twins(one: str, other: str) -> None:
    assert folded(one) == folded(other)
    assert clusters_of([one, "something else", other]) == [0, 1, 0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("house", "horse"),
        ("techno", "tech house"),
        ("か", "が"),
        ("हिप", "हप"),
        ("b and b", "bb"),
        ("!!!", "???"),
        ("nu metal", "n metal"),
        ("1", "2"),
    ],
)
def test_different_names_are_not_twins(one: str, other: str) -> None:
    assert clusters_of([one, other]) == [0, 1]


def test_twins_of_twins_are_one_cluster_led_by_its_first_member() -> None:
    base = "the slow melancholic harbour waltz of the northern islands"
    chain = ["unrelated", base, base + " xy", base + " xyzw", base + " xyzwuv"]

    assert not are_twins(base, chain[-1] + " qqq")
    assert clusters_of(chain) == [0, 1, 1, 1, 1]


@given(lists_of_names, st.integers(-(2**70), 2**70))
@settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_clusters_are_the_connected_components_of_all_twin_pairs(names: list[str], seed: int) -> None:
    expected = list(range(len(names)))
    for _ in names:
        for one, other in combinations(range(len(names)), 2):
            if are_twins(names[one], names[other]):
                expected[one] = expected[other] = min(expected[one], expected[other])

    assert clusters_of(names, seed=seed) == expected


@given(lists_of_names)
@settings(derandomize=True, deadline=None)
def test_no_near_twins_stand_on_two_sides(names: list[str]) -> None:
    sides = splits_of(names)

    for one, other in combinations(range(len(names)), 2):
        if are_twins(names[one], names[other]):
            assert sides[one] == sides[other]


@given(st.lists(distinct_names, min_size=60, max_size=80, unique=True), st.lists(distinct_names, max_size=20))
@settings(derandomize=True, deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
def test_a_row_changes_sides_only_if_its_cluster_changes(names: list[str], more: list[str]) -> None:
    grown = names + [name for name in dict.fromkeys(more) if name not in names]
    clusters, grown_clusters = clusters_of(names), clusters_of(grown)
    sides, grown_sides = splits_of(names), splits_of(grown)
    assume(no_split_was_empty(names, clusters))
    assume(no_split_was_empty(grown, grown_clusters))

    for number, root in enumerate(clusters):
        before = {n for n, r in enumerate(clusters) if r == root}
        after = {n for n, r in enumerate(grown_clusters) if r == grown_clusters[number]}
        if before == after:
            assert sides[number] == grown_sides[number]


@given(st.permutations([f"{a}{b} style" for a in ("alpha", "bravo", "carbon", "delta") for b in ("x", "yy", "zzz")]))
@settings(derandomize=True, deadline=None, max_examples=20)
def test_ten_clusters_fill_every_split_whatever_the_order(names: list[str]) -> None:
    sides = dict(zip(names, splits_of(names), strict=True))

    assert {*sides.values()} == {*SPLITS}
    assert sides == dict(zip(sorted(names), splits_of(sorted(names)), strict=True))


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        pytest.param([0] * 10, {"train": 8, "validation": 1, "test": 1}, id="held-out rows come from train"),
        pytest.param([0] * 7 + [1] * 3, {"train": 7, "validation": 2, "test": 1}, id="test comes from validation"),
        pytest.param([0] * 7 + [2] * 3, {"train": 7, "validation": 1, "test": 2}, id="validation comes from test"),
        pytest.param([1] * 10, {"train": 1, "validation": 8, "test": 1}, id="train is filled too"),
        pytest.param([0] * 9, {"train": 9}, id="nine clusters are left alone"),
    ],
)
def test_empty_splits_are_filled_from_ten_clusters_on(buckets: list[int], expected: dict[str, int]) -> None:
    number = len(buckets)

    splits = assign_splits(range(number), buckets, [1] * number, ranks=range(number))

    assert {split: splits.count(split) for split in SPLITS if split in splits} == expected


@pytest.mark.parametrize("buckets", [[2, 0, 2], [0, 2, 2]])
@pytest.mark.parametrize("kept", [[1, 0, 1], [0, 1, 1]])
def test_one_twin_in_train_draws_its_cluster_there_even_if_dropped(buckets: list[int], kept: list[int]) -> None:
    splits = assign_splits([0, 0, 2], buckets, kept, ranks=[0, 1, 2])

    assert splits == ["train" if kept[0] else None, "train" if kept[1] else None, "test"]


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.85, 0.95, 1.0])
def test_bands_miss_a_pair_at_the_threshold_at_most_once_in_ten_thousand(similarity: float) -> None:
    rows = rows_per_band(similarity)

    assert (1 - similarity**rows) ** (256 // rows) <= 1e-4


def test_an_answer_is_compared_with_a_limited_number_of_its_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    num_comparisons = 0

    def never_similar(one: frozenset[str], other: frozenset[str]) -> float:
        nonlocal num_comparisons
        num_comparisons += 1
        return 0.0

    monkeypatch.setattr(near_twins, "jaccard", never_similar)
    monkeypatch.setattr(near_twins, "MAX_NEIGHBOURS", 5)
    names = [f"a rather long template of a playlist title with one number {n:04d}" for n in range(200)]

    clusters_of(names)

    assert 0 < num_comparisons <= 5 * len(names) * (256 // rows_per_band(SIMILARITY))


def test_thousands_of_twins_are_one_cluster() -> None:
    names = [f"a rather long template of a playlist title with one number {n:04d}" for n in range(2000)]

    assert set(clusters_of(names)) == {0}


def test_the_threshold_itself_is_near_enough() -> None:
    assert clusters_of(["lo-fi", "lofi", "other"], similarity=1.0) == [0, 0, 2]


@given(st.lists(st.binary(max_size=50), max_size=50))
@example([b"x" * (3 << 20), b"", b"y"])
def test_lines_on_disk_come_back_in_order_and_by_number(lines: list[bytes]) -> None:
    with TemporaryDirectory() as folder, DiskLines(Path(folder) / "lines") as stored:
        for number, line in enumerate(lines):
            stored.append(line)
            assert stored[number] == line

        assert list(stored) == lines
        assert [stored[n] for n in range(len(stored))] == lines


def test_longer_ngrams_tell_songs_apart_and_still_find_twins(tmp_path: Path) -> None:
    table = resources.files("tunesmith_scraper").joinpath("samples/lyrics.csv").read_text(encoding="utf-8")
    songs = [row["Lyric"] for row in csv.DictReader(table.splitlines(keepends=True))][:12]
    folds = [folded(text) for text in (*songs, songs[3].replace(" the ", " a ", 2))]
    with DiskLines(tmp_path / "folds") as lines:
        for fold in folds:
            lines.append(fold.encode())
        roots = twin_clusters(lines, similarity=0.7, num_chars=9, seed=1, checkpoint=lambda _: None)

    assert list(roots) == [*range(12), 3]
    assert jaccard(shingles(folds[0]), shingles(folds[1])) > 3 * jaccard(shingles(folds[0], 9), shingles(folds[1], 9))
