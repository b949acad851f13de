"""What a user of the MinIO adapter is told when store, network or settings are bad; and that nothing is half done."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import real_parts as parts
import trustme
from store_faults import Faults, faulty

from contract.minio_buckets import open_store
from contract.processes import Reporter, running
from fixtures_real_parts import S3, left_out
from tunesmith.adapters import minio_connection
from tunesmith.adapters.minio_store import MinioStore
from tunesmith.domain.errors import (
    Conflict,
    FailedPrecondition,
    InvalidSettings,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
)

MIB = 1 << 20


def calls_of(store: MinioStore, folder: Path) -> list[Callable[[], object]]:
    """Every method, as a call on a key that may not exist."""
    (folder / "in").write_bytes(b"some bytes")
    return [
        lambda: store.get("a"),
        lambda: store.exists("a"),
        lambda: store.put("a", b"1"),
        lambda: store.create("a", b"1"),
        lambda: store.replace("a", b"1", version="0" * 32),
        lambda: store.delete("a"),
        lambda: list(store.list("")),
        lambda: store.put_file("a", folder / "in"),
        lambda: store.get_file("a", folder / "out"),
    ]


def assert_all_raise(store: MinioStore, folder: Path, error: type[TunesmithError], reason: str) -> None:
    """Every method says the same, and a download leaves nothing behind."""
    for call in calls_of(store, folder):
        with pytest.raises(error) as raised:
            call()
        assert raised.value.reason == reason, raised.value
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["in"]


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_wrong_credentials_are_told_from_other_troubles(minio_server: S3, tmp_path: Path, wrong: str) -> None:
    keys = {"access_key": minio_server.access_key, "secret_key": minio_server.secret_key, wrong: "not-the-right-one"}
    store = MinioStore.open(f"s3://bucket?endpoint={minio_server.endpoint}", **keys)

    with pytest.raises(InvalidSettings, match=r"refuses the credentials.*TUNESMITH_S3_SECRET_KEY") as refused:
        store.put("a", b"1")

    assert "not-the-right-one" not in refused.value.message
    # A reply to HEAD has no body; MinIO names the reason in a header.
    assert_all_raise(store, tmp_path, InvalidSettings, "STORE_CREDENTIALS_REFUSED")


def test_a_missing_bucket_is_not_a_missing_object(minio_server: S3, tmp_path: Path) -> None:
    store = MinioStore.open(
        f"s3://no-such-bucket?endpoint={minio_server.endpoint}",
        access_key=minio_server.access_key,
        secret_key=minio_server.secret_key,
    )

    with pytest.raises(FailedPrecondition, match=r"bucket 'no-such-bucket' does not exist.*tunesmith setup"):
        store.get("a")

    assert_all_raise(store, tmp_path, FailedPrecondition, "STORE_BUCKET_MISSING")


class MinutesAhead(datetime):
    """A machine's clock that nobody set."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        """Later than it is."""
        return datetime.now(tz) + cls.ahead

    ahead = timedelta()


@pytest.mark.parametrize(("minutes", "allowed"), [(10, True), (20, False)])
def test_a_clock_that_is_wrong_by_minutes_is_named_when_it_matters(
    minio_server: S3, monkeypatch: pytest.MonkeyPatch, minutes: int, allowed: bool
) -> None:
    store = open_store(minio_server)
    monkeypatch.setattr(MinutesAhead, "ahead", timedelta(minutes=minutes))
    monkeypatch.setattr(minio_connection, "datetime", MinutesAhead)

    if allowed:
        store.replace("a", b"2", version=store.create("a", b"1"))
        return
    with pytest.raises(Unavailable, match=r"clocks of this machine and of the store .* set them by NTP") as raised:
        store.put("a", b"1")
    assert raised.value.reason == "STORE_CLOCK_SKEW"


def test_a_store_that_is_not_there_is_unavailable_within_seconds() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    store = MinioStore.open(f"s3://bucket?endpoint=http://127.0.0.1:{port}", access_key="key", secret_key="word")

    started_s = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(store.get, "a"), pool.submit(store.create, "a", b"1")]
    for call in calls:
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port} does not answer.*check that it runs") as raised:
            call.result()
        assert raised.value.reason == "STORE_UNAVAILABLE"
    assert time.monotonic() - started_s < 10


class WebSite(BaseHTTPRequestHandler):
    """What someone gets who names the port of a console."""

    def answer(self) -> None:
        """A page, whatever was asked."""
        self.send_response(200 if self.command == "GET" else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "13")
        self.end_headers()
        self.wfile.write(b"<html></html>")

    do_GET = do_PUT = answer

    def log_message(self, *_: object) -> None:
        """Quiet."""


def test_a_web_site_is_not_taken_for_a_store() -> None:
    with HTTPServer(("127.0.0.1", 0), WebSite) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        store = MinioStore.open(f"s3://bucket?endpoint={address}", access_key="key", secret_key="word")

        with pytest.raises(Unavailable, match="does not speak S3"):
            list(store.list(""))
        with pytest.raises(Unavailable):
            store.put("a", b"1")
        server.shutdown()


def test_a_store_that_was_restarted_is_found_again(own_minio: Callable[..., parts.Minio]) -> None:
    server = own_minio()
    store = open_store(server)
    version = store.create("a", b"1")

    server.kill()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(store.replace, "a", b"2", version=version)
        server.start()
        version = writing.result()

    assert (store.get("a").data, store.get("a").version) == (b"2", version)
    with pytest.raises(Conflict):
        store.replace("a", b"3", version="0" * 32)


class TestCertificates:
    """A store with TLS, whose certificate an authority of its own signed."""

    @pytest.fixture
    def authority(self) -> trustme.CA:
        """Signs certificates."""
        return trustme.CA()

    @pytest.fixture
    def server(self, authority: trustme.CA, tmp_path: Path) -> Iterator[parts.Minio]:
        """MinIO, on https."""
        certificates = tmp_path / ".minio" / "certs"
        certificates.mkdir(parents=True)
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(str(certificates / "private.key"))
        for chain in issued.cert_chain_pems:
            chain.write_to_path(str(certificates / "public.crt"), append=True)
        try:
            server = parts.minio(tmp_path / "minio", env={"HOME": str(tmp_path)})
        except parts.PartMissing as missing:
            left_out(str(missing))
        server.is_ready = lambda: _is_open(server.port)
        with parts.running(server):
            yield server

    def open_at(self, server: parts.Minio, ca: Path | None) -> MinioStore:
        """A store over https."""
        url = f"s3://songs?endpoint=https://127.0.0.1:{server.port}"
        return MinioStore.open(url, access_key=server.access_key, secret_key=server.secret_key, ca=ca)

    def test_its_authority_must_be_named(self, server: parts.Minio, authority: trustme.CA, tmp_path: Path) -> None:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        store = self.open_at(server, tmp_path / "ca.pem")
        store.connection.client.make_bucket("songs")
        (tmp_path / "in").write_bytes(os.urandom(6 * MIB))

        version = store.create("a", b"1")
        store.replace("a", b"2", version=version)
        store.put_file("b", tmp_path / "in")

        assert store.get("a").data == b"2"
        assert store.get("b").data == (tmp_path / "in").read_bytes()
        for call in (lambda s: s.get("a"), lambda s: s.create("c", b"")):
            with pytest.raises(InvalidSettings, match="TUNESMITH_S3_CA"):
                call(self.open_at(server, None))


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class TestTransfers:
    """Large files over a way that loses bytes and replies."""

    def test_files_arrive_whole_although_every_fifth_request_fails(self, minio_server: S3, tmp_path: Path) -> None:
        content = random.Random(1).randbytes(23 * MIB)
        (tmp_path / "in").write_bytes(content)
        faults = Faults(error_after=0.1, cut_after=0.05, cut_before=0.05, cut_reply=0.4)
        with faulty(minio_server.endpoint, faults, seed=5) as proxy:
            store = open_store(minio_server, proxy.endpoint)
            for n in range(3):
                store.put_file(f"f/{n}", tmp_path / "in")
                store.get_file(f"f/{n}", tmp_path / "out")

                assert (tmp_path / "out").read_bytes() == content
        assert sum(proxy.struck.values()) > 0

    def test_a_download_that_ends_early_every_time_leaves_the_older_file(
        self, minio_server: S3, tmp_path: Path
    ) -> None:
        (tmp_path / "out").write_bytes(b"an older file")
        with faulty(minio_server.endpoint, Faults(cut_reply=1.0), seed=0) as proxy:
            store = open_store(minio_server, proxy.endpoint)
            store.put("a", bytes(3 * MIB))

            with pytest.raises(Unavailable):
                store.get_file("a", tmp_path / "out")
            with pytest.raises(Unavailable):
                store.get("a")

        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("out", b"an older file")]

    def test_an_uploader_that_is_killed_leaves_the_older_object(self, minio_server: S3, tmp_path: Path) -> None:
        store = open_store(minio_server)
        store.put("big", b"older")
        with (tmp_path / "in").open("wb") as file:
            file.truncate(200 * MIB)
        bucket = store.connection.address.bucket
        url = f"s3://{bucket}?endpoint={minio_server.endpoint}"
        opener = partial(MinioStore.open, url, access_key=minio_server.access_key, secret_key=minio_server.secret_key)
        with running(_upload, opener, tmp_path / "in") as uploader:
            uploader.report()
            uploader.kill()

        assert store.get("big").data == b"older"

    def test_a_full_local_disk_is_told_and_leaves_nothing(self, minio_server: S3, tmp_path: Path) -> None:
        store = open_store(minio_server)
        store.put("a", bytes(4 * MIB))
        with small_disk(tmp_path / "disk", 1), pytest.raises(ResourceExhausted, match=r"no room to write .*/disk/out"):
            store.get_file("a", tmp_path / "disk" / "out")


def _upload(report: Reporter, opener: Callable[[], MinioStore], path: Path) -> None:
    store = opener()
    threading.Timer(0.15, report, (True,)).start()
    store.put_file("big", path)


@contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[None]:
    """A file system in memory; the test is left out where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        left_out("only root can mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_store_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    with small_disk(tmp_path / "minio" / "objects", 48):
        try:
            server = parts.minio(tmp_path / "minio")
        except parts.PartMissing as missing:
            left_out(str(missing))
        with parts.running(server):
            store = open_store(server)
            version = store.create("state", b"before")
            (tmp_path / "in").write_bytes(bytes(80 * MIB))

            with pytest.raises(ResourceExhausted, match=r"no room in bucket .*tunesmith clean"):
                store.put_file("big", tmp_path / "in")
            written = _fill(store)

            with pytest.raises(ResourceExhausted):
                store.replace("state", bytes(2 * MIB), version=version)
            with pytest.raises(ResourceExhausted):
                store.create("another", bytes(2 * MIB))
            assert sorted(info.key for info in store.list("")) == [*written, "state"]
            assert store.get("state").data == b"before"
            assert all(store.get(key).data == bytes(MIB) for key in written)
            assert urlsplit(server.endpoint).port == server.port


def _fill(store: MinioStore) -> list[str]:
    """Write objects until there is no room; their keys."""
    written: list[str] = []
    while True:
        try:
            store.put(f"fill/{len(written):03d}", bytes(MIB))
        except ResourceExhausted:
            return written
        written.append(f"fill/{len(written):03d}")
        assert len(written) < 60
