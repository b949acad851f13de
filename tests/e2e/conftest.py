"""Whole systems: the command line as a subprocess, and a server in this process driven through its protos only."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import psutil
import pytest

from contract.tiny_models import build_base
from fixtures_places import Place
from fixtures_real_parts import left_out

NAMES = [
    f"{adjective} {noun}"
    for adjective in (
        "acid",
        "arctic",
        "balkan",
        "cosmic",
        "desert",
        "dub",
        "folk",
        "jazz",
        "neo",
        "psy",
        "sea",
        "urban",
    )
    for noun in ("bounce", "chant", "disco", "drone", "groove", "house", "lament", "polka", "step", "swing", "wave")
]
"""132 made-up names: enough rows for every split, few enough to train on in seconds."""

MICRO_SETTINGS = ("epochs=4", "batch_size=2", "eval_every_steps=4", "save_every_steps=4", "adapter_dropout=0.1")
"""A training of some twenty steps with a checkpoint every four."""


@pytest.fixture(scope="session")
def micro_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of a few thousand random weights: everything is real but what it says."""
    return build_base(tmp_path_factory.mktemp("base") / "micro")


@pytest.fixture(scope="session")
def names_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain list of names."""
    path = tmp_path_factory.mktemp("source") / "names.txt"
    path.write_text("\n".join(NAMES) + "\n")
    return path


@dataclass
class CommandLine:
    """`tunesmith` over one data folder, with store and bus where the tests run."""

    data: Path
    place: Place
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def argv(self, *args: str) -> list[str]:
        """The command as a subprocess starts it."""
        return [sys.executable, "-m", "tunesmith.cli", "--data", str(self.data), *args]

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start it in a process group of its own, as a terminal would."""
        process = subprocess.Popen(
            self.argv(*args),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=self._environment(),
        )
        self.started.append(process)
        return process

    def run(self, *args: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.argv(*args),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self._environment(),
        )

    def json(self, *args: str) -> Any:
        """Run it and read its one JSON document."""
        done = self.run("--json", *args)
        assert done.returncode in (0, 3), done.stderr
        return json.loads(done.stdout)

    def rows(self, pattern: str) -> list[dict[str, Any]]:
        """What the JSON objects of the store hold whose keys are like `pattern`."""
        store = self.place.store(self.data)
        prefix = pattern.partition("*")[0]
        found = [info.key for info in store.list(prefix) if fnmatchcase(info.key, pattern)]
        return [json.loads(store.get(key).data) for key in found]

    def _environment(self) -> dict[str, str]:
        self.place.store(self.data)  # so that its buckets are there
        return {**os.environ, **self.place.environment(self.data)}

    def processes(self) -> list[psutil.Process]:
        """Every living process that works on the data folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                owns = str(self.data) in process.cmdline() or process.environ().get("TUNESMITH_DATA") == str(self.data)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if owns:
                found.append(process)
        return found

    def kill_all(self) -> None:
        """Leave nothing behind."""
        for process in self.processes():
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        for process in self.started:
            process.communicate()


@pytest.fixture
def command_line(place: Place, tmp_path: Path) -> Iterator[CommandLine]:
    """A command line over an empty data folder; whatever it left running is killed at the end."""
    line = CommandLine(tmp_path / "data", place)
    yield line
    line.kill_all()


@pytest.fixture
def micro_run(micro_base: Path, names_file: Path) -> Callable[..., list[str]]:
    """Arguments of a run of the whole chain that takes seconds; its candidate is refused, for it knows nothing."""

    def arguments(*more: str) -> list[str]:
        settings = [part for setting in MICRO_SETTINGS for part in ("--set", setting)]
        return ["run", "micro_genre", "--source", str(names_file), "--base-model", str(micro_base), *settings, *more]

    return arguments


@pytest.fixture(scope="session")
def chromium() -> str:
    """A real browser. Where there is none the page tests are left out, but never in CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return found or left_out("no browser here for the page tests; `apt-get install chromium` brings one")
