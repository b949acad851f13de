"""What the model is taught: the stop token, whole rows only, and rows that cannot see each other."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from micro_training import MICRO_TRAINING, NAMES, STOP, micro_rows, micro_train
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tunesmith.domain.errors import InvalidInput, NoUsableRows
from tunesmith_trainer.torch_backend.loading import load_model
from tunesmith_trainer.torch_backend.packing import PackedRowCollator
from tunesmith_trainer.torch_backend.rows import IGNORED, TrainingRow, rows_within, tokenize_row
from tunesmith_trainer.torch_backend.training import TrainingOutcome, train

pytestmark = pytest.mark.heavy


def test_the_stop_token_is_learnt_and_the_prompt_is_not(micro_base: Path) -> None:
    tokenizer = load_model(micro_base).tokenizer

    row = tokenize_row(tokenizer, TrainingRow("7->", f"dust wave{STOP}"))

    learnt = [label for label in row.labels if label != IGNORED]
    assert learnt[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(learnt[:-1]) == f"dust wave{STOP}"
    assert row.labels[:3] == [IGNORED] * 3


def test_packed_rows_give_the_logits_of_separate_rows(micro_base: Path) -> None:
    loaded = load_model(micro_base)
    rows = [tokenize_row(loaded.tokenizer, row) for row in micro_rows(NAMES[:6])]
    halves = (rows[:4], rows[4:])
    packed = [
        {
            "input_ids": [i for row in half for i in row.input_ids],
            "labels": [i for row in half for i in row.labels],
            "seq_lengths": [len(row.input_ids) for row in half],
        }
        for half in halves
    ]

    batch = PackedRowCollator(pad_token_id=loaded.tokenizer.pad_token_id)(packed)
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    with torch.no_grad():
        together = loaded.model(**inputs, use_cache=False).logits
        for half, logits in zip(halves, together, strict=True):
            start = 0
            for row in half:
                alone = loaded.model(input_ids=torch.tensor([row.input_ids]), use_cache=False).logits[0]
                piece = logits[start : start + len(row.input_ids)]
                assert (piece - alone).abs().max() <= 1e-5
                start += len(row.input_ids)


def test_rows_over_max_length_are_dropped_whole_and_counted(micro_base: Path, tmp_path: Path) -> None:
    tokenizer = load_model(micro_base).tokenizer
    long_row = TrainingRow("1->", "x" * 100 + STOP)

    kept, num_dropped = rows_within(tokenizer, [long_row, *micro_rows(NAMES[:3])], max_length=64)
    outcome = train(
        micro_base,
        [long_row, long_row, *micro_rows(NAMES[:16])],
        [long_row, *micro_rows(NAMES[16:20])],
        settings=replace(MICRO_TRAINING, epochs=1),
        work_folder=tmp_path,
        base_name="builtin:tiny",
    )

    assert (len(kept), num_dropped) == (3, 1)
    assert outcome.num_rows_dropped == 3


def test_only_long_rows_are_refused(micro_base: Path, tmp_path: Path) -> None:
    with pytest.raises(NoUsableRows, match="raise max_length"):
        micro_train(micro_base, tmp_path, replace(MICRO_TRAINING, max_length=8))


def test_a_target_module_that_does_not_exist_is_named(micro_base: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'quux'"):
        micro_train(micro_base, tmp_path, replace(MICRO_TRAINING, target_modules="quux"))


# PEFT 0.21 reads an attribute that transformers 5.23 has renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_adapter_loads_with_plain_peft(micro_base: Path, undisturbed: TrainingOutcome) -> None:
    base = AutoModelForCausalLM.from_pretrained(micro_base)
    before = base(torch.tensor([[5, 6, 7]])).logits

    tuned = PeftModel.from_pretrained(base, str(undisturbed.adapter_folder))

    assert not torch.allclose(tuned(torch.tensor([[5, 6, 7]])).logits, before)


def test_the_adapter_folder_has_no_pickles_and_no_path_of_the_machine(
    micro_base: Path, undisturbed: TrainingOutcome
) -> None:
    names = sorted(path.name for path in undisturbed.adapter_folder.iterdir())

    assert names == ["adapter_config.json", "adapter_model.safetensors"]
    config = (undisturbed.adapter_folder / "adapter_config.json").read_text()
    assert '"base_model_name_or_path": "builtin:tiny"' in config
    assert str(micro_base.parent) not in config
