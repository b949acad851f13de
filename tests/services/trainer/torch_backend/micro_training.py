"""A base and a training so small that a test can afford them. Run as a program, it trains in a child process."""

from __future__ import annotations

import sys
from pathlib import Path

from tunesmith.domain.runs import TrainingSettings
from tunesmith_trainer.torch_backend.fingerprint import SampleText, TinyBaseSettings, sample_text
from tunesmith_trainer.torch_backend.rows import TrainingRow
from tunesmith_trainer.torch_backend.training import TrainingOutcome, train

STOP = "|<stop>|"
MICRO_BASE = TinyBaseSettings(
    hidden_size=32, num_layers=2, num_heads=2, feed_forward_size=64, num_steps=12, batch_tokens=200, save_every_steps=5
)
MICRO_TRAINING = TrainingSettings(
    adapter_size=4,
    adapter_alpha=8,
    adapter_dropout=0.1,
    learning_rate=5e-3,
    epochs=6,
    batch_size=4,
    max_length=64,
    eval_every_steps=4,
    save_every_steps=4,
    early_stopping_patience=0,
)
_FIRST = ("deep", "slow", "neon", "dust", "salt", "moon", "acid", "folk", "tape", "glass")
_SECOND = ("wave", "core", "step", "house", "jazz", "drone", "pop", "punk")
NAMES = tuple(f"{a} {b}" for a in _FIRST for b in _SECOND)


def micro_text() -> SampleText:
    return sample_text(NAMES, [*_FIRST, *_SECOND, "a slow song", "the drum and the bass"])


def micro_rows(names: tuple[str, ...] = NAMES) -> list[TrainingRow]:
    return [TrainingRow(f"{i}->", f"{name}{STOP}") for i, name in enumerate(names)]


def micro_train(
    base: Path, work_folder: Path, settings: TrainingSettings = MICRO_TRAINING, **more: object
) -> TrainingOutcome:
    return train(
        base,
        micro_rows(NAMES[:64]),
        micro_rows(NAMES[64:]),
        settings=settings,
        work_folder=work_folder,
        base_name="builtin:tiny",
        **more,  # type: ignore[arg-type]
    )


if __name__ == "__main__":
    micro_train(Path(sys.argv[1]), Path(sys.argv[2]))
