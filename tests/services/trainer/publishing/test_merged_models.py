"""A merged model answers as the adapter on its base did, in this transformers and in that of older stacks."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from answering import answered
from older_stack import python_of_older_stack
from publishable import ARCHITECTURES, NUM_TOKENS, PROMPTS, THETA, build_lora, build_publishable, set_theta

from tunesmith.domain.errors import BaseModelUnavailable
from tunesmith_trainer.torch_backend.loading import load_model
from tunesmith_trainer.torch_backend.merging import save_merged, save_tokenizer


@dataclass(frozen=True)
class Merged:
    folder: Path
    base: Path
    dtype: str
    tokens: list[list[int]]
    """What the adapter on its base answered in the trainer."""


@pytest.fixture(scope="module")
def all_merged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Merged]:
    """By architecture."""
    return {name: merge(tmp_path_factory.mktemp(name), name) for name in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def merged(request: pytest.FixtureRequest, all_merged: dict[str, Merged]) -> Merged:
    return all_merged[request.param]


def merge(folder: Path, architecture: str) -> Merged:
    base = build_publishable(folder / "base", architecture)
    adapter = build_lora(base, folder / "adapter")
    loaded = load_model(base, adapter=adapter, dtype="float32")
    tokens = answered(loaded.model, loaded.tokenizer, list(PROMPTS), NUM_TOKENS)
    dtype = save_merged(base, adapter, folder / "merged")
    return Merged(folder / "merged", base, dtype, tokens)


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name).read_text())


def tokens_of(folder: Path) -> list[list[int]]:
    loaded = load_model(folder, dtype="float32")
    return answered(loaded.model, loaded.tokenizer, list(PROMPTS), NUM_TOKENS)


def test_a_merged_model_gives_the_adapters_greedy_tokens(merged: Merged) -> None:
    assert tokens_of(merged.folder) == merged.tokens
    assert tokens_of(merged.base) != merged.tokens, "the adapter makes a difference"


def test_its_tokens_hang_on_the_rope_theta(merged: Merged, tmp_path: Path) -> None:
    for path in merged.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    set_theta(tmp_path, 10_000.0)
    assert tokens_of(tmp_path) != merged.tokens, "else the tests here would not notice a lost theta"


def test_its_configs_carry_the_names_of_both_generations(merged: Merged) -> None:
    config, tokenizer = read(merged.folder, "config.json"), read(merged.folder, "tokenizer_config.json")
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == THETA
    assert config["torch_dtype"] == config["dtype"] == merged.dtype == "float32"
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "is_local" not in tokenizer
    assert "backend" not in tokenizer
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        row = read(merged.folder, name)
        assert list(row) == sorted(row), name


def test_it_holds_safetensors_and_json_and_nothing_that_runs(merged: Merged) -> None:
    names = {path.name for path in merged.folder.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_merging_twice_gives_the_same_bytes(merged: Merged, tmp_path: Path) -> None:
    save_merged(merged.base, merged.base.parent / "adapter", tmp_path / "again")
    for path in sorted(merged.folder.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_weights_keep_the_number_format_of_the_base(tmp_path: Path) -> None:
    base = build_publishable(tmp_path / "base", "llama", dtype="bfloat16")
    assert save_merged(base, build_lora(base, tmp_path / "adapter"), tmp_path / "merged") == "bfloat16"
    assert read(tmp_path / "merged", "config.json")["torch_dtype"] == "bfloat16"


def test_a_base_without_a_tokenizer_is_refused_with_the_fix(tmp_path: Path) -> None:
    base = build_publishable(tmp_path / "base", "llama")
    for path in base.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(BaseModelUnavailable, match=r"no tokenizer that can be read.*tokenizer\.json"):
        save_tokenizer(base, tmp_path / "published")


@pytest.mark.heavy
def test_transformers_4_51_reads_the_same_models_and_answers_the_same(all_merged: dict[str, Merged]) -> None:
    folders = [str(merged.folder) for merged in all_merged.values()]
    script = Path(__file__).with_name("answering.py")
    done = subprocess.run(
        [str(python_of_older_stack()), str(script), json.dumps(folders), json.dumps(PROMPTS), str(NUM_TOKENS)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for merged, line in zip(all_merged.values(), done.stdout.splitlines(), strict=True):
        told = json.loads(line)
        ours = load_model(merged.folder, dtype="float32").tokenizer
        assert told["transformers"].startswith("4.51.")
        assert told["rope_theta"] == THETA
        assert told["dtype"] == f"torch.{merged.dtype}"
        assert told["tokenizer"] == "PreTrainedTokenizerFast"
        assert told["prompt_ids"] == [ours(prompt)["input_ids"] for prompt in PROMPTS]
        assert told["special"] == [ours.bos_token_id, ours.eos_token_id, ours.pad_token_id]
        assert told["tokens"] == merged.tokens
