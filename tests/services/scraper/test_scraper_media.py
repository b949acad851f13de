"""Media sources: files become stored objects and records, whatever becomes of their neighbours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from scraper_parts import Scraper, Site, in_turn, page, redirect, status

from tunesmith.domain import keys
from tunesmith.domain.errors import (
    Interrupted,
    InvalidInput,
    NotFound,
    PermissionRefused,
    ResourceExhausted,
    SourceUnusable,
    Unavailable,
)
from tunesmith.domain.ids import sha256_hex
from tunesmith.domain.records import Record
from tunesmith_scraper.clips.film import write_clip
from tunesmith_scraper.clips.plan import STYLES, Clip, planned_clips
from tunesmith_scraper.handlers import Collected, CollectRequest, save_upload, validate
from tunesmith_scraper.media import sample
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import SourceSpec

MP4 = "video/mp4"
FAST = {"requests_per_s_per_host": 100.0}


def collect(scraper: Scraper, url: str, **more: Any) -> Collected:
    return scraper.collect(url, recipe="video_tags", **more)


def records_of(scraper: Scraper, collected: Collected) -> list[Record]:
    return [
        Record.from_json(json.loads(line))
        for key in collected.collection.shards
        for line in scraper.store.get(key).data.splitlines()
    ]


def stored_media(scraper: Scraper) -> dict[str, bytes]:
    return {info.key: scraper.store.get(info.key).data for info in scraper.store.list("media/")}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    (folder / "b").mkdir(parents=True)
    (folder / "c.mp4").write_bytes(b"third")
    (folder / "a.MKV").write_bytes(b"first")
    (folder / "b" / "z.webm").write_bytes(b"second")
    return folder


# A folder


def test_a_folder_gives_its_videos_in_the_order_of_their_names(scraper: Scraper, clips: Path) -> None:
    collected = collect(scraper, clips.as_uri(), settings={"file_roots": (clips,)}, licence="CC0-1.0")

    records = records_of(scraper, collected)
    assert [record.fields for record in records] == [
        {"media": sha256_hex(data), "name": name}
        for name, data in (("a.MKV", b"first"), ("b/z.webm", b"second"), ("c.mp4", b"third"))
    ]
    assert stored_media(scraper) == {keys.media(sha256_hex(data)): data for data in (b"first", b"second", b"third")}
    p = records[1].provenance
    assert (p.url, p.final_url, p.content_hash) == ((clips / "b" / "z.webm").as_uri(),) * 2 + (sha256_hex(b"second"),)
    assert (p.source, p.licence.id, p.position) == (clips.as_uri(), "CC0-1.0", 1)
    assert list(scraper.scratch.iterdir()) == []


def test_the_same_folder_again_is_the_same_collection(scraper: Scraper, clips: Path) -> None:
    settings = {"file_roots": (clips,)}

    first = collect(scraper, clips.as_uri(), settings=settings)
    again = collect(scraper, clips.as_uri(), settings=settings)
    (clips / "d.mp4").write_bytes(b"fourth")
    more = collect(scraper, clips.as_uri(), settings=settings)

    assert (again.reused, again.collection.id) == (True, first.collection.id)
    assert (more.reused, more.collection.num_records) == (False, 4)


def test_what_is_no_video_and_what_leads_out_of_the_folder_is_counted_and_left(
    scraper: Scraper, clips: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.mp4"
    outside.write_bytes(b"secret")
    (clips / "notes.txt").write_text("hello", encoding="utf-8")
    (clips / ".hidden.mp4").write_bytes(b"resource fork")
    (clips / "link.mp4").symlink_to(outside)
    (clips / "inside.mp4").symlink_to(clips / "c.mp4")
    (clips / "dangling.mp4").symlink_to(clips / "gone.mp4")
    (clips / "folder").symlink_to(tmp_path)
    (clips / "loop.mp4").symlink_to(clips / "loop.mp4")
    (clips / "two\nlines.mp4").write_bytes(b"odd name")
    os.mkfifo(clips / "pipe.mp4")

    collected = collect(scraper, clips.as_uri(), settings={"file_roots": (tmp_path,)})

    names = [record.fields["name"] for record in records_of(scraper, collected)]
    assert names == ["a.MKV", "b/z.webm", "c.mp4", "inside.mp4"]
    assert collected.skipped == {
        "bad_file_url": 1,
        "bad_name": 1,
        "linked_folder": 1,
        "not_a_file": 1,
        "not_found": 1,
        "not_media": 1,
        "outside_folder": 1,
    }
    assert b"secret" not in stored_media(scraper).values()


def test_a_file_beyond_the_limit_is_skipped_and_all_together_beyond_theirs_are_refused(
    scraper: Scraper, clips: Path
) -> None:
    (clips / "large.mp4").write_bytes(b"x" * 1025)

    collected = collect(scraper, clips.as_uri(), settings={"file_roots": (clips,), "max_media_bytes": 1024})
    with pytest.raises(ResourceExhausted, match="TUNESMITH_SCRAPER_MAX_COLLECTION_MEDIA_BYTES") as caught:
        collect(scraper, clips.as_uri(), settings={"file_roots": (clips,), "max_collection_media_bytes": 1024})

    assert (collected.skipped, collected.collection.num_records) == ({"file_too_large": 1}, 3)
    assert caught.value.reason == "TOO_MUCH_MEDIA"


def test_a_folder_with_more_files_than_records_are_allowed_is_refused(scraper: Scraper, clips: Path) -> None:
    with pytest.raises(ResourceExhausted, match="more than 2 files"):
        collect(scraper, clips.as_uri(), settings={"file_roots": (clips,), "max_records": 2})


def test_an_empty_folder_says_what_was_skipped(scraper: Scraper, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")

    with pytest.raises(SourceUnusable, match="1 not_media"):
        collect(scraper, tmp_path.as_uri(), settings={"file_roots": (tmp_path,)})


def test_progress_counts_files_of_all(scraper: Scraper, clips: Path) -> None:
    collect(scraper, clips.as_uri(), settings={"file_roots": (clips,)})

    assert [(p.done, p.total, p.unit) for p in scraper.progress if p.stage == "read"] == [
        (n, 3, "files") for n in (1, 2, 3)
    ]


# A list of addresses


def test_a_table_of_addresses_gives_a_record_a_file_with_what_the_table_says_of_it(
    scraper: Scraper, site: Site
) -> None:
    site.routes |= {
        "/clips.csv": page(f"url,title,genre,year\n/v/1.mp4,Night drive,synthpop,1984\n{site.url('/v/two')},,folk,\n"),
        "/v/1.mp4": page(b"one", MP4, Link='<https://creativecommons.org/licenses/by/4.0/>; rel="license"'),
        "/v/two": redirect("/v/2.webm"),
        "/v/2.webm": page(b"two", "application/octet-stream"),
    }

    collected = collect(scraper, site.url("/clips.csv"), settings=FAST)

    one, two = records_of(scraper, collected)
    assert one.fields == {"media": sha256_hex(b"one"), "title": "Night drive", "genre": "synthpop", "name": "1.mp4"}
    assert two.fields == {"media": sha256_hex(b"two"), "genre": "folk", "name": "two"}
    assert (one.provenance.url, one.provenance.licence.id) == (site.url("/v/1.mp4"), "CC-BY-4.0")
    assert (two.provenance.final_url, two.provenance.licence.id) == (site.url("/v/2.webm"), "unknown")
    assert one.provenance.robots == "no-robots-file"
    assert collected.collection.licences == {"CC-BY-4.0": 1, "unknown": 1}
    assert sorted(stored_media(scraper).values()) == [b"one", b"two"]


def test_a_plain_list_has_an_address_a_line(scraper: Scraper, site: Site) -> None:
    site.routes |= {"/clips.txt": page("\n/1.mp4\n"), "/1.mp4": page(b"one", MP4)}

    collected = collect(scraper, site.url("/clips.txt"), settings=FAST)

    assert (collected.collection.num_records, collected.skipped) == (1, {"blank_line": 1})


def test_one_bad_address_does_not_stop_the_others(scraper: Scraper, site: Site) -> None:
    site.routes |= {
        "/robots.txt": page("User-agent: *\nDisallow: /private/\n"),
        "/page": page("<html>", "text/html"),
        "/reserved.mp4": page(b"r", MP4, X_Robots_Tag="noai"),
        "/nc.mp4": page(
            b"nc", MP4, Link='<https://creativecommons.org/licenses/by-nc/4.0/>; rel="license"', Content_Length="2000"
        ),
        "/large.mp4": page(b"x" * 1025, MP4),
        "/busy.mp4": status(503),
        "/good.mp4": page(b"good", MP4),
    }
    rows = (
        "/missing.mp4", "/private/1.mp4", "/page", "/reserved.mp4", "/nc.mp4", "/large.mp4", "/busy.mp4",
        "ftp://lists.test/1.mp4", "https://u:p@lists.test/1.mp4", "file:///etc/passwd", "http://[bad", "/good.mp4",
    )  # fmt: skip
    site.routes["/clips.csv"] = page("url\n" + "\n".join(rows))

    collected = collect(scraper, site.url("/clips.csv"), settings=FAST | {"max_media_bytes": 1024})

    assert [record.fields["name"] for record in records_of(scraper, collected)] == ["good.mp4"]
    assert collected.skipped == {
        "body_too_large": 1,
        "licence_refused": 1,
        "not_found": 1,
        "not_media": 1,
        "robots_refused": 1,
        "source_unavailable": 1,
        "training_reserved": 1,
        "url_refused": 4,
    }
    assert list(stored_media(scraper).values()) == [b"good"]


@pytest.mark.usefixtures("local_site_is_public")
def test_an_address_inside_the_own_network_is_never_fetched(scraper: Scraper, site: Site) -> None:
    site.routes |= {
        "/clips.txt": page("http://10.0.0.1/1.mp4\nhttp://192.168.0.1/2.mp4\n/in\n/3.mp4\n"),
        "/in": redirect("http://169.254.169.254/latest"),
        "/3.mp4": page(b"three", MP4),
    }

    collected = collect(
        scraper, site.url("/clips.txt", host="127.0.0.1"), settings=FAST | {"allow_private_addresses": False}
    )

    assert collected.skipped == {"private_address": 3}
    assert collected.collection.num_records == 1


def test_a_licence_that_the_list_states_is_judged_before_the_file_is_asked_for(scraper: Scraper, site: Site) -> None:
    site.routes |= {
        "/clips.csv": page("url,licence\n/nc.mp4,CC-BY-NC-4.0\n/by.mp4,CC-BY-4.0\n/none.mp4,\n/odd.mp4,all mine!\n"),
        "/by.mp4": page(b"by", MP4),
        "/none.mp4": page(b"none", MP4),
    }

    collected = collect(scraper, site.url("/clips.csv"), settings=FAST | {"unknown_licence": "refuse"})

    assert [record.provenance.licence.id for record in records_of(scraper, collected)] == ["CC-BY-4.0"]
    assert collected.skipped == {"licence_refused": 1, "licence_unknown": 1, "bad_licence": 1}
    assert "/nc.mp4" not in site.paths
    assert list(stored_media(scraper).values()) == [b"by"]


def test_the_callers_licence_stands_for_all_files(scraper: Scraper, site: Site) -> None:
    link = '<https://creativecommons.org/licenses/by-nc/4.0/>; rel="license"'
    site.routes |= {"/clips.txt": page("/1.mp4\n"), "/1.mp4": page(b"one", MP4, Link=link)}

    collected = collect(scraper, site.url("/clips.txt"), settings=FAST, licence="CC0-1.0")

    assert collected.collection.licences == {"CC0-1.0": 1}


def test_a_collection_that_died_does_not_fetch_again_what_it_stored(scraper: Scraper, site: Site) -> None:
    site.routes |= {
        "/clips.csv": page("url,title\n/1.mp4,One\n/2.mp4,Two\n"),
        "/1.mp4": page(b"one", MP4, Link='<https://creativecommons.org/licenses/by/4.0/>; rel="license"'),
        "/2.mp4": page(b"two", MP4),
    }
    put_file = scraper.store.put_file

    def die_at_two(key: str, path: Path) -> None:
        if path.read_bytes() == b"two":
            raise Unavailable("the store is gone")
        put_file(key, path)

    scraper.store.put_file = die_at_two  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        collect(scraper, site.url("/clips.csv"), settings=FAST)
    scraper.store.put_file = put_file  # type: ignore[method-assign]
    assert list(scraper.store.list("collections/")) == []

    collected = collect(scraper, site.url("/clips.csv"), settings=FAST)

    assert site.paths.count("/1.mp4") == 1
    one, two = records_of(scraper, collected)
    assert (one.fields["title"], two.fields["title"]) == ("One", "Two")
    assert one.provenance.licence.id == "CC-BY-4.0"


def test_a_day_later_or_when_its_file_is_gone_an_address_is_fetched_anew(scraper: Scraper, site: Site) -> None:
    site.routes |= {"/clips.txt": page("/1.mp4\n"), "/1.mp4": in_turn(page(b"one", MP4), page(b"new", MP4))}
    collect(scraper, site.url("/clips.txt"), settings=FAST)

    scraper.store.delete(keys.media(sha256_hex(b"one")))
    collect(scraper, site.url("/clips.txt"), settings=FAST)
    collect(scraper, site.url("/clips.txt"), settings=FAST)
    assert site.paths.count("/1.mp4") == 2
    scraper.clock.passed_s += 24 * 3600
    collect(scraper, site.url("/clips.txt"), settings=FAST)

    assert site.paths.count("/1.mp4") == 3


def test_a_corrupt_ledger_entry_is_as_good_as_none(scraper: Scraper, site: Site) -> None:
    site.routes |= {"/clips.txt": page("/1.mp4\n"), "/1.mp4": page(b"one", MP4)}
    scraper.store.put(keys.media_source(sha256_hex(site.url("/1.mp4").encode())), b'{"media": 3}')

    assert collect(scraper, site.url("/clips.txt"), settings=FAST).collection.num_records == 1


def test_it_stops_between_two_files(scraper: Scraper, site: Site) -> None:
    site.routes |= {"/clips.txt": page("/1.mp4\n/2.mp4\n"), "/1.mp4": page(b"one", MP4), "/2.mp4": page(b"two", MP4)}
    scraper.should_stop = lambda: "/1.mp4" in site.paths

    with pytest.raises(Interrupted, match="after 1 records"):
        collect(scraper, site.url("/clips.txt"), settings=FAST)

    assert "/2.mp4" not in site.paths


# One file


def test_a_video_by_its_address_upload_or_path_is_a_collection_of_one(
    scraper: Scraper, site: Site, tmp_path: Path
) -> None:
    site.routes["/clip.mp4"] = page(b"web", MP4)
    (tmp_path / "clip.mp4").write_bytes(b"file")
    sha256 = save_upload(scraper.store, [b"sent"], max_bytes=100, scratch=scraper.scratch)

    for url, name, data in (
        (site.url("/clip.mp4"), "", b"web"),
        ((tmp_path / "clip.mp4").as_uri(), "", b"file"),
        (f"upload:{sha256}", "clip.mp4", b"sent"),
    ):
        [record] = records_of(scraper, collect(scraper, url, name=name, settings={"file_roots": (tmp_path,)}))
        assert record.fields == {"media": sha256_hex(data), "name": "clip.mp4"}
        assert scraper.store.get(keys.media(sha256_hex(data))).data == data


def test_a_single_video_that_is_missing_is_not_found(scraper: Scraper, site: Site) -> None:
    with pytest.raises(NotFound, match=r"clip\.mp4 does not exist"):
        collect(scraper, site.url("/clip.mp4"))


@pytest.mark.parametrize(
    ("spec", "error", "why"),
    [
        (SourceSpec("sample:genres"), NotFound, "media samples: clips"),
        (SourceSpec("file:///etc"), PermissionRefused, "FILE_ROOTS"),
        (SourceSpec("file:///etc/clip.mp4"), PermissionRefused, "FILE_ROOTS"),
        (SourceSpec("http://127.0.0.1/clip.mp4"), PermissionRefused, "ALLOW_PRIVATE_ADDRESSES"),
        (SourceSpec("ftp://lists.test/clip.mp4"), InvalidInput, "no known kind"),
        (SourceSpec("https://lists.test/", licence="CC-BY-NC-4.0"), PermissionRefused, "LICENCE_ALLOW"),
    ],
)
def test_a_media_spec_that_cannot_work_is_refused_at_once(
    scraper: Scraper, spec: SourceSpec, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        validate(CollectRequest("video_tags", spec), settings=ScraperSettings(), store=scraper.store)


def test_a_folder_has_no_columns(scraper: Scraper, clips: Path) -> None:
    request = CollectRequest("video_tags", SourceSpec(clips.as_uri(), columns={"title": "Title"}))

    with pytest.raises(InvalidInput, match="folder of media files"):
        validate(request, settings=ScraperSettings(file_roots=(clips,)), store=scraper.store)


# The sample


def small_plan() -> tuple[Clip, ...]:
    return planned_clips()[:2]


def test_the_sample_is_made_once_and_kept(scraper: Scraper, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def noted(clip: Clip, path: Path) -> None:
        made.append(clip.name)
        write_clip(clip, path)

    monkeypatch.setattr(sample, "planned_clips", small_plan)
    monkeypatch.setattr("tunesmith_scraper.clips.film.write_clip", noted)

    first = collect(scraper, "sample:clips")
    scraper.clock.passed_s += 1e6
    again = collect(scraper, "sample:clips")

    assert made == ["ambient-00", "ballad-00"]
    assert (again.reused, again.collection.id) == (True, first.collection.id)
    assert first.collection.licences == {"Apache-2.0": 2}
    [record, _] = records_of(scraper, first)
    assert record.fields["genre"] == "ambient"
    assert record.fields["name"] == "ambient-00.mp4"
    assert sha256_hex(scraper.store.get(keys.media(record.fields["media"])).data) == record.fields["media"]


def test_the_plan_spans_tempi_keys_and_sounds_and_ties_pictures_to_them() -> None:
    clips = planned_clips()

    assert len(clips) == len({clip.name for clip in clips}) >= 80
    assert (min(clip.tempo_bpm for clip in clips), max(clip.tempo_bpm for clip in clips)) == (70, 180)
    assert {clip.key for clip in clips} == set(range(12))
    assert {part for clip in clips for part in clip.parts} == {"pad", "plucks", "bass", "drums", "stabs", "lead"}
    assert all(6 <= clip.seconds <= 12 for clip in clips)
    assert {clip.genre for clip in clips[: len(STYLES)]} == {style.genre for style in STYLES}
    dark, bright = ([c for c in clips if (c.light > 0.5) == is_bright] for is_bright in (False, True))
    assert sum(c.tempo_bpm for c in dark) / len(dark) + 20 < sum(c.tempo_bpm for c in bright) / len(bright)


def test_a_clip_is_a_small_video_with_sound_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    clip = planned_clips()[7]
    write_clip(clip, tmp_path / "one.mp4")
    write_in_memory_of_other_contents = (
        "from pathlib import Path; from tunesmith_scraper.clips import film, plan;"
        f"film.write_clip(plan.planned_clips()[7], Path({str(tmp_path / 'two.mp4')!r}))"
    )
    subprocess.run(
        [sys.executable, "-c", write_in_memory_of_other_contents],
        env=os.environ | {"MALLOC_PERTURB_": "165"},
        check=True,
    )

    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    with av.open(str(tmp_path / "one.mp4")) as container:
        [video], [audio] = container.streams.video, container.streams.audio
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video)]
    assert (video.width, video.height, audio.rate) == (160, 90, 32_000)
    assert len(pictures) == pytest.approx(clip.seconds * 12, abs=1)
    changes = [abs(a.astype(int) - b.astype(int)).mean() for a, b in pairwise(pictures)]
    assert changes.index(max(changes)) != 0
    assert max(changes) > 5 * sorted(changes)[len(changes) // 2]
