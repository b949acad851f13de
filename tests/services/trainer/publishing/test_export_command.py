"""`tunesmith export`: a folder that is there as a whole or not at all, and that PEFT and transformers load."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from published_world import RECIPE, REFUSED, VERSION, World

from tunesmith.embedded import session
from tunesmith_trainer.torch_backend.loading import load_model


@dataclass(frozen=True)
class Exporter:
    """The command line against a server that has judged models."""

    address: str
    world: World

    def argv(self, folder: Path, *more: str) -> list[str]:
        asked = ["--server", self.address, "--json", "export", RECIPE, str(folder), *more]
        return [sys.executable, "-m", "tunesmith.cli", *asked]

    def export(self, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
        argv = self.argv(folder, "--version", VERSION, *more)
        return subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    world = World(tmp_path_factory.mktemp("export"))
    with session(world.folder / "data") as address:
        yield Exporter(address, world)


@pytest.mark.heavy
def test_an_exported_adapter_loads_on_its_base(exporter: Exporter, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "adapter"
    done = exporter.export(folder)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"], "nothing unfinished lies beside it"
    assert load_model(exporter.world.base, adapter=folder).tokenizer.eos_token == "</s>"


@pytest.mark.heavy
def test_an_exported_merged_model_loads_by_itself_from_a_folder_that_was_empty(
    exporter: Exporter, tmp_path: Path
) -> None:
    folder = tmp_path / "merged"
    folder.mkdir()
    done = exporter.export(folder, "--merged")
    assert done.returncode == 0, done.stderr
    assert load_model(folder).tokenizer.eos_token == "</s>"


def test_the_model_card_tells_sources_licences_and_verdict_but_no_folder_of_this_machine(
    exporter: Exporter, tmp_path: Path
) -> None:
    done = exporter.export(tmp_path / "adapter", "--version", REFUSED)
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert card.startswith('---\nlicense: "cc0-1.0"\nlibrary_name: "peft"\n')
    for told in (REFUSED, "run-1", "ds-1", "co-1", "names.txt", "It did not pass its gates", "3.0 %", "my-base"):
        assert told in card
    for kept in ("/home/me", "secret-place", str(tmp_path.parent)):
        assert kept not in card


def test_a_folder_that_holds_something_is_left_alone(exporter: Exporter, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = exporter.export(tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stderr)["reason"] == "FOLDER_EXISTS"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_full_disk_leaves_nothing_half_written(exporter: Exporter, tmp_path: Path) -> None:
    argv = exporter.argv(tmp_path / "adapter", "--version", VERSION)
    # A limit on the size of files stands for the disk's: the write of the weights fails in its middle.
    limited = ["bash", "-c", 'ulimit -f 16; exec "$@"', "limited", *argv]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert json.loads(done.stderr)["reason"] == "FILE_ERROR"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_version_and_a_missing_champion_say_what_to_do(exporter: Exporter, tmp_path: Path) -> None:
    done = exporter.export(tmp_path / "adapter", "--version", "mv-none")
    assert (done.returncode, json.loads(done.stderr)["code"]) == (1, "NOT_FOUND")
    argv = exporter.argv(tmp_path / "adapter")
    unnamed = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert json.loads(unnamed.stderr)["reason"] == "NO_CHAMPION"
