"""Two tables collected as one: songs, and the artists that sing them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scraper_parts import Scraper, Site, page

from tunesmith.domain.errors import InvalidInput, NotFound, PermissionRefused, ResourceExhausted, SourceUnusable
from tunesmith.domain.records import Record
from tunesmith_scraper.handlers import Collected, CollectRequest, save_upload, validate
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import JoinSpec, SourceSpec

SONGS = 'ALink,SName,Lyric,language\n/a/,First,"one, ""quoted""\n\nand two",en\n/b/,Second,la la,pt\n/a/,Third,oh,en\n'
ARTISTS = "Artist,Genres,Songs,Popularity,Link\nThe As,Rock; Pop,2,1.5,/a/\nBees,,1,0.2,/b/\n"
JOIN = JoinSpec("", key="ALink", other_key="Link", columns={"artist": "Artist", "genres": "Genres"})
WITH_SAMPLE = replace(JOIN, url="sample:lyrics_artists")
COLUMNS = {"name": "SName", "lyrics": "Lyric"}


def fields_of(scraper: Scraper, collected: Collected) -> list[dict[str, str]]:
    return [dict(record.fields) for record in records_of(scraper, collected)]


def records_of(scraper: Scraper, collected: Collected) -> list[Record]:
    return [
        Record.from_json(json.loads(line))
        for key in collected.collection.shards
        for line in scraper.store.get(key).data.splitlines()
    ]


def joined(scraper: Scraper, songs: str | bytes = SONGS, artists: str | bytes = ARTISTS, **changes: Any) -> Collected:
    """Both tables sent as uploads, and collected as one."""

    def sent(table: str | bytes) -> str:
        data = table.encode() if isinstance(table, str) else table
        return f"upload:{save_upload(scraper.store, [data], max_bytes=10**6, scratch=scraper.scratch)}"

    join = replace(changes.pop("join", JOIN), url=sent(artists))
    return scraper.collect(sent(songs), **{"columns": COLUMNS, "format": "csv", "join": join} | changes)


def test_each_song_gets_the_fields_of_its_artist_and_keeps_its_line_breaks_and_quotes(scraper: Scraper) -> None:
    collected = joined(scraper)

    assert fields_of(scraper, collected) == [
        {"name": "First", "lyrics": 'one, "quoted"\n\nand two', "artist": "The As", "genres": "Rock; Pop"},
        {"name": "Second", "lyrics": "la la", "artist": "Bees"},
        {"name": "Third", "lyrics": "oh", "artist": "The As", "genres": "Rock; Pop"},
    ]
    assert collected.skipped == {}


@pytest.mark.parametrize("kind", ["file", "web", "upload"])
def test_both_tables_may_come_from_any_kind_of_source(scraper: Scraper, site: Site, tmp_path: Path, kind: str) -> None:
    site.routes |= {"/songs.csv": page(SONGS, "text/csv"), "/artists.csv": page(ARTISTS, "text/csv")}
    (tmp_path / "songs.csv").write_text(SONGS)
    (tmp_path / "artists.csv").write_text(ARTISTS)
    if kind == "upload":
        collected = joined(scraper)
    else:
        url = site.url if kind == "web" else lambda name: tmp_path.as_uri() + name
        collected = scraper.collect(
            url("/songs.csv"),
            columns=COLUMNS,
            join=replace(JOIN, url=url("/artists.csv")),
            settings={"file_roots": (tmp_path,), "requests_per_s_per_host": 100},
        )

    assert [row["artist"] for row in fields_of(scraper, collected)] == ["The As", "Bees", "The As"]
    assert all(record.provenance.joined != record.provenance.url for record in records_of(scraper, collected))
    assert all(record.provenance.joined for record in records_of(scraper, collected))


def test_rows_without_a_match_without_a_key_or_with_two_are_skipped_and_counted(scraper: Scraper) -> None:
    songs = SONGS + "/c/,Lost,x,en\n,Nobody's,x,en\n/d/,Whose,x,en\n"
    artists = ARTISTS + "Dee,Rock,1,1,/d/\nOther Dee,Rock,1,1,/d/\nBees,,1,0.2,/b/\n"

    collected = joined(scraper, songs, artists)

    assert collected.collection.num_records == 3
    assert collected.skipped == {"no_join_match": 1, "blank_join_key": 1, "ambiguous_join_key": 1}


@pytest.mark.parametrize(
    ("join", "message"),
    [
        (replace(JOIN, key="Alink2"), r"no column 'Alink2'.*there are: 'ALink'.*Did you mean 'ALink'\?.*--join-on"),
        (replace(JOIN, other_key="Url"), r"no column 'Url'.*there are: 'Artist', 'Genres'"),
        (replace(JOIN, columns={"genres": "Genre"}), r"no column 'Genre' for the field 'genres'.*mean 'Genres'"),
    ],
)
def test_a_column_that_is_not_there_is_named_with_those_that_are(
    scraper: Scraper, join: JoinSpec, message: str
) -> None:
    with pytest.raises(SourceUnusable, match=message) as caught:
        joined(scraper, join=join)

    assert caught.value.reason == "COLUMN_MISSING"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"join": JoinSpec("sample:lyrics_artists", columns={"genres": "Genres"})}, "does not say on what.*--join-on"),
        ({"join": JoinSpec("sample:lyrics_artists", "ALink", "Link")}, "takes no column"),
        (
            {"join": replace(JOIN, url="sample:lyrics_artists"), "columns": {"genres": "x"}},
            "'genres' is read from both",
        ),
        ({"join": replace(JOIN, url="sample:lyrics_artists"), "columns": {"join_key": "x"}}, "and not 'join_key'"),
        ({"join": replace(JOIN, url="nowhere")}, "no known kind"),
        ({"join": replace(JOIN, url="sample:lyrics_artists"), "format": "text"}, "only tables"),
        ({"preset": "lyrics-pair"}, "reads two tables.*--join"),
        ({"preset": "lyrics"}, "known presets: lyrics-pair"),
    ],
)
def test_a_join_that_cannot_work_is_refused_at_once(scraper: Scraper, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        validate(
            CollectRequest("micro_genre", SourceSpec("sample:lyrics", **spec)),
            settings=ScraperSettings(),
            store=scraper.store,
        )


def test_a_second_table_that_is_not_there_is_refused_at_once(scraper: Scraper) -> None:
    spec = SourceSpec("sample:lyrics", join=replace(JOIN, url="upload:" + "0" * 64))

    with pytest.raises(NotFound, match="no upload"):
        validate(CollectRequest("micro_genre", spec), settings=ScraperSettings(), store=scraper.store)


def test_the_preset_knows_the_columns_of_the_lyrics_pair(scraper: Scraper) -> None:
    collected = joined(scraper, preset="lyrics-pair", columns={"name": "SName"}, join=JoinSpec(""))

    first = fields_of(scraper, collected)[0]
    assert first["artist"] == "The As"
    assert set(first) == {"name", "title", "lyrics", "language", "artist", "genres"}


def test_the_lyrics_sample_is_songs_joined_with_their_artists(scraper: Scraper) -> None:
    collected = scraper.collect("sample:lyrics", recipe="lyrics")

    found = fields_of(scraper, collected)
    assert (len(found), collected.skipped) == (460, {})
    assert found[0].keys() == {"title", "lyrics", "language", "artist", "genres"}
    assert sum("genres" not in row for row in found) == 20, "two artists have no genres"
    assert collected.collection.licences == {"Apache-2.0": 460}


def test_a_second_table_past_the_limit_is_refused(scraper: Scraper) -> None:
    with pytest.raises(ResourceExhausted, match=r"more than 1 rows.*TUNESMITH_SCRAPER_MAX_RECORDS"):
        joined(scraper, settings={"max_records": 1})


def test_the_licences_of_both_tables_are_judged_and_both_recorded(scraper: Scraper, site: Site) -> None:
    def licensed(body: str, path: str, licence: str) -> str:
        link = f'<https://creativecommons.org/licenses/{licence}/4.0/>; rel="license"'
        site.routes[path] = page(body, "text/csv", Link=link)
        return site.url(path)

    songs, artists = licensed(SONGS, "/songs.csv", "by"), licensed(ARTISTS, "/artists.csv", "by-nc")
    spec = {"columns": COLUMNS, "join": replace(JOIN, url=artists)}

    with pytest.raises(PermissionRefused, match=r"artists\.csv is under CC-BY-NC-4\.0"):
        scraper.collect(songs, **spec)

    allowed = scraper.collect(songs, settings={"licence_allow": {"CC-BY-4.0", "CC-BY-NC-4.0"}}, **spec)
    assert allowed.collection.licences == {"CC-BY-4.0 AND CC-BY-NC-4.0": 3}


def test_a_file_of_mixed_encodings_is_refused_with_the_line_or_its_bad_rows_are_skipped(scraper: Scraper) -> None:
    songs = SONGS.encode() + "/b/,Maçã,ação,pt\n".encode() + "/b/,Café,x,fr\n".encode("latin-1") + b"/b/,Last,x,en\n"

    with pytest.raises(SourceUnusable, match=r"\(line 8\) is not UTF-8; text before it is.*skip_undecodable"):
        joined(scraper, songs)

    collected = joined(scraper, songs, skip_undecodable=True)
    assert [row["name"] for row in fields_of(scraper, collected)] == ["First", "Second", "Third", "Maçã", "Last"]
    assert collected.skipped == {"not_unicode": 1}


def test_a_quote_that_is_never_closed_is_an_error_and_not_one_long_song(scraper: Scraper) -> None:
    with pytest.raises(SourceUnusable, match="not good CSV"):
        joined(scraper, SONGS + '/a/,Open,"no end,en\n/a/,More,x,en\n')


def test_any_text_survives_the_way_through_csv_and_join(scraper: Scraper) -> None:
    odd = ['"', '""', "a\n\n\nb", "; , \t", "tail ", "'", "a\u2028b"]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["ALink", "SName", "Lyric"])
    writer.writerows(["/a/", f"song {n}", text] for n, text in enumerate(odd))

    collected = joined(scraper, table.getvalue())

    assert [row["lyrics"] for row in fields_of(scraper, collected)] == odd
