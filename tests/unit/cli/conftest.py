"""Fixtures of the command line's tests: scripted services behind a real gRPC server, and a way to run commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fake_services
import pytest
from command_results import Ended, Tunesmith
from fake_services import FakeServices

from tunesmith.cli import main


@pytest.fixture
def fake() -> FakeServices:
    return FakeServices()


@pytest.fixture
def address(fake: FakeServices) -> Iterator[str]:
    server, address = fake_services.start(fake)
    yield address
    fake.release.set()
    server.stop(grace=0).wait()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TUNESMITH_SERVER", "TUNESMITH_DATA", "TUNESMITH_AUTH_TOKEN", "TUNESMITH_TLS_CA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tunesmith(address: str, data: Path, capsys: pytest.CaptureFixture[str]) -> Tunesmith:
    """Runs a command line against the scripted services."""

    def run(*arguments: object) -> Ended:
        code = main([f"--server={address}", f"--data={data}", *map(str, arguments)])
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def bare(capsys: pytest.CaptureFixture[str]) -> Tunesmith:
    """Runs a command line that names no server."""

    def run(*arguments: object) -> Ended:
        code = main([*map(str, arguments)])
        return Ended(code, *capsys.readouterr())

    return run
