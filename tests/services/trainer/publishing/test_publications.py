"""A model version's files come together in the store, once, from the adapter that was judged on the base it had."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from publishable import build_lora, build_publishable
from published_world import World

from tunesmith.domain.errors import (
    BaseModelUnavailable,
    DataLoss,
    FailedPrecondition,
    Interrupted,
    NotFound,
    TunesmithError,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_adapter_is_published_as_peft_writes_it_with_the_tokenizer(world: World) -> None:
    made, reused = world.publish("adapter")
    assert not reused
    assert [file.name for file in made.files] == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for file in made.files:
        data = world.bytes_of(made, file.name)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size_bytes, file.sha256)
    weights = next(file for file in made.files if file.name == "adapter_model.safetensors")
    assert weights.sha256 == world.adapter_hash


def test_an_adapters_config_is_sorted_and_names_no_folder_of_this_machine(world: World) -> None:
    made, _ = world.publish("adapter")
    config = json.loads(world.bytes_of(made, "adapter_config.json"))
    assert list(config) == sorted(config)
    assert config["base_model_name_or_path"] == "my-base"
    assert str(world.folder) not in world.bytes_of(made, "adapter_config.json").decode()


def test_a_merged_model_is_published_with_progress_and_found_the_second_time(world: World) -> None:
    made, reused = world.publish("merged")
    assert (made.dtype, reused) == ("float32", False)
    assert {progress.stage for progress in world.progress} == {"load", "merge", "store"}
    world.progress.clear()
    assert world.publish("merged") == (made, True)
    assert world.progress == []


def test_nothing_is_left_of_a_publication_that_was_stopped(world: World) -> None:
    with pytest.raises(Interrupted):
        world.publish("adapter", should_stop=lambda: True)
    assert world.num_publications() == 0
    assert not (world.folder / "scratch").exists()
    assert world.publish("adapter")[1] is False


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda w: shutil.rmtree(w.base), NotFound, "is not on this machine any more; put the folder back"),
        (
            lambda w: (w.base / "extra.json").write_text("{}"),
            FailedPrecondition,
            "is another one than version mv-passed was trained on",
        ),
        (
            lambda w: w.store.put(w.adapter_key + "adapter_model.safetensors", b"others"),
            DataLoss,
            "is corrupt.*tune it again",
        ),
    ],
    ids=["base gone", "base of another fingerprint", "adapter of other bytes"],
)
def test_a_version_that_is_no_longer_what_was_judged_is_not_published(
    world: World, spoil: Callable[[World], object], error: type[TunesmithError], words: str
) -> None:
    spoil(world)
    with pytest.raises(error, match=words):
        world.publish("merged")
    assert world.num_publications() == 0


def test_an_adapter_of_another_base_is_refused(world: World, tmp_path: Path) -> None:
    other = build_publishable(tmp_path / "other", "qwen3")
    other_adapter = build_lora(other, tmp_path / "other-adapter")
    config = json.loads((other_adapter / "adapter_config.json").read_text()) | {"r": 8}
    world.store.put(world.adapter_key + "adapter_config.json", json.dumps(config).encode())
    with pytest.raises(DataLoss, match="cannot be put on this base model"):
        world.publish("merged")


def test_a_base_without_a_tokenizer_is_named_with_the_fix(world: World) -> None:
    for path in world.base.glob("tokenizer*"):
        path.unlink()
    world.put_version("mv-bare", passed=True)
    with pytest.raises(BaseModelUnavailable, match=r"no tokenizer that can be read.*put tokenizer\.json"):
        world.publish("adapter", version="mv-bare")
