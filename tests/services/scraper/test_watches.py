"""Watched sources: what has changed is collected once, when it stands still, and nothing else is."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from doubles.fake_clock import FakeClock
from fixtures_places import Place
from tunesmith.domain.errors import InvalidInput, NotFound, PermissionRefused
from tunesmith.domain.jobs import Job, JobError
from tunesmith.jobs.state import JobStore
from tunesmith_scraper import watches as watches_module
from tunesmith_scraper.handlers import CollectRequest
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import JoinSpec, SourceSpec
from tunesmith_scraper.watches import Watch, Watches

RECIPE = "micro_genre"


@dataclass
class Post:
    """A watcher over one folder, with a clock that stands still."""

    root: Path
    place: Place
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.folder = self.root / "lists"
        self.folder.mkdir()
        self.store = self.place.store(self.root)
        self.jobs = JobStore(self.store, self.clock)
        self.settings = ScraperSettings(file_roots=(self.folder,), watch_settle_s=1.0, max_upload_bytes=100_000)
        self.watches = self.replica()

    def replica(self) -> Watches:
        return Watches(self.store, self.jobs, self.clock, self.settings)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        # Two writes within one tick of the file system's clock are told apart all the same.
        times = (path.stat().st_atime_ns, path.stat().st_mtime_ns + len(self.collected()) + 1)
        os.utime(path, ns=times)
        return path

    def watch(self, path: Path, *, recipe: str = RECIPE, every_s: float = 0.0, **spec: object) -> Watch:
        return self.watches.put(recipe, SourceSpec(path.as_uri(), **spec), every_s)  # type: ignore[arg-type]

    def look(self, *, seconds: float = 1.0, watches: Watches | None = None) -> None:
        """Look, and again after a while."""
        watches = watches or self.watches
        watches.look_at_all()
        self.clock.advance(seconds)
        watches.look_at_all()

    def collected(self) -> list[Job]:
        found = [self.jobs.get(job_id) for job_id in self.jobs.all_ids()]
        return sorted(found, key=lambda job: (job.created_at, job.request["source"]["url"]))

    def files(self) -> list[str]:
        return [Path(CollectRequest.from_json(job.request).source.url).name for job in self.collected()]

    def end(self, job: Job, **changes: object) -> None:
        self.jobs.change(job.id, lambda current: self.jobs.step(current, **changes))


@pytest.fixture
def post(place: Place, tmp_path: Path) -> Post:
    return Post(tmp_path, place)


def test_a_file_is_collected_when_it_is_first_seen_and_whenever_it_has_changed(post: Post) -> None:
    path = post.write("a.txt", "ska")
    watch = post.watch(path, licence="CC0-1.0")
    post.look()
    post.look()
    (first,) = post.collected()
    assert CollectRequest.from_json(first.request) == CollectRequest(RECIPE, watch.source)

    post.write("a.txt", "ska\ndub")
    post.look()

    assert len(post.collected()) == 2


def test_a_file_that_is_still_being_written_is_left_alone_until_it_stands_still(post: Post) -> None:
    path = post.write("a.txt", "")
    post.watch(path)
    for n in range(5):
        path.write_text("x" * n)
        post.look(seconds=0.9)
        assert post.collected() == []

    post.look()

    assert len(post.collected()) == 1


def test_a_file_that_is_written_to_while_it_is_read_is_left_alone(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    path = post.write("a.txt", "ska")
    post.watch(path)
    read = post.watches._content

    def read_and_append(source: SourceSpec, stamp: str) -> str:
        content = read(source, stamp)
        path.write_text("ska\ndub")
        return content

    with monkeypatch.context() as patch:
        patch.setattr(post.watches, "_content", read_and_append)
        post.look()

    assert post.collected() == []
    post.look()
    assert len(post.collected()) == 1


def test_touching_a_file_or_putting_its_old_content_back_collects_nothing(post: Post) -> None:
    path = post.write("a.txt", "ska")
    post.watch(path)
    for text in ("ska", "dub", "ska", "dub"):
        path.write_text(text)
        os.utime(path)
        post.look()

    assert len(post.collected()) == 2


def test_a_collection_that_failed_is_tried_again_when_the_file_is_touched_and_not_before(post: Post) -> None:
    path = post.write("a.txt", "ska")
    post.watch(path)
    post.look()
    (job,) = post.collected()
    post.end(job, phase="failed", error=JobError("RESOURCE_EXHAUSTED", "DISK_FULL", "no room"))
    for _ in range(3):
        post.look()
    assert len(post.collected()) == 1

    os.utime(path, ns=(1, 1))
    post.look()

    assert len(post.collected()) == 2


def test_a_restart_and_a_second_replica_collect_nothing_twice(post: Post) -> None:
    post.watch(post.write("a.txt", "ska"))
    one, other = post.replica(), post.replica()
    one.look_at_all()
    other.look_at_all()
    post.clock.advance(1)
    one.look_at_all()
    other.look_at_all()

    post.look(watches=post.replica())

    assert len(post.collected()) == 1


def test_a_crash_between_job_and_note_collects_nothing_twice(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    post.watch(post.write("a.txt", "ska"))
    with monkeypatch.context() as patch:
        patch.setattr(post.watches, "_note", lambda *_, **__: None)
        post.look()
    assert len(post.collected()) == 1

    post.look(watches=post.replica())

    assert len(post.collected()) == 1
    assert post.watches.all()[0].seen[""].job_id == post.collected()[0].id


def test_each_file_of_a_folder_is_collected_for_itself(post: Post) -> None:
    post.write("b.txt", "ska")
    post.write("a.txt", "dub")
    post.write(".hidden.txt", "x")
    (post.folder / "sub").mkdir()
    watch = post.watch(post.folder)
    post.look()
    assert post.files() == ["a.txt", "b.txt"]

    post.write("c.txt", "polka")
    (post.folder / "a.txt").unlink()
    post.look()

    assert sorted(post.files()) == ["a.txt", "b.txt", "c.txt"]
    found = post.watches.find(watch.id)
    assert found is not None
    assert set(found.seen) == {"b.txt", "c.txt"}


def test_a_folder_of_media_is_collected_as_a_whole_when_anything_below_it_changes(post: Post) -> None:
    post.write("a.mp4", "not really")
    (post.folder / "sub").mkdir()
    post.watch(post.folder, recipe="video_tags")
    post.look()
    assert [CollectRequest.from_json(job.request).source.url for job in post.collected()] == [post.folder.as_uri()]

    post.write("sub/b.mp4", "neither")
    post.look()
    post.look()

    assert len(post.collected()) == 2


def test_a_link_out_of_the_roots_in_a_watched_folder_is_told_and_not_followed(post: Post) -> None:
    secret = post.root / "secret.txt"
    secret.write_text("x")
    (post.folder / "link.txt").symlink_to(secret)
    post.write("a.txt", "ska")
    watch = post.watch(post.folder)

    post.look()

    assert post.files() == ["a.txt"]
    found = post.watches.find(watch.id)
    assert found is not None
    assert "not under an allowed folder" in found.seen["link.txt"].problem


def test_a_table_that_is_joined_is_watched_with_it(post: Post) -> None:
    artists = post.write("artists.csv", "id,genre\n1,ska\n")
    songs = post.write("songs.csv", "artist,name\n1,dub\n")
    post.watch(songs, join=JoinSpec(artists.as_uri(), "artist", "id", {"genre": "genre"}))
    post.look()

    post.write("artists.csv", "id,genre\n1,polka\n")
    post.look()

    assert len(post.collected()) == 2


def test_a_file_larger_than_may_be_collected_is_told_and_not_read_again(post: Post) -> None:
    watch = post.watch(post.write("a.txt", "x" * 200_000))

    post.look()

    found = post.watches.find(watch.id)
    assert found is not None
    assert "larger than 100000 bytes" in found.seen[""].problem
    assert post.collected() == []


def test_a_file_that_goes_and_comes_back_is_said_to_be_gone_meanwhile(post: Post) -> None:
    path = post.write("a.txt", "ska")
    watch = post.watch(path)
    post.look()
    path.unlink()
    post.look()
    gone = post.watches.find(watch.id)
    post.write("a.txt", "dub")
    post.look()
    back = post.watches.find(watch.id)

    assert gone is not None
    assert back is not None
    assert ("there is no file" in gone.problem, back.problem) == (True, "")
    assert len(post.collected()) == 2


def test_a_url_is_collected_when_it_is_due_and_once_for_each_time(post: Post) -> None:
    watch = post.watches.put("micro_genre", SourceSpec("https://lists.test/a.txt"), 3600)
    post.look()
    post.look()
    assert len(post.collected()) == 1

    post.clock.advance(3600)
    post.watches.look_at_all()
    post.replica().look(watch)  # as it stood before: another replica that is late
    assert len(post.collected()) == 2

    post.clock.advance(10 * 3600)
    for _ in range(3):
        post.look()

    assert len(post.collected()) == 3, "times that were missed are not made up for one by one"


def test_a_file_with_an_interval_is_looked_at_no_sooner(post: Post) -> None:
    path = post.write("a.txt", "ska")
    post.watch(path, every_s=100)
    post.look()
    post.write("a.txt", "dub")
    post.look(seconds=50)
    assert len(post.collected()) == 1

    post.clock.advance(100)
    post.look()

    assert len(post.collected()) == 2


def test_a_watch_that_is_removed_looks_no_more_and_does_not_come_back(post: Post) -> None:
    watch = post.watch(post.write("a.txt", "ska"))
    stale = post.watches.find(watch.id)
    assert stale is not None
    post.watches.delete(watch.id)

    post.watches.look(stale)
    post.clock.advance(1)
    post.watches._note(stale, problem="late")

    assert post.watches.all() == []
    with pytest.raises(NotFound, match="tunesmith watches"):
        post.watches.delete(watch.id)


def test_the_same_source_again_gets_the_new_interval(post: Post) -> None:
    path = post.write("a.txt", "ska")

    first, second = post.watch(path), post.watch(path, every_s=60)

    assert (first.id, second.every_s) == (second.id, 60)
    assert len(post.watches.all()) == 1


@pytest.mark.parametrize(
    ("url", "every_s", "said"),
    [
        ("sample:genres", 0, "never changes"),
        ("https://lists.test/a", 5, "between 60 and"),
        ("https://lists.test/a", 1e12, "between 60 and"),
        ("ftp://lists.test/a", 60, "no known kind"),
    ],
)
def test_a_watch_that_cannot_be_is_refused(post: Post, url: str, every_s: float, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        post.watches.put(RECIPE, SourceSpec(url), every_s)

    assert post.watches.all() == []


def test_a_path_outside_the_roots_is_refused(post: Post) -> None:
    with pytest.raises(PermissionRefused, match="TUNESMITH_SCRAPER_FILE_ROOTS"):
        post.watch(post.root)


def test_a_corrupt_watch_does_not_hold_up_the_others(post: Post) -> None:
    post.watch(post.write("a.txt", "ska"))
    post.store.put("watches/bad.json", b"{")

    post.look()

    assert len(post.collected()) == 1


def test_replicas_that_see_one_file_under_different_numbers_do_not_take_turns_at_it(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.watch(post.write("a.txt", "ska"))
    other = post.replica()
    elsewhere = watches_module._stamp

    def look_from_another_machine() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(watches_module, "_stamp", lambda files: "other-" + elsewhere(files))
            post.look(watches=other)

    post.look()
    look_from_another_machine()
    settled = [watch.rev for watch in post.watches.all()]
    for _ in range(3):
        post.look()
        look_from_another_machine()

    assert len(post.collected()) == 1
    assert [watch.rev for watch in post.watches.all()] == settled
