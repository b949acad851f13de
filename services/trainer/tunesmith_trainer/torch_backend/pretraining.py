"""Training a small Llama from scratch, for the bases that are made on the spot."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tunesmith.domain.errors import Interrupted
from tunesmith.domain.runs import TrainingProgress
from tunesmith_trainer.torch_backend.fingerprint import PretrainingSettings
from tunesmith_trainer.torch_backend.muon import Muon
from tunesmith_trainer.torch_backend.quiet import without_progress_bars
from tunesmith_trainer.torch_backend.rows import IGNORED

logger = logging.getLogger(__name__)

END = "<|end|>"
PAD = "<|pad|>"

Batch = list[list[int]]
"""Token rows of nearly one length."""

_WARMUP_SHARE = 0.05
_LAST_RATE_SHARE = 0.02


def pretrain(
    folder: Path,
    material: Callable[[], tuple[PreTrainedTokenizerFast, Sequence[Batch]]],
    settings: PretrainingSettings,
    *,
    progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Train a base into `folder`, which then holds config.json, model.safetensors and the tokenizer.

    `material` makes the tokenizer and one batch for each step; it is called when there is something to train, and must
    give the same every time. The same material and settings give the same bytes. `folder` appears only when complete;
    until then the work lies in `<folder>.partial`, from where a killed or interrupted training continues. An existing
    `folder` is returned as it is. Raises Interrupted once `should_stop()` says so, after saving.
    """
    if folder.is_dir():
        return folder
    without_progress_bars()
    work = folder.with_name(folder.name + ".partial")
    work.mkdir(parents=True, exist_ok=True)

    tokenizer, batches = material()
    assert len(batches) == settings.num_steps, f"{len(batches)} batches for {settings.num_steps} steps"
    with torch.random.fork_rng(devices=[]):
        model = _train(work, tokenizer, batches, settings, progress, should_stop)

    finished = work / "finished"
    shutil.rmtree(finished, ignore_errors=True)
    model.save_pretrained(finished)
    tokenizer.save_pretrained(finished)
    _name_portable_tokenizer_class(finished)
    finished.replace(folder)
    shutil.rmtree(work, ignore_errors=True)
    return folder


def _train(
    work: Path,
    tokenizer: PreTrainedTokenizerFast,
    batches: Sequence[Batch],
    settings: PretrainingSettings,
    progress: Callable[[TrainingProgress], None] | None,
    should_stop: Callable[[], bool] | None,
) -> LlamaForCausalLM:
    torch.manual_seed(settings.seed)
    model = LlamaForCausalLM(llama_config(tokenizer, settings))
    model.train()
    dropout = [] if settings.dropout == 0 else _add_dropout(model, settings.dropout)
    optimizer = _Optimizer(model, settings)

    first_step = _load_checkpoint(work, model, optimizer)
    num_tokens, started = 0, time.monotonic()
    for step in range(first_step, settings.num_steps):
        # Each step has its own seed: a resumed build needs no saved random state to be exact.
        torch.manual_seed(settings.seed * 1_000_003 + step)
        input_ids, labels = _padded(batches[step], tokenizer.pad_token_id)
        loss = _loss(model, input_ids, labels)
        torch.autograd.backward(loss)
        optimizer.step(_rate_share(step, settings.num_steps))
        num_tokens += input_ids.numel()

        if progress is not None:
            progress(
                TrainingProgress(
                    phase="base",
                    step=step + 1,
                    num_steps=settings.num_steps,
                    epoch=(step + 1) / settings.num_steps,
                    train_loss=float(loss.detach()),
                    validation_loss=None,
                    learning_rate=settings.matrix_learning_rate * _rate_share(step, settings.num_steps),
                    tokens_per_s=num_tokens / max(1e-9, time.monotonic() - started),
                )
            )
        stopping = should_stop is not None and should_stop()
        if stopping or (step + 1) % settings.save_every_steps == 0:
            _save_checkpoint(work, step + 1, model, optimizer)
        if stopping:
            raise Interrupted(
                f"building {work.name} was asked to stop at step {step + 1} of {settings.num_steps}; "
                "the next attempt continues from there"
            )
    for hook in dropout:
        hook.remove()
    model.train(False)
    return model


def llama_config(tokenizer: PreTrainedTokenizerFast, settings: PretrainingSettings) -> LlamaConfig:
    """The shape of the model; the initial weights depend on `initializer_range` too."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.feed_forward_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=settings.num_heads,
        max_position_embeddings=settings.max_length,
        tie_word_embeddings=True,
        initializer_range=settings.initializer_range,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


class _Optimizer:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms, gradients clipped together."""

    def __init__(self, model: LlamaForCausalLM, settings: PretrainingSettings) -> None:
        named = list(model.named_parameters())
        self._parameters = [p for _, p in named]
        self._settings = settings
        self.muon = Muon(
            [p for name, p in named if p.ndim == 2 and "embed" not in name],
            learning_rate=settings.matrix_learning_rate,
            weight_decay=settings.weight_decay,
        )
        self.adamw = torch.optim.AdamW(
            [p for name, p in named if p.ndim != 2 or "embed" in name],
            lr=settings.vector_learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=True,
        )

    def step(self, rate_share: float) -> None:
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self.muon.learning_rate = self._settings.matrix_learning_rate * rate_share
        self.adamw.param_groups[0]["lr"] = self._settings.vector_learning_rate * rate_share
        self.muon.step()
        self.adamw.step()
        for parameter in self._parameters:
            parameter.grad = None


def _rate_share(step: int, num_steps: int) -> float:
    """Linear warm-up, then a cosine down to a small rest."""
    warmup = min(1.0, (step + 1) / max(1.0, _WARMUP_SHARE * num_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / num_steps))
    return warmup * (_LAST_RATE_SHARE + (1 - _LAST_RATE_SHARE) * cosine)


def _loss(model: LlamaForCausalLM, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    # Padding stands on the right of a causal model, so that no attention mask is needed.
    logits = model(input_ids=input_ids, use_cache=False).logits
    return functional.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=IGNORED
    )


def _add_dropout(model: LlamaForCausalLM, share: float) -> list[RemovableHandle]:
    """Dropout on the embeddings and on what each block adds; Llama has none of its own, and the text is small."""

    def drop(_module: torch.nn.Module, _args: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> object:
        if isinstance(output, tuple):
            return (functional.dropout(output[0], share), *output[1:])
        return functional.dropout(output, share)

    blocks = [block for layer in model.model.layers for block in (layer.self_attn, layer.mlp)]
    return [module.register_forward_hook(drop) for module in (model.model.embed_tokens, *blocks)]


def _padded(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(map(len, rows))
    input_ids = torch.full((len(rows), length), pad_token_id)
    labels = torch.full((len(rows), length), IGNORED)
    for i, row in enumerate(rows):
        input_ids[i, : len(row)] = labels[i, : len(row)] = torch.tensor(row)
    return input_ids, labels


def _save_checkpoint(work: Path, step: int, model: LlamaForCausalLM, optimizer: _Optimizer) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "muon": optimizer.muon.state(),
        "adamw": optimizer.adamw.state_dict(),
    }
    # Written aside and moved, so that the checkpoint is whole or absent at whatever instant the process dies.
    torch.save(state, work / "checkpoint.tmp")
    (work / "checkpoint.tmp").replace(work / "checkpoint.pt")


def _load_checkpoint(work: Path, model: LlamaForCausalLM, optimizer: _Optimizer) -> int:
    """Load the newest checkpoint, if any, and return the step to go on with."""
    path = work / "checkpoint.pt"
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.muon.load_state(state["muon"])
    optimizer.adamw.load_state_dict(state["adamw"])
    logger.info("continuing the base at step %d", state["step"])
    return int(state["step"])


def _name_portable_tokenizer_class(folder: Path) -> None:
    """Name the tokenizer's class as transformers 4 and text-generation-inference know it; transformers 5 reads both."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
