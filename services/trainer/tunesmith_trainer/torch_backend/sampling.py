"""Sampling many answers at once, and scoring given ones.

Shape suffixes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunesmith_trainer.torch_backend.rows import IGNORED, TrainingRow, prompt_token_ids, tokenize_row

FinishReason = Literal["length", "eos_token", "stop_sequence"]

_SCORED_TOGETHER = 64
_STOP_LOOKBACK_TOKENS = 64
"""A stop sequence is searched in the decoded end of a text, of so many tokens; longer ones do not occur."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled completion. `text` includes the stop sequence that ended it, and nothing after."""

    text: str
    finish_reason: FinishReason
    num_tokens: int


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    repetition_penalty: float = 1.0,
    stop: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 100,
) -> list[Sample]:
    """One completion for each prompt, in order; `temperature=0` takes the likeliest token each time.

    Every prompt draws from its own random stream, made from `seed` and its place in `prompts`: `batch_size` changes
    speed and memory, not the texts (up to rounding of the logits). `top_k=0`, `top_p=1` and `repetition_penalty=1` are
    off. The warpers apply in the order of transformers: penalty, temperature, top-k, top-p.
    """
    was_training = model.training
    model.train(False)
    try:
        samples: list[Sample] = []
        for start in range(0, len(prompts), batch_size):
            batch = _Batch(model, tokenizer, prompts[start : start + batch_size], first_index=start, seed=seed)
            samples += batch.run(
                max_new_tokens=max_new_tokens,
                warp=functools.partial(
                    probabilities,
                    temperature=temperature,
                    top_p=top_p,
                    top_k=top_k,
                    repetition_penalty=repetition_penalty,
                ),
                stop=tuple(stop),
            )
        return samples
    finally:
        model.train(was_training)


@torch.no_grad()
def completion_log_probs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[TrainingRow], *, end: bool = False
) -> list[float]:
    """Total natural-log probability of each completion given its prompt, in order.

    `end=True` counts the tokenizer's stop token as part of the completion. Bits per character of a set of rows are
    `-sum(result) / ln 2 / number of characters`.
    """
    was_training = model.training
    model.train(False)
    tokenized = [tokenize_row(tokenizer, row, end=end) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(tokenized[i].input_ids))
    totals = [0.0] * len(rows)
    for start in range(0, len(order), _SCORED_TOGETHER):
        chosen = order[start : start + _SCORED_TOGETHER]
        length = max(len(tokenized[i].input_ids) for i in chosen)
        input_ids_BT = torch.full((len(chosen), length), int(tokenizer.pad_token_id or 0))
        labels_BT = torch.full((len(chosen), length), IGNORED)
        for b, i in enumerate(chosen):
            row = tokenized[i]
            input_ids_BT[b, : len(row.input_ids)] = torch.tensor(row.input_ids)
            labels_BT[b, : len(row.labels)] = torch.tensor(row.labels)
        input_ids_BT, labels_BT = input_ids_BT.to(model.device), labels_BT.to(model.device)
        # use_cache must be off: with it, transformers ignores some masks silently. Right padding needs none here.
        logits_BTV = model(input_ids=input_ids_BT, use_cache=False).logits[:, :-1].float()
        losses_BT = functional.cross_entropy(
            logits_BTV.transpose(1, 2), labels_BT[:, 1:], ignore_index=IGNORED, reduction="none"
        )
        for i, total in zip(chosen, losses_BT.double().sum(dim=1).tolist(), strict=True):
            totals[i] = -total
    model.train(was_training)
    return totals


def probabilities(
    logits_BV: torch.Tensor,
    seen_BV: torch.Tensor,
    *,
    temperature: float,
    top_p: float,
    top_k: int,
    repetition_penalty: float,
) -> torch.Tensor:
    """What to draw the next tokens from, in float64. `seen_BV` marks the tokens of prompt and text so far."""
    if repetition_penalty != 1.0:
        penalised_BV = torch.where(logits_BV > 0, logits_BV / repetition_penalty, logits_BV * repetition_penalty)
        logits_BV = torch.where(seen_BV, penalised_BV, logits_BV)
    if temperature <= 0:
        return functional.one_hot(logits_BV.argmax(dim=-1), logits_BV.shape[-1]).double()
    logits_BV = logits_BV / temperature
    if 0 < top_k < logits_BV.shape[-1]:
        smallest_B1 = logits_BV.topk(top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < smallest_B1, -torch.inf)
    if top_p < 1.0:
        sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True)
        sorted_probabilities_BV = sorted_BV.softmax(dim=-1)
        # A token stays while the tokens before it have not yet reached top_p; the first always stays.
        cut_BV = sorted_probabilities_BV.cumsum(dim=-1) - sorted_probabilities_BV >= top_p
        logits_BV = logits_BV.masked_fill(torch.zeros_like(cut_BV).scatter(1, order_BV, cut_BV), -torch.inf)
    return logits_BV.double().softmax(dim=-1)


class _Batch:
    """Prompts that are continued together, padded on the left so that all write at the same place."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[str],
        *,
        first_index: int,
        seed: int,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._streams = [torch.Generator().manual_seed(_mixed(seed, first_index + b)) for b in range(len(prompts))]
        self._prompt_ids = rows = [prompt_token_ids(tokenizer, prompt) for prompt in prompts]
        length = max(map(len, rows))
        self._input_ids_BT = torch.full((len(rows), length), int(tokenizer.pad_token_id or 0))
        self._mask_BT = torch.zeros((len(rows), length), dtype=torch.long)
        for b, row in enumerate(rows):
            self._input_ids_BT[b, length - len(row) :] = torch.tensor(row)
            self._mask_BT[b, length - len(row) :] = 1

    def run(
        self, *, max_new_tokens: int, warp: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], stop: tuple[str, ...]
    ) -> list[Sample]:
        num_rows = len(self._prompt_ids)
        device = self._model.device
        end_ids = end_token_ids(self._model, self._tokenizer)
        uniforms_BT = torch.stack([torch.rand(max_new_tokens, generator=g, dtype=torch.double) for g in self._streams])
        step_ids_BT, mask_BT = self._input_ids_BT.to(device), self._mask_BT.to(device)
        position_ids_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
        written: list[list[int]] = [[] for _ in range(num_rows)]
        finished: dict[int, Sample] = {}
        seen_BV: torch.Tensor | None = None
        cache = None

        for t in range(max_new_tokens):
            output = self._model(
                input_ids=step_ids_BT,
                attention_mask=mask_BT,
                position_ids=position_ids_BT,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            logits_BV = output.logits[:, -1].float().cpu()
            if seen_BV is None:
                seen_BV = torch.zeros(logits_BV.shape, dtype=torch.bool)
                for b, prompt_ids in enumerate(self._prompt_ids):
                    seen_BV[b, prompt_ids] = True
            cumulative_BV = warp(logits_BV, seen_BV).cumsum(dim=-1)
            drawn_B1 = uniforms_BT[:, t : t + 1] * cumulative_BV[:, -1:]
            next_B1 = torch.searchsorted(cumulative_BV, drawn_B1, right=True).clamp(max=logits_BV.shape[-1] - 1)
            seen_BV.scatter_(1, next_B1, True)

            for b, token in enumerate(next_B1[:, 0].tolist()):
                if b in finished:
                    continue
                if token in end_ids:
                    finished[b] = Sample(self._text(written[b]), "eos_token", len(written[b]) + 1)
                    continue
                written[b].append(token)
                if stop and (text := self._stopped_text(written[b], stop)) is not None:
                    finished[b] = Sample(text, "stop_sequence", len(written[b]))
            if len(finished) == num_rows:
                break
            step_ids_BT = next_B1.to(device)
            mask_BT = torch.cat([mask_BT, mask_BT.new_ones(num_rows, 1)], dim=1)
            position_ids_BT = position_ids_BT[:, -1:] + 1

        return [finished.get(b) or Sample(self._text(written[b]), "length", len(written[b])) for b in range(num_rows)]

    def _text(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _stopped_text(self, token_ids: list[int], stop: tuple[str, ...]) -> str | None:
        """The whole text up to the stop sequence that has just been completed, or None."""
        if not any(s in self._text(token_ids[-_STOP_LOOKBACK_TOKENS:]) for s in stop):
            return None
        text = self._text(token_ids)
        ends = [text.index(s) + len(s) for s in stop if s in text]
        return text[: min(ends)] if ends else None


def _mixed(seed: int, index: int) -> int:
    return (seed * 1_000_003 + index) % 2**63


def end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the tokens that end an answer."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = configured if isinstance(configured, list) else [configured]
    return {int(i) for i in (*listed, tokenizer.eos_token_id) if i is not None}
