"""The settings of an S3 store: what is refused before anything is sent, and where the secrets go."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tunesmith.adapters.minio_connection import MinioAddress
from tunesmith.adapters.minio_store import MinioStore
from tunesmith.domain.errors import InvalidSettings
from tunesmith.platform import Platform
from tunesmith.settings import Settings

URL = "s3://bucket?endpoint=http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://?endpoint=http://host:9000", "name of a bucket"),
        ("s3://ab?endpoint=http://host:9000", "3 to 63"),
        ("s3://My_Songs?endpoint=http://host:9000", "small letters"),
        ("s3://bucket/folder?endpoint=http://host:9000", "no folder"),
        ("s3://bucket", "not http"),
        ("s3://bucket?endpoint=host:9000", "not http"),
        ("s3://bucket?endpoint=http://host:9000/minio", "not http"),
        ("s3://bucket?endpoint=http://user:word@host:9000", "user or password"),
        ("s3://key:secret@bucket?endpoint=http://host:9000", "TUNESMITH_S3_SECRET_KEY"),
        ("s3://bucket?endpoint=http://host:9000&bucket=areas", "'bucket' is not known"),
        ("s3://bucket?endpoint=http://host:9000&buckets=one", "not 'areas'"),
        (f"s3://{'b' * 60}?endpoint=http://host:9000&buckets=areas", "longer than"),
    ],
)
def test_an_address_that_cannot_work_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(InvalidSettings, match=why) as refused:
        MinioAddress.read(url)

    assert "secret@" not in refused.value.message
    assert "word@" not in refused.value.message


def test_an_address_says_bucket_endpoint_region_and_areas() -> None:
    address = MinioAddress.read("s3://songs?endpoint=https://s3.example:9000&region=eu-1&buckets=areas")

    assert (address.bucket, address.endpoint, address.region) == ("songs", "https://s3.example:9000", "eu-1")
    assert address.buckets() == [
        "songs-captioner",
        "songs-collections",
        "songs-scraper",
        "songs-shared",
        "songs-trainer",
    ]


def test_a_store_without_credentials_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="set TUNESMITH_S3_ACCESS_KEY and TUNESMITH_S3_SECRET_KEY"):
        Platform.open(Settings.read(data=tmp_path, store=URL))


def test_a_store_whose_certificates_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"TUNESMITH_S3_CA='.*none\.pem' cannot be read"):
        Platform.open(
            Settings.read(
                data=tmp_path, store=URL, s3_access_key="key", s3_secret_key="word", s3_ca=tmp_path / "none.pem"
            )
        )


def test_a_missing_client_is_told_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tunesmith.adapters.minio_store")
    monkeypatch.setitem(sys.modules, "minio", None)
    for name in [name for name in sys.modules if name.startswith(("minio.", "tunesmith.adapters.minio_"))]:
        monkeypatch.delitem(sys.modules, name)

    with pytest.raises(InvalidSettings, match=r"tunesmith\[minio\]"):
        Platform.open(Settings.read(data=tmp_path, store=URL, s3_access_key="key", s3_secret_key="word"))


def test_opening_a_platform_sends_nothing(tmp_path: Path) -> None:
    platform = Platform.open(Settings.read(data=tmp_path, store=URL, s3_access_key="key", s3_secret_key="word"))

    assert isinstance(platform.store, MinioStore)
    platform.close()


def test_a_worker_gets_the_stores_settings_and_nobody_reads_the_secret(tmp_path: Path) -> None:
    settings = Settings.read(
        data=tmp_path, store=URL, s3_access_key="key", s3_secret_key="s3cret", s3_ca=tmp_path / "ca.pem"
    )

    env = settings.worker_env()

    assert env["TUNESMITH_STORE"] == URL
    assert env["TUNESMITH_S3_CA"] == str(tmp_path / "ca.pem")
    assert (env["TUNESMITH_S3_ACCESS_KEY"], env["TUNESMITH_S3_SECRET_KEY"]) == ("key", "s3cret")
    assert "s3cret" not in f"{settings!r} {settings.model_dump()}"


def test_a_worker_of_the_embedded_mode_gets_no_settings_of_a_store(tmp_path: Path) -> None:
    assert not [name for name in Settings.read(data=tmp_path).worker_env() if "_S3_" in name]
