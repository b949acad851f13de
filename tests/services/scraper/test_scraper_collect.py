"""Collecting: what is stored, when, and under which id."""

from __future__ import annotations

import json
import tracemalloc
from itertools import count
from pathlib import Path

import pytest
from scraper_parts import Scraper, Site, page

from tunesmith import stored_collections
from tunesmith.domain import keys
from tunesmith.domain.errors import Interrupted, ResourceExhausted, SourceUnusable, Unavailable
from tunesmith.domain.records import Collection
from tunesmith_scraper.handlers import Collected, CollectRequest
from tunesmith_scraper.sources.base import SourceSpec


def test_equal_content_gives_the_first_collection_again(scraper: Scraper, site: Site) -> None:
    site.routes["/a.txt"] = page("ska\ndub\n")

    first = scraper.collect(site.url("/a.txt"))
    scraper.clock.passed_s += 3600
    second = scraper.collect(site.url("/a.txt"))

    assert (first.reused, second.reused) == (False, True)
    assert second.collection == first.collection
    stored = scraper.store.get(keys.collection("micro_genre", first.collection.id)).data
    assert Collection.from_json(json.loads(stored)) == first.collection


def test_other_content_order_or_licence_gives_another_collection(scraper: Scraper, site: Site) -> None:
    ids = set()
    for body, licence in (("ska\ndub\n", ""), ("dub\nska\n", ""), ("ska\ndub\nska\n", ""), ("ska\ndub\n", "CC0-1.0")):
        site.routes["/a.txt"] = page(body)
        ids.add(scraper.collect(site.url("/a.txt"), licence=licence).collection.id)
    site.routes["/a.txt"] = page("ska\ndub\n", Link="<https://creativecommons.org/licenses/by/4.0/>; rel=license")
    ids.add(scraper.collect(site.url("/a.txt")).collection.id)

    assert len(ids) == 5


def test_records_lie_in_shards_of_five_thousand_in_order(scraper: Scraper, site: Site) -> None:
    site.routes["/a.txt"] = page("".join(f"genre {number}\n" for number in range(12_000)))

    collected = scraper.collect(site.url("/a.txt"))

    rows = [scraper.store.get(key).data.splitlines() for key in collected.collection.shards]
    assert [len(shard) for shard in rows] == [5000, 5000, 2000]
    assert [json.loads(row)["fields"]["name"] for shard in rows for row in shard] == [
        f"genre {n}" for n in range(12_000)
    ]
    assert collected.collection.shards[0] == keys.record_shard("micro_genre", collected.collection.id, 0)


def test_long_values_make_smaller_shards(scraper: Scraper, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"{number} {'x' * 100_000}\n" for number in range(200)), encoding="utf-8")

    collected = scraper.collect(f"file://{tmp_path}/a.txt", settings={"file_roots": (tmp_path,)})

    assert len(collected.collection.shards) == 3


def test_nothing_is_visible_when_the_store_fails_before_the_manifest_and_the_next_attempt_succeeds(
    scraper: Scraper, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.routes["/a.txt"] = page("ska\ndub\n")
    create = scraper.store.create

    def fail_on_manifest(key: str, data: bytes) -> str:
        if key.startswith("collections/"):
            raise Unavailable("the store is gone")
        return create(key, data)

    monkeypatch.setattr(scraper.store, "create", fail_on_manifest)
    with pytest.raises(Unavailable):
        scraper.collect(site.url("/a.txt"))
    monkeypatch.setattr(scraper.store, "create", create)

    assert list(scraper.store.list("collections/")) == []
    assert list(scraper.scratch.iterdir()) == []
    assert not scraper.collect(site.url("/a.txt")).reused


def test_it_stops_soon_after_being_asked(scraper: Scraper, site: Site) -> None:
    site.routes["/a.txt"] = page("".join(f"genre {number}\n" for number in range(12_000)))
    looks = count()
    scraper.should_stop = lambda: next(looks) == 2

    with pytest.raises(Interrupted, match="after 1000 records"):
        scraper.collect(site.url("/a.txt"))

    assert list(scraper.store.list("")) == []
    assert list(scraper.scratch.iterdir()) == []


def test_progress_counts_records_and_ends_complete(scraper: Scraper, site: Site) -> None:
    site.routes["/a.txt"] = page("ska\n" * 1200)

    scraper.collect(site.url("/a.txt"))

    assert [(p.stage, p.done, p.total) for p in scraper.progress] == [
        ("fetch", 0, 0),
        ("read", 1, 0),
        ("read", 500, 0),
        ("read", 1000, 0),
        ("store", 0, 1200),
        ("done", 1200, 1200),
    ]


def test_more_records_than_allowed_are_refused_not_cut(scraper: Scraper, site: Site) -> None:
    site.routes["/a.txt"] = page("ska\n" * 11)

    with pytest.raises(ResourceExhausted, match="more than 10 records.*TUNESMITH_SCRAPER_MAX_RECORDS"):  # noqa: RUF043
        scraper.collect(site.url("/a.txt"), settings={"max_records": 10})


def test_a_source_without_records_says_what_was_skipped(scraper: Scraper, site: Site) -> None:
    site.routes["/a.csv"] = page("name,year\n,1960\n ,1970\n")

    with pytest.raises(SourceUnusable, match="2 blank_name") as caught:
        scraper.collect(site.url("/a.csv"))

    assert caught.value.reason == "NO_RECORDS"


def test_text_that_is_no_unicode_is_skipped(scraper: Scraper, site: Site) -> None:
    site.routes["/a.json"] = page('["ska", "\\ud800"]')

    assert scraper.collect(site.url("/a.json")).skipped == {"not_unicode": 1}


def test_requests_and_outcomes_survive_a_job(scraper: Scraper, site: Site) -> None:
    site.routes["/a.csv"] = page("name\nska\n\n")
    request = CollectRequest(
        "micro_genre", SourceSpec("https://a.test/", format="csv", columns={"name": "Genre"}, name="n")
    )
    collected = scraper.collect(site.url("/a.csv"))

    assert CollectRequest.from_json(json.loads(json.dumps(request.to_json()))) == request
    assert Collected.from_json(json.loads(json.dumps(collected.to_json()))) == collected


def test_memory_does_not_grow_with_the_number_of_records(
    scraper: Scraper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_collections, "MAX_SHARD_RECORDS", 100)
    peaks_bytes = []
    for num_records in (100, 500, 5_000):  # the first warms up
        path = tmp_path / f"{num_records}.txt"
        path.write_text("".join(f"genre {number}\n" for number in range(num_records)), encoding="utf-8")
        tracemalloc.start()
        scraper.collect(path.as_uri(), settings={"file_roots": (tmp_path,)})
        peaks_bytes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    _, few, many = peaks_bytes
    assert many < few + 500_000  # as a list, 4,500 more records would take 2.5 MB
