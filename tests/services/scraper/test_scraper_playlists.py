"""Playlists from JSPF files, ListenBrainz and tables: one record a playlist, with its songs as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scraper_parts import Scraper, Site, page, status

from tunesmith.domain.errors import InvalidInput, NotFound, PermissionRefused, ResourceExhausted, SourceUnusable
from tunesmith.domain.records import Record
from tunesmith_scraper.handlers import Collected, CollectRequest, save_upload, validate
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import SourceSpec

MBID = "8b2f0e2c-6f3c-4f0e-9f65-0c2a1f4f9a11"
TRACKS = [
    {"title": "Umbrella for One", "creator": "Coraline Dusk", "identifier": ["https://musicbrainz.org/recording/x"]},
    {"title": "Puddle Atlas", "creator": "Fenwick & Rue"},
]
SONGS = [
    {"title": "Umbrella for One", "artist": "Coraline Dusk"},
    {"title": "Puddle Atlas", "artist": "Fenwick & Rue"},
]


def jspf(**changes: Any) -> dict[str, Any]:
    playlist = {"title": "Wet Glass", "annotation": "<p>For a <b>grey</b> day &amp; tea</p>", "track": TRACKS}
    return {"playlist": playlist | changes}


def collected_from(scraper: Scraper, content: object, **spec: Any) -> Collected:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    sha256 = save_upload(scraper.store, [data], max_bytes=2**24, scratch=scraper.scratch)
    return scraper.collect(f"upload:{sha256}", recipe="playlist", **spec)


def records_of(scraper: Scraper, collected: Collected) -> list[Record]:
    lines = (line for key in collected.collection.shards for line in scraper.store.get(key).data.splitlines())
    return [Record.from_json(json.loads(line)) for line in lines]


@pytest.mark.parametrize("format", ["auto", "json", "jspf"])
def test_a_jspf_file_is_one_record_with_its_songs(scraper: Scraper, format: str) -> None:
    (record,) = records_of(scraper, collected_from(scraper, jspf(), format=format))

    assert record.fields["title"] == "Wet Glass"
    assert record.fields["description"] == "For a grey day & tea"
    assert json.loads(record.fields["songs"]) == SONGS


def test_a_list_of_playlists_is_a_record_each(scraper: Scraper) -> None:
    content = {"playlists": [jspf(), jspf(title="Dry Socks")], "count": 2}

    assert [r.fields["title"] for r in records_of(scraper, collected_from(scraper, content))] == [
        "Wet Glass",
        "Dry Socks",
    ]


def test_tracks_without_title_or_artist_are_left_out_and_empty_playlists_counted(scraper: Scraper) -> None:
    odd = [*TRACKS, {"title": "No Artist"}, {"creator": "No Title"}, "text", {"title": 5, "creator": []}]
    content = [jspf(track=odd), jspf(track=[]), jspf(track={"title": "x"}), {"playlist": "text"}, jspf(title=None)]

    collected = collected_from(scraper, content)

    (record,) = records_of(scraper, collected)
    assert json.loads(record.fields["songs"]) == SONGS
    assert collected.skipped == {"blank_title": 1, "no_songs": 2, "not_a_playlist": 1}


def test_a_licence_that_the_playlist_states_is_kept_or_refused(scraper: Scraper) -> None:
    open_one = jspf(license="https://creativecommons.org/publicdomain/zero/1.0/")
    closed = jspf(license="https://creativecommons.org/licenses/by-nc/4.0/")

    assert collected_from(scraper, open_one).collection.licences == {"CC0-1.0": 1}
    with pytest.raises(PermissionRefused, match=r"CC-BY-NC-4\.0"):
        collected_from(scraper, closed)


@pytest.mark.parametrize(
    ("content", "format", "why"),
    [
        (b'{"playlist": {"title": "cut', "auto", "not good JSON"),
        (b'{"playlist": ' + b'{"a":' * 100_000, "auto", "nested too deeply|not good JSON"),
        (b'{"title": "a playlist"}', "jspf", 'key "playlist"'),
        (b"[1, 2]", "jspf", 'key "playlist"'),
    ],
)
def test_what_is_no_jspf_is_refused_with_the_fix(scraper: Scraper, content: bytes, format: str, why: str) -> None:
    with pytest.raises(SourceUnusable, match=why):
        collected_from(scraper, content, format=format)


def test_a_playlist_too_large_to_parse_names_the_limit(scraper: Scraper) -> None:
    with pytest.raises(ResourceExhausted, match="MAX_PARSED_BYTES"):
        collected_from(scraper, jspf(annotation="x" * 5000), settings={"max_parsed_bytes": 4096})


def test_other_recipes_learn_what_jspf_has(scraper: Scraper) -> None:
    sha256 = save_upload(scraper.store, [json.dumps(jspf()).encode()], max_bytes=2**20, scratch=scraper.scratch)

    with pytest.raises(SourceUnusable, match="there are: 'title', 'description', 'songs'"):
        scraper.collect(f"upload:{sha256}")


def test_a_listenbrainz_playlist_comes_from_its_interface(scraper: Scraper, site: Site) -> None:
    site.routes[f"/1/playlist/{MBID}?fetch_metadata=true"] = page(json.dumps(jspf()), "application/json")

    collected = scraper.collect(
        f"https://listenbrainz.org/playlist/{MBID.upper()}/",
        recipe="playlist",
        settings={"listenbrainz_url": site.url("")},
    )

    (record,) = records_of(scraper, collected)
    assert json.loads(record.fields["songs"]) == SONGS
    assert record.provenance.url == f"https://listenbrainz.org/playlist/{MBID.upper()}/"
    assert record.provenance.final_url.startswith(site.url(f"/1/playlist/{MBID}"))
    assert site.paths == [f"/1/playlist/{MBID}?fetch_metadata=true"]


def test_a_private_or_unknown_listenbrainz_playlist_is_not_found(scraper: Scraper, site: Site) -> None:
    site.routes["/1/playlist"] = status(404)

    with pytest.raises(NotFound):
        scraper.collect(
            f"https://listenbrainz.org/playlist/{MBID}", recipe="playlist", settings={"listenbrainz_url": site.url("")}
        )


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (SourceSpec("https://listenbrainz.org/playlist/my-list"), "MBID"),
        (SourceSpec(f"https://listenbrainz.org/playlist/{MBID}", format="csv"), "comes as jspf"),
    ],
)
def test_a_listenbrainz_address_that_cannot_work_is_refused_at_once(
    scraper: Scraper, spec: SourceSpec, why: str
) -> None:
    with pytest.raises(InvalidInput, match=why):
        validate(CollectRequest("playlist", spec), settings=ScraperSettings(), store=scraper.store)


def test_a_table_gives_the_columns_that_it_has(scraper: Scraper) -> None:
    table = 'title,songs,description,other\nWet Glass,"Umbrella for One — Coraline Dusk; b — c",grey,x\nNo Songs,,,\n'

    first, second = records_of(scraper, collected_from(scraper, table.encode()))

    assert first.fields == {
        "title": "Wet Glass",
        "songs": "Umbrella for One — Coraline Dusk; b — c",
        "description": "grey",
    }
    assert second.fields == {"title": "No Songs"}


def test_json_rows_keep_their_songs_as_json(scraper: Scraper) -> None:
    (record,) = records_of(scraper, collected_from(scraper, [{"title": "Wet Glass", "songs": SONGS}]))

    assert json.loads(record.fields["songs"]) == SONGS


def test_an_optional_column_that_is_named_must_exist(scraper: Scraper) -> None:
    with pytest.raises(SourceUnusable, match="there is no column 'Tracks'"):
        collected_from(scraper, b"title,songs\na,b\n", columns={"songs": "Tracks"}, format="csv")


def test_the_sample_has_pairs_with_mood_and_style(scraper: Scraper) -> None:
    records = records_of(scraper, scraper.collect("sample:playlists", recipe="playlist"))

    assert len(records) == 600
    assert all(record.fields.keys() == {"title", "prompt", "reply", "mood", "style"} for record in records)
