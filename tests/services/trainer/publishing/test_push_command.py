"""`tunesmith push`: what passed its gates goes to a Hub repository; the token goes nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from published_world import RECIPE, REFUSED, VERSION, World

from doubles import hub_server
from doubles.hub_server import TOKEN
from tunesmith.embedded import session

REPO = "me/micro-genres"


@dataclass(frozen=True)
class Pusher:
    """The command line against a server that has judged models, and a Hub."""

    address: str
    hub: hub_server.Hub

    def push(self, version: str, *more: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
        asked = ["--server", self.address, "--json", "push", RECIPE, REPO, "--version", version]
        return subprocess.run(
            [sys.executable, "-m", "tunesmith.cli", *asked, "--endpoint", self.hub.url, *more],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "HF_TOKEN": token},
        )


@pytest.fixture(scope="module")
def pusher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pusher]:
    folder: Path = tmp_path_factory.mktemp("push")
    world = World(folder)
    with session(world.folder / "data") as address, hub_server.serving() as hub:
        yield Pusher(address, hub)


@pytest.mark.heavy
def test_a_version_that_passed_is_pushed_once(pusher: Pusher) -> None:
    first, second = pusher.push(VERSION), pusher.push(VERSION)

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    repository = pusher.hub.repositories[REPO]
    assert json.loads(first.stdout) == {
        "pushed": f"{pusher.hub.url}/{REPO}",
        "commit": repository.head,
        "changed": True,
        "version": VERSION,
    }
    assert json.loads(second.stdout)["changed"] is False
    assert repository.commits[1:] == [f"{RECIPE}: model version {VERSION}"]
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= repository.files.keys()
    assert f'PeftModel.from_pretrained(base, "{REPO}")' in repository.files["README.md"].decode()
    assert TOKEN not in first.stdout + first.stderr + second.stdout + second.stderr


@pytest.mark.heavy
def test_a_version_that_did_not_pass_is_pushed_only_when_that_is_asked_for(pusher: Pusher) -> None:
    before = len(pusher.hub.requests)
    refused = pusher.push(REFUSED)
    assert refused.returncode == 3
    assert json.loads(refused.stdout) == {"pushed": None, "version": REFUSED}
    assert len(pusher.hub.requests) == before, "the Hub hears nothing of it"

    forced = pusher.push(REFUSED, "--although-refused")
    assert forced.returncode == 0, forced.stderr
    assert "It did not pass its gates" in pusher.hub.repositories[REPO].files["README.md"].decode()


def test_a_wrong_token_is_an_error_that_does_not_show_it(pusher: Pusher) -> None:
    done = pusher.push(VERSION, token="hf_not-this-one")
    assert done.returncode == 1
    assert json.loads(done.stderr)["reason"] == "HUB_TOKEN_REFUSED"
    assert "hf_not-this-one" not in done.stdout + done.stderr
