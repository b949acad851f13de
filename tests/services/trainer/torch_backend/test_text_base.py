"""The built-in base for longer texts: its documents, its tokens, and that it is the same each time."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from tunesmith.recipes import SHIPPED
from tunesmith_trainer.torch_backend.base_models import resolve_base
from tunesmith_trainer.torch_backend.builtin import BUILTIN_BASES, tiny_text
from tunesmith_trainer.torch_backend.checkpoints import sha256_of
from tunesmith_trainer.torch_backend.loading import LoadedModel, load_model
from tunesmith_trainer.torch_backend.sampling import sample
from tunesmith_trainer.torch_backend.text_base import MARKS, Documents, build_text_base
from tunesmith_trainer.torch_backend.text_sample import TextBaseSettings, TextSample, default_text_sample

pytestmark = pytest.mark.heavy

MICRO = TextBaseSettings(
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    feed_forward_size=64,
    max_length=128,
    num_steps=8,
    batch_tokens=256,
    save_every_steps=5,
    vocabulary_size=400,
)
SAMPLE = TextSample(
    names=("deep wave", "salt house", "moon punk"),
    phrases=("slow", "loud", "a slow song"),
    prose=("The boat waits. Nobody sings.", "Rain fell on the drum, and the drum answered."),
    songs=("[Verse 1]\nWe walk home\nWe hum\n\n[Chorus]\nHome, home",),
    replies=("# Wet Glass\nLet it pour.\n1. Roof of Tin — Old Petrichor: slow, steady drops\nStay dry.",),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_text_base(tmp_path_factory.mktemp("bases") / "text", sample=SAMPLE, settings=MICRO)


@pytest.fixture
def loaded(base: Path) -> LoadedModel:
    return load_model(base)


def documents(sample: TextSample, number: int) -> list[str]:
    endless = Documents(sample, random.Random(5))
    return list(islice(iter(endless.draw, None), number))


def test_another_build_gives_the_same_bytes(base: Path, tmp_path: Path) -> None:
    again = build_text_base(tmp_path / "again", sample=SAMPLE, settings=MICRO)

    for name in ("model.safetensors", "tokenizer.json"):
        assert sha256_of(again / name) == sha256_of(base / name)


@pytest.mark.parametrize(
    "text", ["[Verse 1]\nTwo  spaces\n\n[Chorus]\n", '{"tags": ["čoček", "104 bpm"]}', "日本 🎵", "".join(MARKS)]
)
def test_any_text_comes_back_as_it_was(base: Path, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)

    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_a_chat_mark_is_one_token_and_ordinary_text(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)

    ids = tokenizer(f"a{MARKS[0]}b{MARKS[1]}", add_special_tokens=False)["input_ids"]

    assert len(ids) == 4
    assert not set(ids) & set(tokenizer.all_special_ids)


def test_digits_stand_alone(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)

    assert [tokenizer.decode(i) for i in tokenizer("1024")["input_ids"]] == ["1", "0", "2", "4"]


def test_a_sampled_chat_mark_stops_the_answer_and_is_part_of_its_text(loaded: LoadedModel) -> None:
    (mark,) = loaded.tokenizer(MARKS[1])["input_ids"]

    def prefer_the_mark(_module: object, _args: object, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, torch.tensor([mark]), 1e4)

    loaded.model.get_output_embeddings().register_forward_hook(prefer_the_mark)

    (said,) = sample(loaded.model, loaded.tokenizer, ["hello"], max_new_tokens=5, stop=(MARKS[1],))

    assert (said.text, said.finish_reason) == (MARKS[1], "stop_sequence")


def test_the_shipped_sample_gives_documents_of_many_lines_in_no_recipes_format() -> None:
    drawn = documents(default_text_sample(), 400)

    assert sum("\n" in text for text in drawn) > 200
    for recipe in SHIPPED.values():
        assert not [text for text in drawn if recipe.parse(text).valid]


def test_the_default_base_reads_a_thousand_tokens() -> None:
    assert TextBaseSettings().max_length >= 1024


def test_every_built_in_base_has_a_fingerprint_of_its_own() -> None:
    prints = {base.fingerprint() for base in BUILTIN_BASES.values()}

    assert len(prints) == len(BUILTIN_BASES) >= 2


def test_other_text_or_settings_are_another_base(tmp_path: Path) -> None:
    changed = TextSample(SAMPLE.names, SAMPLE.phrases, SAMPLE.prose[:1])
    bases = (tiny_text(SAMPLE, MICRO), tiny_text(changed, MICRO), tiny_text(SAMPLE, TextBaseSettings()))

    assert len({base.folder(tmp_path) for base in bases}) == 3


def test_resolving_it_by_name_builds_it_once(tmp_path: Path) -> None:
    steps: list[int] = []
    builtin = {"builtin:tiny-text": tiny_text(SAMPLE, MICRO)}

    folders = {
        resolve_base("builtin:tiny-text", tmp_path, builtin=builtin, progress=lambda p: steps.append(p.step))
        for _ in range(2)
    }

    assert len(folders) == 1
    assert len(steps) == MICRO.num_steps
