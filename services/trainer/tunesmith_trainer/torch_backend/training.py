"""The training loop, as a story: tokenise, load, wrap, train with checkpoints, hand over the best adapter.

TRL's `SFTTrainer` with PEFT's LoRA does the work; what is here makes it survive. The loop starts where a killed one
was, takes smaller steps when memory runs out, stops on request, and ends early when validation stops improving.
"""

from __future__ import annotations

import gc
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback, set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from tunesmith.domain.errors import (
    Interrupted,
    InvalidInput,
    MemoryRanOut,
    NoUsableRows,
    ResourceExhausted,
    Unavailable,
)
from tunesmith.domain.runs import DType, TrainingProgress, TrainingSettings
from tunesmith.jobs.ranks import Rank
from tunesmith_trainer.peers import Peers
from tunesmith_trainer.torch_backend import checkpoints
from tunesmith_trainer.torch_backend.adapter_folder import write_adapter
from tunesmith_trainer.torch_backend.callbacks import (
    MetricsLog,
    ReportProgress,
    SealCheckpoints,
    StopOnRequest,
    StopOnUnusableLoss,
)
from tunesmith_trainer.torch_backend.loading import LoadedModel, dtype_of, load_model
from tunesmith_trainer.torch_backend.packing import PackedRowCollator
from tunesmith_trainer.torch_backend.quiet import without_library_warnings, without_progress_bars
from tunesmith_trainer.torch_backend.rows import TokenRow, TrainingRow, as_columns, rows_within
from tunesmith_trainer.torch_backend.shared_training import SeedSteps, SharedTrainer, split_batch

logger = logging.getLogger(__name__)

_KEPT_CHECKPOINTS = 5
_DTYPE_FILE = "dtype"


@dataclass(frozen=True, slots=True)
class TrainingOutcome:
    """A finished training. Losses are mean natural-log loss per completion token."""

    adapter_folder: Path
    """Holds adapter_model.safetensors and adapter_config.json, nothing else."""
    adapter_hash: str
    """Hex SHA-256 of adapter_model.safetensors."""
    metrics_path: Path
    """JSON lines, one a step or evaluation."""
    num_steps: int
    best_step: int
    """The step whose weights the adapter has."""
    stopped_early: bool
    num_rows_dropped: int
    """Rows, of both splits, longer than max_length."""
    train_loss: float
    """Mean over the last tenth of the steps."""
    validation_loss: float
    """Of the adapter; NaN without validation rows."""
    batch_size: int
    """Smaller than asked for when memory ran out; gradient accumulation made up for it."""
    dtype: str


def train(
    base: str | Path,
    train_rows: Sequence[TrainingRow],
    validation_rows: Sequence[TrainingRow],
    *,
    settings: TrainingSettings,
    work_folder: Path,
    base_name: str,
    progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_sealed: Callable[[Path], None] | None = None,
    memory_kills: int = 0,
    extra_callbacks: Sequence[TrainerCallback] = (),
    peers: Peers | None = None,
) -> TrainingOutcome:
    """Fine-tune a LoRA adapter on prompt and completion rows; the loss counts completions only.

    `base` is what `resolve_base` returned, `base_name` what the adapter's config shall call it. Calling again with
    the same arguments and `work_folder` continues after the newest whole checkpoint; the same rows, settings and
    machine give the same adapter bytes, however often the work was cut off. `progress` is called after each step and
    evaluation, `on_sealed` with the folder of each whole checkpoint. With validation rows, the adapter has the weights
    of the best evaluation, and every evaluation saves. For each of `memory_kills`, the attempts that the system killed
    for their memory, the batch is made in smaller parts, with the same rows a step. `peers` are the processes that
    train along by `help_train`: each step's rows are split among all, and it may go on with another number of them.

    Raises Interrupted (after saving) once `should_stop()` is true, or when a peer is gone, MemoryRanOut when one of
    several runs out of memory; InvalidSettings when they cannot share the batch; NoUsableRows when no row fits
    max_length; InvalidInput when the loss stops being a number or a target module does not exist; ResourceExhausted
    when memory runs out at batch size 1.
    """
    metrics = MetricsLog(work_folder / "metrics.jsonl")
    fitted = _fit(
        base,
        train_rows,
        validation_rows,
        settings=settings,
        work_folder=work_folder,
        peers=peers or Peers(),
        metrics=metrics,
        progress=progress,
        should_stop=should_stop,
        on_sealed=on_sealed,
        memory_kills=memory_kills,
        extra_callbacks=extra_callbacks,
    )
    run_folder = work_folder / "checkpoints"
    last = checkpoints.newest_intact(run_folder)
    assert last is not None, "the last step always saves a checkpoint"
    state = _state_of(last)
    best_step = int(state["best_global_step"] or 0) if fitted.has_validation else 0
    best = run_folder / f"checkpoint-{best_step}" if best_step else last
    adapter_folder = work_folder / "adapter"
    write_adapter(best, adapter_folder, base_name=base_name)
    return TrainingOutcome(
        adapter_folder=adapter_folder,
        adapter_hash=checkpoints.sha256_of(adapter_folder / "adapter_model.safetensors"),
        metrics_path=metrics.path,
        num_steps=checkpoints.step_of(last),
        best_step=checkpoints.step_of(best),
        stopped_early=checkpoints.step_of(last) < int(state["max_steps"]),
        num_rows_dropped=fitted.num_dropped,
        train_loss=metrics.last_train_loss(),
        validation_loss=float(state["best_metric"]) if fitted.has_validation else math.nan,
        batch_size=fitted.plan.batch_size,
        dtype=_dtype_name(fitted.dtype),
    )


def help_train(
    base: str | Path,
    train_rows: Sequence[TrainingRow],
    validation_rows: Sequence[TrainingRow],
    *,
    settings: TrainingSettings,
    work_folder: Path,
    peers: Peers,
    should_stop: Callable[[], bool] | None = None,
    memory_kills: int = 0,
) -> None:
    """Take part in the training that another process does by `train` with the same arguments; hands over nothing."""
    _fit(
        base,
        train_rows,
        validation_rows,
        settings=settings,
        work_folder=work_folder,
        peers=peers,
        should_stop=should_stop,
        memory_kills=memory_kills,
    )


@dataclass(frozen=True, slots=True)
class _Fitted:
    plan: TrainingSettings
    """The settings with the batch as it was made in the end."""
    dtype: torch.dtype
    has_validation: bool
    num_dropped: int


def _fit(
    base: str | Path,
    train_rows: Sequence[TrainingRow],
    validation_rows: Sequence[TrainingRow],
    *,
    settings: TrainingSettings,
    work_folder: Path,
    peers: Peers,
    metrics: MetricsLog | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_sealed: Callable[[Path], None] | None = None,
    memory_kills: int = 0,
    extra_callbacks: Sequence[TrainerCallback] = (),
) -> _Fitted:
    """Train from the newest whole checkpoint to the last step, which leaves one; `metrics` where this process leads."""
    settings.check()
    without_progress_bars()
    run_folder = work_folder / "checkpoints"
    work_folder.mkdir(parents=True, exist_ok=True)

    plan = split_batch(settings, peers.rank.of)
    for _ in range(memory_kills):
        plan = _with_smaller_batch(plan, None, num_processes=peers.rank.of)
    while True:
        dtype = peers.all_know(lambda: _chosen_dtype(base, settings, work_folder))
        loaded = load_model(base, dtype=dtype)
        rows, num_train_dropped = rows_within(loaded.tokenizer, train_rows, max_length=settings.max_length)
        held_out, num_held_out_dropped = rows_within(loaded.tokenizer, validation_rows, max_length=settings.max_length)
        num_dropped = num_train_dropped + num_held_out_dropped
        if num_dropped:
            logger.warning("%d rows have more than %d tokens and are left out", num_dropped, settings.max_length)
        if not rows:
            raise NoUsableRows(
                f"none of {len(train_rows)} training rows fits max_length={settings.max_length}: raise max_length",
                metadata={"too_long": str(num_train_dropped)},
            )

        checkpoint = _common_checkpoint(run_folder, peers)
        if metrics is not None:
            metrics.cut_after(checkpoints.step_of(checkpoint) if checkpoint else 0)
        # Before the adapter is made: its random start belongs to what a seed decides.
        set_seed(plan.seed)
        trainer = build_trainer(loaded, rows, held_out, plan, run_folder, rank=peers.rank)
        for callback in (
            StopOnUnusableLoss(plan),
            *([ReportProgress(metrics, progress)] if metrics is not None else []),
            SealCheckpoints(peers, on_sealed),
            StopOnRequest(peers, should_stop),
            *extra_callbacks,
        ):
            trainer.add_callback(callback)
        if checkpoint is not None and _is_finished(checkpoint, plan):
            logger.info("training was already finished at %s", checkpoint.name)
            break
        if checkpoint is not None:
            logger.info("continuing after %s", checkpoint.name)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            break
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if peers.is_lost(error):
                raise Interrupted(f"another process of this training is gone: {error}") from error
            if not _is_out_of_memory(error):
                raise
            if not peers.rank.is_alone:
                # The others are in the middle of the same step, and cannot be told.
                raise MemoryRanOut(f"memory ran out at {plan.batch_size // peers.rank.of} rows a process") from error
            plan = _with_smaller_batch(plan, error)
        # Outside of the handler, whose traceback keeps every tensor of the failed step alive.
        del trainer, loaded
        _free_memory()
    return _Fitted(plan, loaded.dtype, bool(held_out), num_dropped)


def _chosen_dtype(base: str | Path, settings: TrainingSettings, work_folder: Path) -> DType:
    """The format to train in: `auto` is decided once a run, since another attempt might measure otherwise."""
    path = work_folder / _DTYPE_FILE
    written = path.read_text("utf-8") if path.is_file() else ""
    if written == "bfloat16" or written == "float32":
        return cast(DType, written)
    chosen = _dtype_name(dtype_of(base, settings.dtype))
    path.write_text(chosen, "utf-8")
    return cast(DType, chosen)


def _common_checkpoint(run_folder: Path, peers: Peers) -> Path | None:
    """The newest whole checkpoint of the first process, which every node must have; Unavailable when one has not."""

    def newest() -> str:
        found = checkpoints.newest_intact(run_folder)
        return found.name if found else ""

    name = peers.all_know(newest)

    def look() -> None:
        if name and not checkpoints.is_intact(run_folder / name):
            raise Unavailable(f"node of process {peers.rank.number} has not {name}, which the first one goes on from")

    peers.once_a_node(look)
    return run_folder / name if name else None


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def build_trainer(
    loaded: LoadedModel,
    rows: Sequence[TokenRow],
    held_out: Sequence[TokenRow],
    settings: TrainingSettings,
    run_folder: Path,
    *,
    rank: Rank | None = None,
) -> SFTTrainer:
    """TRL's trainer as this project sets it up, without callbacks that report; `loaded.model` gets the adapter."""
    rank = rank or Rank()
    share = replace(settings, batch_size=settings.batch_size // rank.of)
    try:
        with without_library_warnings():
            trainer = (SFTTrainer if rank.is_alone else SharedTrainer)(
                model=loaded.model,
                args=_sft_config(share, run_folder, dtype=loaded.dtype, has_validation=bool(held_out)),
                train_dataset=Dataset.from_list(as_columns(rows)),
                eval_dataset=Dataset.from_list(as_columns(held_out)) if held_out else None,
                processing_class=loaded.tokenizer,
                peft_config=_lora_config(settings),
            )
    except ValueError as error:
        if "target modules" not in str(error).lower():
            raise
        raise InvalidInput(
            f"training setting target_modules={settings.target_modules!r} names no layer of this base model: "
            "use all-linear, or names of its linear layers",
            metadata={"setting": "target_modules", "value": settings.target_modules},
        ) from error
    pad_token_id = int(loaded.tokenizer.pad_token_id or 0)
    if settings.packing:
        trainer.data_collator = PackedRowCollator(pad_token_id)
    if isinstance(trainer, SharedTrainer):
        trainer.fill_up(pad_token_id)
        trainer.add_callback(SeedSteps(settings.seed, rank))
    if held_out and settings.early_stopping_patience > 0:
        trainer.add_callback(EarlyStoppingCallback(settings.early_stopping_patience))
    trainer.remove_callback(PrinterCallback)
    return trainer


def _sft_config(settings: TrainingSettings, run_folder: Path, *, dtype: torch.dtype, has_validation: bool) -> SFTConfig:
    on_gpu = torch.cuda.is_available()
    # The best weights can only be handed over if they were saved, so with validation every evaluation saves as well.
    save_steps = settings.eval_every_steps if has_validation else settings.save_every_steps
    config = SFTConfig(
        output_dir=str(run_folder),
        use_cpu=not on_gpu,
        bf16=dtype == torch.bfloat16,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate * settings.learning_rate_multiplier,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_share,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused",
        max_length=settings.max_length,
        packing=settings.packing,
        packing_strategy="bfd",
        # Recomputing activations trades time for memory that adapters of this size do not need; measured -30 % time.
        activation_checkpointing=False,
        eval_strategy="steps" if has_validation else "no",
        eval_steps=settings.eval_every_steps,
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=_KEPT_CHECKPOINTS,
        load_best_model_at_end=has_validation,
        metric_for_best_model="eval_loss" if has_validation else None,
        greater_is_better=False if has_validation else None,
        restore_callback_states_from_checkpoint=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=on_gpu,
        # An adapter takes part in every step with all its weights.
        ddp_find_unused_parameters=False,
        seed=settings.seed,
        data_seed=settings.seed,
    )
    if config.n_gpu > 1:
        # One process uses one GPU: transformers would spread the model over all, with as many times the batch.
        config._n_gpu = 1
    return config


def _lora_config(settings: TrainingSettings) -> LoraConfig:
    target = settings.target_modules
    return LoraConfig(
        r=settings.adapter_size,
        # The annotation says int; the scale alpha / r is a float anyway.
        lora_alpha=settings.adapter_alpha,  # type: ignore[arg-type]
        lora_dropout=settings.adapter_dropout,
        target_modules=target if target == "all-linear" else [name.strip() for name in target.split(",")],
        task_type="CAUSAL_LM",
    )


def _with_smaller_batch(
    plan: TrainingSettings, error: BaseException | None, *, num_processes: int = 1
) -> TrainingSettings:
    """The batch in parts, half as large where that leaves no row over: every step still learns from the same rows."""
    share = plan.batch_size // num_processes
    if share == 1:
        raise ResourceExhausted(
            f"memory ran out at batch size 1 with max_length={plan.max_length}: lower max_length or adapter_size, "
            "choose a smaller base model, or give the training more memory",
            reason="OUT_OF_MEMORY",
            metadata={"batch_size": "1", "max_length": str(plan.max_length)},
        ) from error
    parts = next(n for n in range(2, share + 1) if share % n == 0)
    smaller = replace(
        plan, batch_size=plan.batch_size // parts, gradient_accumulation=plan.gradient_accumulation * parts
    )
    logger.warning("memory ran out at batch size %d; going on with %d", plan.batch_size, smaller.batch_size)
    return smaller


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The CPU allocator has no exception of its own.
    text = str(error).lower()
    return "not enough memory" in text or "can't allocate memory" in text


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _state_of(checkpoint: Path) -> dict[str, Any]:
    # Any: trainer_state.json is transformers' own mixture of numbers, lists and texts.
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    return state


def _is_finished(checkpoint: Path, settings: TrainingSettings) -> bool:
    """Whether training ended with this checkpoint: cut off only between its last save and the adapter's."""
    state = _state_of(checkpoint)
    if state["global_step"] >= state["max_steps"]:
        return True
    stopper = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback", {})
    waited = stopper.get("attributes", {}).get("early_stopping_patience_counter", 0)
    return bool(0 < settings.early_stopping_patience <= waited)
