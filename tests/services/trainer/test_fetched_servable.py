"""`tunesmith fetch`: what a server of one version is started with, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tunesmith.adapters.local_store import LocalStore
from tunesmith.cli import root
from tunesmith.cli.options import Globals
from tunesmith.domain import keys
from tunesmith.domain.errors import BaseModelUnavailable, DataLoss, NotFound
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.models import ModelVersion
from tunesmith.servable import fetch_servable

RECIPE, VERSION, FINGERPRINT = "micro_genre", "mv-1", "f" * 64
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}
BASE = {"model.safetensors": b"many weights", "tokenizer.json": b"{}", "config.json": b"{}"}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "data" / "store")
    put_version(store)
    for name, data in FILES.items():
        store.put(f"runs/a/{name}", data)
    for name, data in BASE.items():
        store.put(keys.base_model(FINGERPRINT) + name, data)
    return store


def put_version(store: LocalStore, **changes: Any) -> None:
    given = {"base_model": "builtin:micro", "base_fingerprint": FINGERPRINT} | changes
    digest = hashlib.sha256(FILES["adapter_model.safetensors"]).hexdigest()
    version = ModelVersion(
        id=VERSION,
        recipe=RECIPE,
        run_id="run-1",
        dataset_id="ds-1",
        adapter_key="runs/a/",
        adapter_hash=digest,
        report_id="rep-1",
        passed=True,
        created_at="",
        **given,
    )
    store.put(keys.model_version(RECIPE, VERSION), canonical_json(version.to_json()))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WHOLE = {f"adapters/{VERSION}/{name}": data for name, data in FILES.items()}
WHOLE |= {f"{FINGERPRINT}/{name}": data for name, data in BASE.items()}


def test_the_command_brings_adapter_and_base(store: LocalStore, tmp_path: Path) -> None:
    target = tmp_path / "models"
    argv = ["--data", str(tmp_path / "data"), "--json", "fetch", RECIPE, VERSION, str(target)]
    done = CliRunner().invoke(root, argv, obj=Globals(), catch_exceptions=False)
    assert json.loads(done.stdout)["folders"] == [str(target / "adapters" / VERSION), str(target / FINGERPRINT)]
    assert tree(target) == WHOLE
    assert (target / FINGERPRINT).stat().st_mode & 0o777 == 0o755, "a server of another user reads it"


def test_a_base_of_the_hub_is_left_to_the_server(store: LocalStore, tmp_path: Path) -> None:
    put_version(store, base_model="org/base", base_fingerprint="hub:org/base")
    fetch_servable(store, RECIPE, VERSION, tmp_path / "models")
    assert tree(tmp_path / "models").keys() == {f"adapters/{VERSION}/{name}" for name in FILES}


def test_what_is_there_whole_is_not_fetched_again_and_what_a_kill_left_does_not_count(
    store: LocalStore, tmp_path: Path
) -> None:
    target = tmp_path / "models"
    unfinished = target / "adapters" / ".fetching-x"
    unfinished.mkdir(parents=True)
    (unfinished / "adapter_config.json").write_bytes(b"half")
    fetch_servable(store, RECIPE, VERSION, target)
    store.delete("runs/a/adapter_model.safetensors")
    fetch_servable(store, RECIPE, VERSION, target)
    assert tree(target).items() >= WHOLE.items()


def test_an_adapter_of_other_bytes_is_refused_and_leaves_nothing(store: LocalStore, tmp_path: Path) -> None:
    store.put("runs/a/adapter_model.safetensors", b"other weights")
    with pytest.raises(DataLoss, match="adapter mv-1 is corrupt"):
        fetch_servable(store, RECIPE, VERSION, tmp_path / "models")
    assert tree(tmp_path / "models") == {}


def test_a_base_that_is_not_whole_in_the_store_is_refused(store: LocalStore, tmp_path: Path) -> None:
    store.delete(keys.base_model(FINGERPRINT) + "config.json")
    with pytest.raises(BaseModelUnavailable, match="is not in the store; train a model on it first"):
        fetch_servable(store, RECIPE, VERSION, tmp_path / "models")


def test_a_base_that_was_a_folder_elsewhere_is_refused(store: LocalStore, tmp_path: Path) -> None:
    put_version(store, base_model="/home/me/base", base_fingerprint="e" * 64)
    with pytest.raises(BaseModelUnavailable, match="put the base on the Hub"):
        fetch_servable(store, RECIPE, VERSION, tmp_path / "models")


def test_an_unknown_version_is_named(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="model version 'mv-9' of micro_genre does not exist"):
        fetch_servable(store, RECIPE, "mv-9", tmp_path / "models")
