"""The built-in base, and bases that cannot be loaded."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from micro_training import MICRO_BASE, NAMES, micro_text
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunesmith.domain.errors import BaseModelUnavailable, Interrupted
from tunesmith.domain.examples import split_bucket
from tunesmith_trainer.torch_backend.base_models import resolve_base
from tunesmith_trainer.torch_backend.builtin import tiny
from tunesmith_trainer.torch_backend.checkpoints import sha256_of
from tunesmith_trainer.torch_backend.fingerprint import sample_text
from tunesmith_trainer.torch_backend.loading import load_model
from tunesmith_trainer.torch_backend.tiny_base import build_tiny_base

pytestmark = pytest.mark.heavy


def test_an_interrupted_build_continues_to_the_identical_base(micro_base: Path, tmp_path: Path) -> None:
    stops = iter([False] * 7)
    with pytest.raises(Interrupted, match="step 8 of 12"):
        build_tiny_base(
            tmp_path / "base", text=micro_text(), settings=MICRO_BASE, should_stop=lambda: next(stops, True)
        )
    steps: list[int] = []

    built = build_tiny_base(
        tmp_path / "base", text=micro_text(), settings=MICRO_BASE, progress=lambda p: steps.append(p.step)
    )

    assert steps == [9, 10, 11, 12]
    assert sha256_of(built / "model.safetensors") == sha256_of(micro_base / "model.safetensors")


def test_the_built_base_loads_plainly_and_reads_any_text(micro_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(micro_base)
    AutoModelForCausalLM.from_pretrained(micro_base)

    for text in ("7->čoček|<stop>|", "  two  spaces\n", "日本 🎵"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_sample_text_leaves_out_what_a_dataset_holds_out() -> None:
    held_out = next(name for name in NAMES if split_bucket(name) != "train")
    phrase = next(p for i in range(99) if split_bucket(p := f"they play {held_out} number {i}") == "train")

    text = sample_text(NAMES, [phrase, held_out, "the drum and the bass"])

    assert held_out not in text.names
    assert all(split_bucket(name) == "train" for name in (*text.names, *text.phrases))
    assert phrase not in text.phrases


def test_resolving_the_built_in_base_twice_builds_it_once(tmp_path: Path) -> None:
    steps: list[int] = []

    for _ in range(2):
        folder = resolve_base(
            "builtin:tiny",
            tmp_path,
            builtin={"builtin:tiny": tiny(micro_text(), MICRO_BASE)},
            progress=lambda p: steps.append(p.step),
        )

    assert len(steps) == MICRO_BASE.num_steps
    assert load_model(folder).model.config.vocab_size == 258


@pytest.mark.parametrize("name", ["builtin:huge", "/no/such/folder", "not a name!", "./nowhere"])
def test_a_name_that_cannot_be_a_base_gives_the_named_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelUnavailable) as caught:
        resolve_base(name, tmp_path)

    assert repr(name) in caught.value.message
    assert caught.value.metadata == {"base_model": name}


def test_a_folder_without_weights_gives_the_named_error(micro_base: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(micro_base, tmp_path / "broken")
    (broken / "model.safetensors").unlink()

    with pytest.raises(BaseModelUnavailable, match="safetensors"):
        load_model(resolve_base(str(broken), tmp_path))


def test_cut_off_weights_give_the_named_error(micro_base: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(micro_base, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])

    with pytest.raises(BaseModelUnavailable, match="broken"):
        load_model(broken)


def test_pickled_weights_are_refused(micro_base: Path, tmp_path: Path) -> None:
    pickled = shutil.copytree(micro_base, tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save(load_model(micro_base).model.state_dict(), pickled / "pytorch_model.bin")

    with pytest.raises(BaseModelUnavailable, match="pickled weights are refused"):
        load_model(pickled)


def test_a_model_with_code_of_its_own_is_refused(micro_base: Path, tmp_path: Path) -> None:
    custom = shutil.copytree(micro_base, tmp_path / "custom")
    config = json.loads((custom / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (custom / "config.json").write_text(json.dumps(config))
    (custom / "own.py").write_text("raise SystemExit('this must never run')")

    with pytest.raises(BaseModelUnavailable, match="code of its own"):
        load_model(custom)


def test_an_unreachable_hub_gives_the_named_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(BaseModelUnavailable, match=r"hub did not provide it.*give a local folder"):
        load_model(resolve_base("nobody/no-such-model", tmp_path))


def test_the_fingerprint_needs_no_torch() -> None:
    code = (
        "import sys; from tunesmith_trainer.torch_backend.fingerprint import tiny_base_fingerprint;"
        "assert not {'torch', 'transformers', 'peft', 'trl', 'tokenizers'} & sys.modules.keys()"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
