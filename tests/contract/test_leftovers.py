"""What nothing refers to is found and removed, on every store; what is in use, or may be, stays."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contract.minio_buckets import open_store
from contract.processes import Reporter, running
from doubles.fake_clock import FakeClock
from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.minio_setup import make_buckets
from tunesmith.adapters.minio_store import MinioStore
from tunesmith.adapters.minio_uploads import list_uploads
from tunesmith.cli import main
from tunesmith.domain import keys
from tunesmith.domain.ids import canonical_json
from tunesmith.jobs.state import JobStore
from tunesmith.leftovers import Leftovers
from tunesmith.ports.store import Store

DAY_S = 86_400.0


def sha(digit: str) -> str:
    """A content hash."""
    return digit * 64


IN_USE = {
    keys.collection("playlist", "c1"): {
        "source": f"upload:{sha('1')}",
        "shards": [keys.record_shard("playlist", "c1", 0)],
    },
    keys.record_shard("playlist", "c1", 0): {"fields": {"media": sha("2"), "title": "x"}},
    keys.upload(sha("1")): "rows",
    keys.media(sha("2")): "video",
    keys.clip(sha("2"), 30): "clip",
    keys.captions(sha("2"), "signal", "1", 30): "caption",
    keys.media_source(sha("3")): {"sha256": sha("2")},
    keys.dataset("playlist", "d1"): {"id": "d1"},
    keys.dataset_lineage("playlist", "d1"): "lineage",
    keys.run("playlist", "r1"): {"base_fingerprint": "b1"},
    keys.adapter("playlist", "r1") + "adapter_model.safetensors": "weights",
    keys.base_model("b1") + "config.json": "config",
    keys.publication("p1"): {"base_fingerprint": "b2"},
    keys.published_file("p1", "model.safetensors"): "weights",
    keys.base_model("b2") + "config.json": "config",
    keys.report("playlist", "x"): {"catalogue": sha("4")},
    keys.report_page("playlist", "x"): "page",
    keys.catalogue("playlist"): {"hash": sha("5")},
    keys.catalogue_names("playlist", sha("4")): "names of then",
    keys.catalogue_names("playlist", sha("5")): "names",
    keys.sweep("playlist", "s1"): {},
    keys.sweep_page("playlist", "s1"): "page",
    keys.sweep_part("playlist", "part"): {},
    keys.written_pairs("playlist", "w1"): {},
    keys.model_version("playlist", "v1"): {},
    keys.champion("playlist"): {},
    keys.policy("playlist"): {},
    keys.watch("w"): {},
    keys.host("h"): {},
    "of-a-kind/unknown": "here",
}

LEFT_OVER = {
    keys.record_shard("playlist", "c2", 0): {"fields": {"media": sha("a")}},
    keys.upload(sha("b")): "rows",
    keys.media(sha("a")): "video",
    keys.clip(sha("a"), 30): "clip",
    keys.captions(sha("a"), "signal", "1", 30): "caption",
    keys.media_source(sha("c")): {"sha256": sha("d")},
    keys.dataset_lineage("playlist", "d2"): "lineage",
    keys.adapter("playlist", "r2") + "adapter_model.safetensors": "weights",
    keys.run_checkpoints("playlist", "r1") + "25/model": "a checkpoint of a run that has ended",
    keys.run_checkpoints("playlist", "r2") + "25/model": "a checkpoint of a run that failed",
    keys.base_model("b3") + "config.json": "config",
    keys.published_file("p2", "model.safetensors"): "weights",
    keys.report_page("playlist", "y"): "page",
    keys.catalogue_names("playlist", sha("e")): "names",
    keys.sweep_page("playlist", "s2"): "page",
    keys.written_row("playlist", "w1", 7): {},
    "probes/0123": "first",
}


@pytest.fixture(params=["local", "minio"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each adapter."""
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    return open_store(request.getfixturevalue("minio_server"))


@pytest.fixture
def next_week(store: Store) -> FakeClock:
    """A clock by which everything that is written now is eight days old."""
    return FakeClock(datetime.now(UTC) + timedelta(days=8))


def fill(store: Store, objects: dict[str, object]) -> None:
    """Store documents and texts."""
    for key, value in objects.items():
        store.put(key, canonical_json(value) if isinstance(value, dict) else str(value).encode())


def all_keys(store: Store) -> set[str]:
    """What is stored."""
    return {info.key for info in store.list("")}


def submit(store: Store, kind: str, name: str = "job") -> None:
    """A job of that kind is queued."""
    JobStore(store, FakeClock()).submit(job_id=f"{kind}-{name}", kind=kind, service="trainer", request={})


def removed_by(leftovers: Leftovers) -> set[str]:
    """Remove what was found; its keys."""
    removed: set[str] = set()
    leftovers.remove(lambda leftover: removed.add(leftover.object.key))
    return removed


def test_what_nothing_refers_to_goes_and_all_else_stays(store: Store, next_week: FakeClock) -> None:
    fill(store, {**IN_USE, **LEFT_OVER})

    assert removed_by(Leftovers(store, next_week)) == set(LEFT_OVER)
    assert all_keys(store) == set(IN_USE)
    assert Leftovers(store, next_week).found == ()


def test_young_objects_stay(store: Store) -> None:
    fill(store, LEFT_OVER)
    clock = FakeClock(datetime.now(UTC) + timedelta(days=6))

    assert Leftovers(store, clock).found == ()
    assert {found.object.key for found in Leftovers(store, clock, older_than_s=5 * DAY_S).found} == set(LEFT_OVER)


def test_what_a_running_job_may_use_stays_until_it_has_ended(store: Store, next_week: FakeClock) -> None:
    fill(store, LEFT_OVER)
    submit(store, "collect")

    leftovers = Leftovers(store, next_week)
    removed = removed_by(leftovers)

    assert leftovers.skipped() == ["uploads", "media", "media sources", "records"]
    assert keys.media(sha("a")) not in removed
    assert keys.clip(sha("a"), 30) in removed
    assert keys.media(sha("a")) in all_keys(store)


def test_a_job_that_comes_while_manifests_are_read_keeps_what_it_may_use(store: Store, next_week: FakeClock) -> None:
    fill(store, LEFT_OVER)
    leftovers = Leftovers(store, next_week)
    submit(store, "collect")
    # It has ended again, so that no marker tells of it.
    store.delete(keys.active_job("collect-job"))

    removed = removed_by(leftovers)

    assert keys.media(sha("a")) not in removed
    assert keys.record_shard("playlist", "c2", 0) not in removed
    assert keys.report_page("playlist", "y") in removed


def test_a_job_that_comes_while_objects_are_removed_keeps_the_rest(store: Store, next_week: FakeClock) -> None:
    fill(store, {keys.media(f"{n:064x}"): "video" for n in range(20)})
    leftovers = Leftovers(store, next_week)
    removed: list[str] = []

    def remove_slowly(leftover: object) -> None:
        removed.append(str(leftover))
        if len(removed) == 5:
            submit(store, "caption")
        next_week.advance(1.0)

    came = leftovers.remove(remove_slowly)

    assert len(removed) == 5
    assert came == {"caption"}


def test_a_job_that_is_just_being_submitted_keeps_everything(store: Store, next_week: FakeClock) -> None:
    fill(store, LEFT_OVER)
    store.put(keys.active_job("new"), b"{}")

    assert removed_by(Leftovers(store, next_week)) == {"probes/0123"}


class TestCommand:
    """`tunesmith clean`."""

    def test_a_folder_is_shown_first_and_cleaned_when_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("TUNESMITH_DATA", str(tmp_path))
        store = LocalStore(tmp_path / "store")
        fill(store, {**IN_USE, **LEFT_OVER})
        old_s = time.time() - 9 * DAY_S
        for path in (tmp_path / "store").rglob("*"):
            if path.is_file():
                os.utime(path, (old_s, old_s))

        assert main(["clean", "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert sum(row["objects"] for row in shown["leftovers"]) == len(LEFT_OVER)
        assert {row["removed"] for row in shown["leftovers"]} == {0}
        assert all_keys(store) == {*IN_USE, *LEFT_OVER}

        assert main(["clean", "--delete"]) == 0
        assert "captions" in capsys.readouterr().out
        assert all_keys(store) == set(IN_USE)

    def test_an_age_that_is_too_young_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["clean", "--older-than", "5m"]) == 2

        assert "less than an hour" in capsys.readouterr().err

    def test_uploads_of_a_killed_writer_are_ended(
        self, minio_server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        store = open_store(minio_server)
        address = store.connection.address
        monkeypatch.setenv("TUNESMITH_DATA", str(tmp_path))
        monkeypatch.setenv("TUNESMITH_STORE", f"s3://{address.bucket}?endpoint={address.endpoint}")
        monkeypatch.setenv("TUNESMITH_S3_ACCESS_KEY", minio_server.access_key)
        monkeypatch.setenv("TUNESMITH_S3_SECRET_KEY", minio_server.secret_key)
        with (tmp_path / "in").open("wb") as file:
            file.truncate(400 << 20)
        keys_of_admin = (minio_server.access_key, minio_server.secret_key)
        with running(
            _upload, f"s3://{address.bucket}?endpoint={address.endpoint}", *keys_of_admin, tmp_path / "in"
        ) as w:
            w.report()
            w.kill()
        assert [upload.key for upload in list_uploads(store.connection)] == ["media/big"]

        assert main(["clean", "--delete"]) == 0
        assert len(list(list_uploads(store.connection))) == 1
        now_s = time.time()
        monkeypatch.setattr(time, "time", lambda: now_s + 8 * DAY_S)
        assert main(["clean", "--json", "--delete"]) == 0

        document = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert document["leftovers"] == [{"kind": "unfinished uploads", "objects": 1, "size_bytes": 0, "removed": 1}]
        assert list(list_uploads(store.connection)) == []


def _upload(report: Reporter, url: str, access_key: str, secret_key: str, path: Path) -> None:
    store = MinioStore.open(url, access_key=access_key, secret_key=secret_key)
    make_buckets(store.connection)

    def tell() -> None:
        while not list(list_uploads(store.connection)):
            pass
        report(True)

    threading.Thread(target=tell, daemon=True).start()
    store.put_file("media/big", path)
