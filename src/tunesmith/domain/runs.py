"""Runs: one training each, from dataset, base model and settings to an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.overrides import Ranges, check_ranges, with_overrides

DType = Literal["auto", "float32", "bfloat16"]

FollowUp = Literal["none", "judge", "promote"]
"""What follows a run that succeeded; `promote` judges it and promotes it when every gate passes."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Everything that decides a run's adapter beside data and base model."""

    adapter_size: int = 16
    """LoRA rank r, 1 to 256."""
    adapter_alpha: float = 32.0
    """LoRA alpha; the update is scaled by alpha / r."""
    adapter_dropout: float = 0.0
    """Dropout on the adapter's input, 0 to 0.9."""
    target_modules: str = "all-linear"
    """`all-linear`, or names joined by commas."""
    learning_rate: float = 2e-4
    """Peak learning rate before the multiplier."""
    learning_rate_multiplier: float = 1.0
    """Scales `learning_rate`, as tuning APIs call it; 0.01 to 100."""
    epochs: float = 0.0
    """Passes over the training rows; 0 chooses by their number, so that the recipe's `examples_shown` are shown."""
    batch_size: int = 16
    """Sequences a step (packed sequences, where packing is on)."""
    gradient_accumulation: int = 1
    warmup_share: float = 0.05
    """Share of all steps spent on warm-up, 0 to 0.5."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_length: int = 256
    """Tokens a sequence; longer rows are dropped and counted."""
    packing: bool = True
    early_stopping_patience: int = 3
    """Evaluations without a better validation loss before stopping; 0 turns it off."""
    eval_every_steps: int = 25
    save_every_steps: int = 25
    seed: int = 42
    dtype: DType = "auto"
    """`auto` uses bfloat16 where a probe finds it faster."""

    def to_json(self) -> dict[str, Any]:
        """The settings by field name."""
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> TrainingSettings:
        """The inverse of `to_json`; unknown names raise InvalidInput."""
        return TrainingSettings().changed(row)

    def changed(self, overrides: Mapping[str, Any]) -> TrainingSettings:
        """A copy with `overrides` applied and checked; InvalidInput names the setting, the value and the range."""
        settings = with_overrides(self, overrides, what="training", ranges=_RANGES)
        settings.check()
        return settings

    def with_epochs_for(self, num_examples: int, *, examples_shown: int) -> TrainingSettings:
        """These settings with `epochs` 0 replaced: between 1 and MAX_AUTO_EPOCHS, to two places."""
        if self.epochs:
            return self
        return replace(self, epochs=round(min(MAX_AUTO_EPOCHS, max(1.0, examples_shown / max(1, num_examples))), 2))

    def check(self) -> None:
        """Raise InvalidInput for the first setting out of its range."""
        check_ranges(self, what="training", ranges=_RANGES)
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise InvalidInput(
                f"training setting dtype={self.dtype!r} is unknown: use auto, float32 or bfloat16",
                metadata={"field": "dtype", "value": str(self.dtype)},
            )


MAX_AUTO_EPOCHS = 10.0
"""More passes over few rows teach a model to recite them."""

_RANGES: Ranges = {
    "adapter_size": (1, 256),
    "adapter_alpha": (0.01, 4096),
    "adapter_dropout": (0, 0.9),
    "learning_rate": (1e-7, 1.0),
    "learning_rate_multiplier": (0.01, 100),
    "epochs": (0, 1000),
    "batch_size": (1, 4096),
    "gradient_accumulation": (1, 4096),
    "warmup_share": (0, 0.5),
    "weight_decay": (0, 1),
    "max_grad_norm": (0.001, 1000),
    "max_length": (8, 131072),
    "early_stopping_patience": (0, 1000),
    "eval_every_steps": (1, 1_000_000),
    "save_every_steps": (1, 1_000_000),
    "seed": (0, 2**32 - 1),
}


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """One step of live progress. Losses are mean natural-log loss per completion token."""

    phase: Literal["base", "tune"]
    step: int
    num_steps: int
    epoch: float
    train_loss: float | None
    validation_loss: float | None
    learning_rate: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """The outcome of one training."""

    id: str
    recipe: str
    dataset_id: str
    base_model: str
    settings: Mapping[str, Any]
    adapter_key: str
    """Prefix of the adapter's files in the store."""
    adapter_hash: str
    """Hex SHA-256 of adapter_model.safetensors."""
    base_fingerprint: str
    """What exactly `base_model` named: its content hash, or Hub id and commit."""
    metrics_key: str
    num_steps: int
    stopped_early: bool
    num_rows_dropped: int
    """Rows longer than max_length."""
    train_loss: float
    validation_loss: float | None
    """Of the adapter; None without validation rows."""
    created_at: str

    def to_json(self) -> dict[str, Any]:
        """The run as its object in the store."""
        row = asdict(self)
        row["settings"] = dict(self.settings)
        return row

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Run:
        """The inverse of `to_json`."""
        return Run(**{f.name: row[f.name] for f in fields(Run)})
