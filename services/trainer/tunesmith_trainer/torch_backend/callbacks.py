"""What happens beside the training steps: metrics, progress, sealed checkpoints, and reasons to stop."""
# ruff: noqa: ARG002  (the arguments are those of TrainerCallback)

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith.domain.errors import Interrupted, InvalidInput
from tunesmith.domain.runs import TrainingProgress, TrainingSettings
from tunesmith_trainer.peers import Peers
from tunesmith_trainer.torch_backend import checkpoints

# Any in the signatures below: transformers hands its callbacks whatever the event has, by name.


class MetricsLog:
    """A file of JSON lines, one a step or evaluation, in order, also across attempts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: dict[str, float | int | None]) -> None:
        """Add one line; a process that dies leaves at most the last line torn."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def cut_after(self, step: int) -> None:
        """Forget what an attempt wrote after the checkpoint that the next one continues from."""
        rows = [row for row in self.rows() if int(row["step"] or 0) <= step]
        unfinished = self.path.with_suffix(".tmp")
        unfinished.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        unfinished.replace(self.path)

    def rows(self) -> list[dict[str, float | int | None]]:
        """All whole lines."""
        found = []
        for line in self.path.read_text("utf-8").splitlines() if self.path.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return found

    def last_train_loss(self) -> float:
        """Mean training loss over the last tenth of the steps."""
        losses = [float(row["train_loss"]) for row in self.rows() if row["train_loss"] is not None]
        tail = losses[-max(1, len(losses) // 10) :]
        return sum(tail) / len(tail) if tail else math.nan


class ReportProgress(TrainerCallback):
    """Every log entry as a line of metrics and a call of `progress`."""

    def __init__(self, metrics: MetricsLog, progress: Callable[[TrainingProgress], None] | None) -> None:
        self._metrics = metrics
        self._progress = progress
        self._num_tokens = 0.0
        self._last_at = time.monotonic()
        self._tokens_per_s = 0.0
        self._learning_rate = 0.0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not logs or not ("loss" in logs or "eval_loss" in logs):
            return
        if "loss" in logs:
            now, num_tokens = time.monotonic(), logs.get("num_tokens", 0.0)
            self._tokens_per_s = max(0.0, num_tokens - self._num_tokens) / max(1e-9, now - self._last_at)
            self._last_at, self._num_tokens = now, num_tokens
            self._learning_rate = logs.get("learning_rate", 0.0)
        current = TrainingProgress(
            phase="tune",
            step=state.global_step,
            num_steps=state.max_steps,
            epoch=float(state.epoch or 0.0),
            train_loss=logs.get("loss"),
            validation_loss=logs.get("eval_loss"),
            learning_rate=self._learning_rate,
            tokens_per_s=self._tokens_per_s,
        )
        self._metrics.append(
            {
                "step": current.step,
                "epoch": current.epoch,
                "train_loss": current.train_loss,
                "validation_loss": current.validation_loss,
                "learning_rate": current.learning_rate,
                "tokens_per_s": round(current.tokens_per_s, 1),
            }
        )
        if self._progress is not None:
            self._progress(current)


class SealCheckpoints(TrainerCallback):
    """Seal each checkpoint once it is written, and take one (and an evaluation) at the very last step."""

    def __init__(self, peers: Peers, on_sealed: Callable[[Path], None] | None = None) -> None:
        self._peers = peers
        self._on_sealed = on_sealed

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if state.global_step >= state.max_steps:
            control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._peers.wait()  # each writes its random state into the folder
        if not self._peers.rank.leads:
            return
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        checkpoints.seal(folder)
        if self._on_sealed is not None:
            self._on_sealed(folder)


class StopOnRequest(TrainerCallback):
    """Ask after each step whether to stop; if so, save and raise Interrupted. Add after SealCheckpoints.

    All processes of a training stop at the same step, also when only one was asked to.
    """

    def __init__(self, peers: Peers, should_stop: Callable[[], bool] | None) -> None:
        self._peers = peers
        self._should_stop = should_stop
        self._stopping = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if self._peers.agree_to_stop(self._should_stop is not None and self._should_stop()):
            self._stopping = control.should_save = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._stopping:
            self._peers.wait()  # until the first has sealed and stored it
            raise Interrupted(
                f"training was asked to stop at step {state.global_step} of {state.max_steps}; "
                "the next attempt continues from there"
            )


class StopOnUnusableLoss(TrainerCallback):
    """Raise InvalidInput at the first loss that is not a finite number: every later step would be wasted."""

    def __init__(self, settings: TrainingSettings) -> None:
        self._settings = settings

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        for name in ("loss", "grad_norm", "eval_loss"):
            value = (logs or {}).get(name, 0.0)
            if not math.isfinite(value):
                rate = self._settings.learning_rate * self._settings.learning_rate_multiplier
                raise InvalidInput(
                    f"{name} became {value} at step {state.global_step} of {state.max_steps}: lower the learning rate "
                    f"(now {rate:g}), raise warmup_share, or use dtype=float32",
                    reason="LOSS_NOT_FINITE",
                    metadata={"step": str(state.global_step), "learning_rate": f"{rate:g}"},
                )
