"""Every kind of source, from its URL to its records."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from scraper_parts import Scraper, Site, page, status

from tunesmith.domain import keys
from tunesmith.domain.errors import (
    DataLoss,
    InvalidInput,
    NotFound,
    PermissionRefused,
    ResourceExhausted,
    SourceUnusable,
    UnknownRecipe,
)
from tunesmith.domain.ids import sha256_hex
from tunesmith.domain.records import Record
from tunesmith_scraper.handlers import Collected, CollectRequest, save_upload, validate
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import SourceSpec


def records_of(scraper: Scraper, collected: Collected) -> list[Record]:
    return [
        Record.from_json(json.loads(line))
        for key in collected.collection.shards
        for line in scraper.store.get(key).data.splitlines()
    ]


def names_of(scraper: Scraper, collected: Collected) -> list[str]:
    return [record.fields["name"] for record in records_of(scraper, collected)]


def file_settings(folder: Path) -> dict[str, object]:
    return {"file_roots": (folder,)}


def test_the_genre_sample_has_thousands_of_names_with_their_families(scraper: Scraper) -> None:
    collected = scraper.collect("sample:genres")

    first = records_of(scraper, collected)[0]
    assert collected.collection.num_records > 1000
    assert collected.collection.licences == {"Apache-2.0": collected.collection.num_records}
    assert set(first.fields) == {"name", "family"}
    assert first.provenance.url == "sample:genres"


def test_a_web_list_gives_records_with_full_provenance(scraper: Scraper, site: Site) -> None:
    site.routes["/genres.txt"] = page(
        "dub techno\n\n  ska punk \n", Link='<http://creativecommons.org/licenses/by/4.0/>; rel="license"'
    )

    collected = scraper.collect(site.url("/genres.txt"))

    first, second = records_of(scraper, collected)
    assert (first.fields, second.fields) == ({"name": "dub techno"}, {"name": "ska punk"})
    assert collected.skipped == {"blank_line": 1}
    p = second.provenance
    assert (p.source, p.url, p.final_url) == (site.url("/genres.txt"),) * 3
    assert (p.licence.id, p.licence.url) == ("CC-BY-4.0", "http://creativecommons.org/licenses/by/4.0/")
    assert p.content_hash == sha256_hex(b"dub techno\n\n  ska punk \n")
    assert (p.robots, p.position, p.fetched_at) == ("no-robots-file", 2, "2026-11-21T10:00:01.000000Z")


def test_html_gives_the_matches_of_its_selector(scraper: Scraper, site: Site) -> None:
    site.routes["/list"] = page(
        "<!doctype html><ul class=g><li>Dub &amp; <b>Bass</b></li><li title='x'> Ska\n Punk</li><li> </li></ul>",
        "text/html; charset=utf-8",
    )

    collected = scraper.collect(site.url("/list"), selector="ul.g li")
    titles = scraper.collect(site.url("/list"), format="html", selector="ul.g li", attribute="title")

    assert names_of(scraper, collected) == ["Dub & Bass", "Ska Punk"]
    assert collected.skipped == {"blank_name": 1}
    assert names_of(scraper, titles) == ["x"]


def test_html_where_csv_was_promised_says_so_and_how_to_go_on(scraper: Scraper, site: Site) -> None:
    site.routes["/genres.csv"] = page("\n<!-- x --><!DOCTYPE html><html><p>Not found", "text/csv")

    for format in ("csv", "auto"):
        with pytest.raises(SourceUnusable, match=r"web page \(HTML\).*format=html.*selector") as caught:
            scraper.collect(site.url("/genres.csv"), format=format)
        assert caught.value.reason == "HTML_NOT_DATA"


def test_a_latin_1_page_is_read_when_the_server_says_so_and_refused_when_not(scraper: Scraper, site: Site) -> None:
    body = "dub\nföhn pop\n".encode("latin-1")
    site.routes |= {"/said": page(body, "text/plain; charset=ISO-8859-1"), "/unsaid": page(body, "text/plain")}

    assert names_of(scraper, scraper.collect(site.url("/said"))) == ["dub", "föhn pop"]
    with pytest.raises(SourceUnusable, match=r"byte 5 \(line 2\) is not UTF-8.*iconv"):
        scraper.collect(site.url("/unsaid"))


def test_a_stated_licence_that_forbids_training_is_refused_before_the_body(scraper: Scraper, site: Site) -> None:
    link = '<https://creativecommons.org/licenses/by-nc/4.0/>; rel="license"'
    site.routes["/a.txt"] = page("dub", Link=link, Content_Length="200000000")

    with pytest.raises(PermissionRefused, match=r"CC-BY-NC-4\.0.*TUNESMITH_SCRAPER_LICENCE_ALLOW") as caught:
        scraper.collect(site.url("/a.txt"))

    assert caught.value.reason == "LICENCE_REFUSED"


def test_a_licence_link_in_a_page_counts_and_an_unknown_one_is_refused(scraper: Scraper, site: Site) -> None:
    site.routes |= {
        "/zero": page(
            '<html><a rel="license" href="https://creativecommons.org/publicdomain/zero/1.0/deed.en">0</a><li>dub'
        ),
        "/own": page('<html><link rel=license href="/terms"><li>dub'),
    }

    assert scraper.collect(site.url("/zero"), selector="li").collection.licences == {"CC0-1.0": 1}
    with pytest.raises(PermissionRefused, match="LicenseRef-other"):
        scraper.collect(site.url("/own"), selector="li")


def test_the_callers_licence_overrides_and_is_recorded(scraper: Scraper, site: Site) -> None:
    site.routes["/a.txt"] = page("dub", Link='<https://example.test/terms>; rel="license"')

    collected = scraper.collect(site.url("/a.txt"), licence="cc0-1.0", licence_url="https://example.test/grant")

    (record,) = records_of(scraper, collected)
    assert (record.provenance.licence.id, record.provenance.licence.url) == ("CC0-1.0", "https://example.test/grant")


def test_an_unknown_licence_is_marked_or_refused_as_the_setting_says(scraper: Scraper, site: Site) -> None:
    site.routes["/a.txt"] = page("dub")

    assert scraper.collect(site.url("/a.txt")).collection.licences == {"unknown": 1}
    with pytest.raises(PermissionRefused, match="states no licence") as caught:
        scraper.collect(site.url("/a.txt"), settings={"unknown_licence": "refuse"})
    assert caught.value.reason == "LICENCE_UNKNOWN"


@pytest.mark.parametrize("headers", [{"X_Robots_Tag": "noindex, noai"}, {"TDM_Reservation": "1"}])
def test_a_page_that_reserves_training_is_refused(scraper: Scraper, site: Site, headers: dict[str, str]) -> None:
    site.routes["/a.txt"] = page("dub", **headers)

    with pytest.raises(PermissionRefused, match="forbids use for training"):
        scraper.collect(site.url("/a.txt"))


def test_a_file_under_a_root_is_collected(scraper: Scraper, tmp_path: Path) -> None:
    path = tmp_path / "my lists" / "genres.tsv"
    path.parent.mkdir()
    path.write_text("Genre\tYear\nska\t1960\n", encoding="utf-8")

    collected = scraper.collect(path.as_uri(), settings=file_settings(tmp_path), columns={"name": "genre"})

    assert names_of(scraper, collected) == ["ska"]


def test_a_file_outside_the_roots_is_refused_whether_it_exists_or_not(scraper: Scraper, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside.txt").write_text("secret\n", encoding="utf-8")
    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    (root / "folder").symlink_to(tmp_path)

    for path in ("../outside.txt", "../missing.txt", "link.txt", "folder/outside.txt", "%2e%2e/outside.txt"):
        with pytest.raises(PermissionRefused, match="TUNESMITH_SCRAPER_FILE_ROOTS"):
            scraper.collect(f"file://{root}/{path}", settings=file_settings(root))
    with pytest.raises(PermissionRefused, match="allowed: none"):
        scraper.collect((tmp_path / "outside.txt").as_uri())


def test_only_regular_files_are_read(scraper: Scraper, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")

    for name in ("pipe.txt", ""):
        with pytest.raises(InvalidInput, match="not a regular file"):
            scraper.collect(f"file://{tmp_path}/{name}", settings=file_settings(tmp_path))
    with pytest.raises(NotFound, match=r"missing\.txt"):
        scraper.collect(f"file://{tmp_path}/missing.txt", settings=file_settings(tmp_path))


def test_a_file_beyond_the_limit_is_refused(scraper: Scraper, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ska\n" * 1000, encoding="utf-8")

    with pytest.raises(ResourceExhausted, match="TUNESMITH_SCRAPER_MAX_UPLOAD_BYTES"):
        scraper.collect(f"file://{tmp_path}/a.txt", settings=file_settings(tmp_path) | {"max_upload_bytes": 1024})


def test_an_upload_is_kept_once_and_collected_under_its_name(scraper: Scraper) -> None:
    chunks = (b"name;mood\nska;", b"sunny\n")

    sha256 = save_upload(scraper.store, iter(chunks), max_bytes=100, scratch=scraper.scratch)
    again = save_upload(scraper.store, [b"".join(chunks)], max_bytes=100, scratch=scraper.scratch)
    collected = scraper.collect(f"upload:{sha256}", name="list.csv", columns={"mood": "mood"})

    assert sha256 == again == sha256_hex(b"".join(chunks))
    (record,) = records_of(scraper, collected)
    assert record.fields == {"name": "ska", "mood": "sunny"}
    assert (record.provenance.source, record.provenance.url) == ("list.csv", f"upload:{sha256}")
    assert list(scraper.scratch.iterdir()) == []


def test_an_upload_beyond_the_limit_or_empty_is_refused(scraper: Scraper) -> None:
    with pytest.raises(ResourceExhausted, match="larger than 3 bytes.*TUNESMITH_SCRAPER_MAX_UPLOAD_BYTES"):  # noqa: RUF043
        save_upload(scraper.store, [b"ab", b"cd"], max_bytes=3, scratch=scraper.scratch)
    with pytest.raises(SourceUnusable, match="empty"):
        save_upload(scraper.store, [], max_bytes=3, scratch=scraper.scratch)
    assert list(scraper.store.list("uploads/")) == []


def test_an_upload_whose_bytes_changed_is_data_loss(scraper: Scraper) -> None:
    sha256 = save_upload(scraper.store, [b"ska\n"], max_bytes=100, scratch=scraper.scratch)
    scraper.store.put(keys.upload(sha256), b"dub\n")

    with pytest.raises(DataLoss, match="corrupt"):
        scraper.collect(f"upload:{sha256}")


def test_musicbrainz_is_asked_once_for_text(scraper: Scraper, site: Site) -> None:
    site.routes["/ws/2/genre/all?fmt=txt"] = page("2 tone\nacid house\n", "text/plain")

    collected = scraper.collect("musicbrainz:genres", settings={"musicbrainz_url": site.url("")})

    assert names_of(scraper, collected) == ["2 tone", "acid house"]
    assert collected.collection.licences == {"CC0-1.0": 2}
    assert len(site.requests) == 1


def test_musicbrainz_json_is_read_page_by_page_a_second_apart(scraper: Scraper, site: Site) -> None:
    genres = [{"id": f"id-{n}", "name": f"genre {n}", "disambiguation": ""} for n in range(250)]
    for offset in (0, 100, 200):
        body = json.dumps({"genre-count": 250, "genre-offset": offset, "genres": genres[offset : offset + 100]})
        site.routes[f"/ws/2/genre/all?fmt=json&limit=100&offset={offset}"] = page(body, "application/json")

    collected = scraper.collect(
        "musicbrainz:genres",
        format="json",
        columns={"mbid": "id"},
        settings={"musicbrainz_url": site.url(""), "requests_per_s_per_host": 100},
    )

    records = records_of(scraper, collected)
    assert [record.fields["mbid"] for record in records] == [f"id-{n}" for n in range(250)]
    assert [record.provenance.position for record in records] == list(range(250))
    assert scraper.clock.sleeps == [1.0, 1.0]
    assert records[0].provenance.robots == "not-applicable"


@pytest.mark.parametrize(
    ("spec", "error", "why"),
    [
        (SourceSpec("genres"), InvalidInput, "no known kind"),
        (SourceSpec("s3://bucket/a"), InvalidInput, "no known kind"),
        (SourceSpec("sample:songs"), NotFound, "samples: genres, playlists"),
        (SourceSpec("upload:abc"), InvalidInput, "64 hex digits"),
        (SourceSpec(f"upload:{'0' * 64}"), NotFound, "no upload"),
        (SourceSpec("file://lists/a.txt"), InvalidInput, "file:///"),
        (SourceSpec("file:///etc/passwd"), PermissionRefused, "FILE_ROOTS"),
        (SourceSpec("http://127.0.0.1/a"), PermissionRefused, "ALLOW_PRIVATE_ADDRESSES"),
        (SourceSpec("http://[::ffff:10.0.0.1]/a"), PermissionRefused, "ALLOW_PRIVATE_ADDRESSES"),
        (SourceSpec("http://LOCALHOST./a"), PermissionRefused, "ALLOW_PRIVATE_ADDRESSES"),
        (SourceSpec("https://u:p@lists.test/"), InvalidInput, "password"),
        (SourceSpec("musicbrainz:artists"), NotFound, "musicbrainz:genres"),
        (SourceSpec("musicbrainz:genres", format="csv"), InvalidInput, "text or json"),
        (SourceSpec("https://lists.test/", format="xml"), InvalidInput, "known formats: auto"),  # type: ignore[arg-type]
        (SourceSpec("https://lists.test/", format="html"), InvalidInput, "needs a CSS selector"),
        (SourceSpec("https://lists.test/", selector="li["), InvalidInput, "cannot be read"),
        (SourceSpec("https://lists.test/", format="csv", selector="li"), InvalidInput, "format=html"),
        (SourceSpec("https://lists.test/", attribute="href"), InvalidInput, "needs a selector"),
        (SourceSpec("https://lists.test/", format="text", columns={"name": "a"}), InvalidInput, "columns go with"),
        (SourceSpec("https://lists.test/", columns={"Bad Field": "a"}), InvalidInput, "Bad Field"),
        (SourceSpec("https://lists.test/", name="two\nlines"), InvalidInput, "one line"),
        (SourceSpec("https://lists.test/", licence="CC-BY-NC-4.0"), PermissionRefused, "LICENCE_ALLOW"),
        (SourceSpec("https://lists.test/", licence="all rights reserved!"), InvalidInput, "not an SPDX id"),
    ],
)
def test_a_spec_that_cannot_work_is_refused_at_once(
    scraper: Scraper, spec: SourceSpec, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        validate(CollectRequest("micro_genre", spec), settings=ScraperSettings(), store=scraper.store)


def test_an_unknown_recipe_is_refused_at_once(scraper: Scraper) -> None:
    with pytest.raises(UnknownRecipe, match="micro_genre"):
        validate(
            CollectRequest("micro-genre", SourceSpec("sample:genres")), settings=ScraperSettings(), store=scraper.store
        )


def test_a_missing_page_is_not_found(scraper: Scraper, site: Site) -> None:
    site.routes["/a.csv"] = status(404)

    with pytest.raises(NotFound, match=r"/a\.csv does not exist"):
        scraper.collect(site.url("/a.csv"))
