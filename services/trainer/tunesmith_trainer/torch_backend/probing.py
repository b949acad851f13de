"""Greedy answers with log-probabilities, and how exactly those can be known: what serving is held against.

Shape suffixes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunesmith.domain.parity import Probe, Probes, ProbeToken
from tunesmith_trainer.torch_backend.rows import prompt_token_ids
from tunesmith_trainer.torch_backend.sampling import end_token_ids


@dataclass(slots=True)
class _Row:
    prompt_ids: list[int]
    tokens: list[ProbeToken]
    finished: bool = False


@torch.no_grad()
def make_probes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    stop: Sequence[str],
) -> Probes:
    """The model's greedy answers to `prompts`, written together as one batch, and their noise.

    The noise is measured on the very tokens of the answers: each is read again alone, in one pass without padding and
    cache, as the model is and in bfloat16.
    """
    was_training = model.training
    model.train(False)
    try:
        rows = [_Row(prompt_token_ids(tokenizer, prompt), []) for prompt in prompts]
        _write(model, tokenizer, rows, max_new_tokens=max_new_tokens, stop=tuple(stop))
        noise = half_noise = 0.0
        for row in rows:
            noise = max(noise, _off(row, _read(model, row)))
            with torch.autocast(model.device.type, dtype=torch.bfloat16):
                half_noise = max(half_noise, _off(row, _read(model, row)))
    finally:
        model.train(was_training)
    return Probes(
        probes=tuple(Probe(prompt, tuple(row.tokens)) for prompt, row in zip(prompts, rows, strict=True)),
        max_new_tokens=max_new_tokens,
        stop=tuple(stop),
        noise=noise,
        half_noise=half_noise,
    )


def _write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[_Row],
    *,
    max_new_tokens: int,
    stop: tuple[str, ...],
) -> None:
    width = max(len(row.prompt_ids) for row in rows)
    pad = int(tokenizer.pad_token_id or 0)
    step_ids_BT = torch.tensor([[pad] * (width - len(row.prompt_ids)) + row.prompt_ids for row in rows])
    mask_BT = torch.tensor([[0] * (width - len(r.prompt_ids)) + [1] * len(r.prompt_ids) for r in rows])
    step_ids_BT, mask_BT = step_ids_BT.to(model.device), mask_BT.to(model.device)
    position_ids_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
    ends = end_token_ids(model, tokenizer)
    cache = None
    for _ in range(max_new_tokens):
        output = model(
            input_ids=step_ids_BT,
            attention_mask=mask_BT,
            position_ids=position_ids_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        best = output.logits[:, -1].float().log_softmax(dim=-1).topk(2, dim=-1)
        for row, ids, logprobs in zip(rows, best.indices.tolist(), best.values.tolist(), strict=True):
            if row.finished:
                continue
            text = "" if ids[0] in ends else _text(tokenizer, ids[:1])
            row.tokens.append(ProbeToken(ids[0], text, logprobs[0], ids[1], logprobs[1]))
            written = _text(tokenizer, [token.id for token in row.tokens])
            row.finished = ids[0] in ends or any(s in written for s in stop)
        if all(row.finished for row in rows):
            break
        step_ids_BT = best.indices[:, :1]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows), 1)], dim=1)
        position_ids_BT = position_ids_BT[:, -1:] + 1


def _read(model: PreTrainedModel, row: _Row) -> list[float]:
    """Log-probabilities of a row's tokens, all in one pass."""
    ids_1T = torch.tensor([row.prompt_ids + [token.id for token in row.tokens]], device=model.device)
    logits_TV = model(input_ids=ids_1T, use_cache=False).logits[0, len(row.prompt_ids) - 1 : -1]
    chosen_T1 = ids_1T[0, len(row.prompt_ids) :, None]
    found: list[float] = logits_TV.float().log_softmax(dim=-1).gather(1, chosen_T1)[:, 0].tolist()
    return found


def _off(row: _Row, logprobs: Sequence[float]) -> float:
    return max((abs(token.logprob - other) for token, other in zip(row.tokens, logprobs, strict=True)), default=0.0)


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
