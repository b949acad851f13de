"""The script that brings real parts: what it says when it cannot, and that a killed server comes back."""

from __future__ import annotations

import pytest
import real_parts as parts


def test_a_machine_without_java_is_told_what_brings_kafka(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(parts.PartMissing, match=r"no java and no mvn here to bring Kafka; install Debian's openjdk-17"):
        parts.kafka(tmp_path / "kafka")


def test_a_machine_without_go_is_told_what_brings_minio(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(parts.PartMissing, match=r"no go here to bring MinIO; install Go 1.24 or newer"):
        parts.minio(tmp_path / "minio")


def test_a_fetch_that_fails_leaves_nothing_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("java", "mvn"):
        (programs / name).write_text("#!/bin/sh\necho the repository does not answer >&2\nexit 1\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("TUNESMITH_PARTS_CACHE", str(tmp_path / "cache"))

    with pytest.raises(parts.PartMissing, match="the repository does not answer"):
        parts.kafka_jars()

    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_a_killed_minio_comes_back_with_its_address_and_data(own_minio):
    server = own_minio()
    (server.folder / "objects" / "bucket").mkdir()
    endpoint = server.endpoint

    server.kill()
    server.start()

    assert server.endpoint == endpoint
    assert (server.folder / "objects" / "bucket").is_dir()
