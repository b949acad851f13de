"""Training speed against TRL's defaults, and how exact packing is. One table: `python benchmarks/training.py`.

Both train the same LoRA on the same rows, on a Llama with random weights in the shape of `builtin:tiny`, in this one
process. CPU seconds are counted instead of wall time, so that a busy machine does not change the ratio.
"""

from __future__ import annotations

import argparse
import logging
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaForCausalLM, PrinterCallback, set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from tunesmith.domain.runs import TrainingSettings
from tunesmith_trainer.torch_backend.fingerprint import TinyBaseSettings
from tunesmith_trainer.torch_backend.loading import LoadedModel, load_model
from tunesmith_trainer.torch_backend.packing import PackedRowCollator
from tunesmith_trainer.torch_backend.pretraining import llama_config
from tunesmith_trainer.torch_backend.quiet import without_library_warnings, without_progress_bars
from tunesmith_trainer.torch_backend.rows import TokenRow, TrainingRow, tokenize_row
from tunesmith_trainer.torch_backend.tiny_base import byte_tokenizer
from tunesmith_trainer.torch_backend.training import build_trainer

MIN_RATIO = 2.0
MAX_LOGIT_DIFFERENCE = 1e-5
SETTINGS = TrainingSettings(
    adapter_size=16, epochs=1, batch_size=8, max_length=128, early_stopping_patience=0, save_every_steps=1_000_000
)


def main() -> int:
    """Measure, print the table, and return 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--hidden-size", type=int, default=TinyBaseSettings().hidden_size)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    without_progress_bars()

    with tempfile.TemporaryDirectory() as folder:
        base = _random_base(Path(folder) / "base", hidden_size=arguments.hidden_size)
        rows = _rows(arguments.rows)
        num_warmup = min(len(rows), 64)
        _ours_cpu_s(base, rows[:num_warmup], Path(folder))
        theirs = len(rows) / _trl_defaults_cpu_s(base, rows, Path(folder))
        ours = len(rows) / _ours_cpu_s(base, rows, Path(folder))
        difference = _packing_difference(base, rows[:64])

    ratio = ours / theirs
    table = (
        ("TRL defaults, samples per CPU-second", f"{theirs:.1f}", ""),
        ("tunesmith, samples per CPU-second", f"{ours:.1f}", ""),
        ("ratio", f"{ratio:.2f}", f">= {MIN_RATIO}"),
        ("packed and separate logits, largest difference", f"{difference:.1e}", f"<= {MAX_LOGIT_DIFFERENCE:.0e}"),
    )
    for name, value, bar in (("measure", "value", "bar"), *table):
        print(f"{name:<48}{value:>10}  {bar}")
    return 0 if ratio >= MIN_RATIO and difference <= MAX_LOGIT_DIFFERENCE else 1


def _random_base(folder: Path, *, hidden_size: int) -> Path:
    shape = replace(TinyBaseSettings(), hidden_size=hidden_size)
    tokenizer = byte_tokenizer(1024)
    set_seed(0)
    LlamaForCausalLM(llama_config(tokenizer, replace(shape, max_length=1024))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _rows(num_rows: int) -> list[TrainingRow]:
    """Rows with the lengths of real genre names: one to four words."""
    chance = random.Random(0)
    words = ("acid", "afro", "ambient", "house", "jazz", "rumba", "progressive", "trance", "o", "drone", "psychedelic")
    return [
        TrainingRow(f"{i % 1000}->", " ".join(chance.choices(words, k=chance.randint(1, 4))) + "|<stop>|")
        for i in range(num_rows)
    ]


def _ours_cpu_s(base: Path, rows: Sequence[TrainingRow], folder: Path) -> float:
    loaded = load_model(base)
    tokenized = [tokenize_row(loaded.tokenizer, row) for row in rows]
    set_seed(0)
    return _cpu_s(build_trainer(loaded, tokenized, [], SETTINGS, folder / "ours"))


def _trl_defaults_cpu_s(base: Path, rows: Sequence[TrainingRow], folder: Path) -> float:
    loaded = load_model(base)
    set_seed(0)
    # `use_cpu` is what SFTConfig needs without a GPU; the rest only keeps output and disk out of the measurement.
    config = SFTConfig(
        output_dir=str(folder / "trl"),
        use_cpu=not torch.cuda.is_available(),
        num_train_epochs=1,
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    with without_library_warnings():
        trainer = SFTTrainer(
            model=loaded.model,
            args=config,
            train_dataset=Dataset.from_list([{"prompt": row.prompt, "completion": row.completion} for row in rows]),
            processing_class=loaded.tokenizer,
            peft_config=LoraConfig(r=SETTINGS.adapter_size, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
    trainer.remove_callback(PrinterCallback)
    return _cpu_s(trainer)


def _cpu_s(trainer: SFTTrainer) -> float:
    started = time.process_time()
    trainer.train()
    return time.process_time() - started


@torch.no_grad()
def _packing_difference(base: Path, rows: Sequence[TrainingRow]) -> float:
    loaded = load_model(base, dtype="float32")
    tokenized = [tokenize_row(loaded.tokenizer, row) for row in rows]
    packed = {
        "input_ids": [i for row in tokenized for i in row.input_ids],
        "labels": [i for row in tokenized for i in row.labels],
        "seq_lengths": [len(row.input_ids) for row in tokenized],
    }
    batch = PackedRowCollator(int(loaded.tokenizer.pad_token_id or 0))([packed])
    together = loaded.model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
    separate = torch.cat([_logits(loaded, row) for row in tokenized])
    return float((together - separate).abs().max())


def _logits(loaded: LoadedModel, row: TokenRow) -> torch.Tensor:
    logits: torch.Tensor = loaded.model(input_ids=torch.tensor([row.input_ids]), use_cache=False).logits[0]
    return logits


if __name__ == "__main__":
    raise SystemExit(main())
