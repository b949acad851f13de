"""TRL's trainer in several processes, so that N of them learn what one would.

Each step has the rows that it has in one process, split among all; the loss is normalised over the tokens of all.
accelerate fills an epoch's last batch up with rows from its start, which one process does not: here it is filled with
rows that have no labels, and validation batches are split without any filling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset, concatenate_datasets
from torch.utils.data import DataLoader, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput
from trl.trainer.sft_trainer import SFTTrainer

from tunesmith.domain.errors import InvalidSettings
from tunesmith.domain.runs import TrainingSettings
from tunesmith.jobs.ranks import Rank
from tunesmith_trainer.torch_backend.rows import IGNORED

_FILLER_TOKENS = 8


def split_batch(settings: TrainingSettings, num_processes: int) -> TrainingSettings:
    """The settings with a batch that `num_processes` share evenly: as many rows a step, and no more at once in each.

    Raises InvalidSettings when the rows of a step cannot be shared evenly.
    """
    if settings.batch_size % num_processes == 0:
        return settings
    num_rows = settings.batch_size * settings.gradient_accumulation
    share, rest = divmod(num_rows, num_processes)
    if rest:
        raise InvalidSettings(
            f"batch_size={settings.batch_size} x gradient_accumulation={settings.gradient_accumulation} rows a step "
            f"cannot be shared by {num_processes} processes: make batch_size a multiple of {num_processes}, or train "
            "with a number of processes that divides it (TUNESMITH_TRAINER_PROCESSES; on Kubernetes "
            "TUNESMITH_KUBERNETES_MODEL__PROCESSES and __NODES)",
            metadata={"batch_size": str(settings.batch_size), "processes": str(num_processes)},
        )
    at_once = next(n for n in range(min(share, settings.batch_size), 0, -1) if share % n == 0)
    return replace(settings, batch_size=at_once * num_processes, gradient_accumulation=share // at_once)


class SharedTrainer(SFTTrainer):
    """`SFTTrainer` for one of several processes; the arguments' batch sizes are this process's share."""

    def fill_up(self, pad_token_id: int) -> None:
        """Append rows without labels, for the last batch of an epoch. Call once, after making it."""
        rows = cast(Dataset, self.train_dataset)
        self._num_rows = len(rows)
        batch_rows = self.args.per_device_train_batch_size * self.args.world_size
        filler: dict[str, list[int]] = {
            "input_ids": [pad_token_id] * _FILLER_TOKENS,
            "labels": [IGNORED] * _FILLER_TOKENS,
            "seq_lengths": [_FILLER_TOKENS],
        }
        columns = {name: filler[name] for name in rows.column_names}
        count = -self._num_rows % batch_rows
        if count:
            fillers = Dataset.from_list([columns] * count, features=rows.features)
            self.train_dataset = concatenate_datasets([rows, fillers])

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:  # noqa: ARG002
        num_filled = len(cast(Dataset, self.train_dataset))
        return FilledSampler(self._num_rows, num_filled, seed=int(self.args.data_seed or 0))

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The steps' rows; resumed within an epoch, too, they come in that epoch's order."""
        return told_the_epoch(super().get_train_dataloader())

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],  # noqa: ARG002
        description: str,  # noqa: ARG002
        prediction_loss_only: bool | None = None,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The validation loss as one process has it: batches' mean losses per token, weighted by their rows."""
        rows = self._remove_unused_columns(self.eval_dataset, description="evaluation")
        rank, world = self.args.process_index, self.args.world_size
        batch_rows = self.args.per_device_eval_batch_size * world
        starts = range(0, len(rows), batch_rows)
        sums = torch.zeros(len(starts), 2, device=self.args.device)
        model, collate = cast(torch.nn.Module, self.model), cast(Callable[[Any], Any], self.data_collator)
        model.train(False)
        for number, start in enumerate(starts):
            mine = range(start, min(start + batch_rows, len(rows)))[rank::world]
            if not mine:
                continue
            inputs = self._prepare_inputs(collate([rows[index] for index in mine]))
            with torch.no_grad(), self.compute_loss_context_manager():
                outputs = model(**inputs, use_cache=False, fused_lm_head=True)
            sums[number, 0] = -outputs.log_probs.float().sum()
            sums[number, 1] = outputs.label_mask.sum()
        sums = self.accelerator.reduce(sums, "sum").double().cpu()
        num_rows = torch.tensor([min(batch_rows, len(rows) - start) for start in starts], dtype=torch.float64)
        loss = float((sums[:, 0] / sums[:, 1].clamp(min=1) * num_rows).sum() / len(rows))
        nothing = np.empty(0)
        return EvalLoopOutput(nothing, None, {f"{metric_key_prefix}_loss": loss}, len(rows))


class SeedSteps(TrainerCallback):
    """Seed each step by its number and process, so that dropout differs between processes and is the same after a
    resumption, also on another machine, where their random states are not."""

    def __init__(self, seed: int, rank: Rank) -> None:
        self._seed = seed
        self._rank = rank

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        torch.manual_seed((self._seed * 1_000_003 + state.global_step) * self._rank.of + self._rank.number)


def told_the_epoch(prepared: DataLoader[Any]) -> DataLoader[Any]:
    """A data loader of accelerate's for one of several processes, whose sampler hears of the epoch after a resumption.

    `skip_first_batches` puts a batch sampler around it, and `set_epoch` then looks for the sampler one level too high.
    """
    shard: Any = prepared.batch_sampler
    shard.sampler = shard.batch_sampler.sampler
    return prepared


class FilledSampler(Sampler[int]):
    """The order in which one process meets `num_rows` rows, then the fillers behind them."""

    def __init__(self, num_rows: int, num_filled: int, *, seed: int) -> None:
        self._rows = SeedableRandomSampler(range(num_rows), generator=torch.Generator(), data_seed=seed)
        self._fillers = range(num_rows, num_filled)

    def __iter__(self) -> Iterator[int]:
        yield from self._rows
        yield from self._fillers

    def __len__(self) -> int:
        return len(self._rows) + len(self._fillers)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate at each epoch's start."""
        self._rows.set_epoch(epoch)
