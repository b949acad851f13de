"""Training rows: prompt and completion as token ids, the prompt left out of the loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""The label that PyTorch's cross entropy leaves out."""


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One prompt with the completion to learn."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row as token ids; `labels` has the length of `input_ids`, with IGNORED over the prompt."""

    input_ids: list[int]
    labels: list[int]


def tokenize_row(tokenizer: PreTrainedTokenizerBase, row: TrainingRow, *, end: bool = True) -> TokenRow:
    """Tokenise prompt and completion apart, exactly as generation will meet the prompt, then append the stop token.

    The stop token is part of the labels: a model that never learnt it would never stop. `end=False` leaves it out.
    """
    prompt_ids = prompt_token_ids(tokenizer, row.prompt)
    completion_ids = list(tokenizer(row.completion, add_special_tokens=False)["input_ids"])
    if end and tokenizer.eos_token_id is not None:
        completion_ids.append(tokenizer.eos_token_id)
    return TokenRow(
        input_ids=prompt_ids + completion_ids,
        labels=[IGNORED] * len(prompt_ids) + completion_ids,
    )


def prompt_token_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """The prompt's token ids: with the tokenizer's own start token where it has one, never with an end token."""
    ids = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    if tokenizer.bos_token_id is not None and _starts_with_bos(tokenizer):
        ids.insert(0, tokenizer.bos_token_id)
    return ids


def _starts_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    marked = tokenizer("a")["input_ids"]
    return bool(marked) and marked[0] == tokenizer.bos_token_id


def rows_within(
    tokenizer: PreTrainedTokenizerBase, rows: Iterable[TrainingRow], *, max_length: int
) -> tuple[list[TokenRow], int]:
    """The tokenised rows of at most `max_length` tokens, in order, and how many longer ones were dropped.

    A cut row would teach the model to stop nowhere, so a long row is dropped whole.
    """
    tokenized = [tokenize_row(tokenizer, row) for row in rows]
    kept = [row for row in tokenized if len(row.input_ids) <= max_length]
    return kept, len(tokenized) - len(kept)


def as_columns(rows: Sequence[TokenRow]) -> list[dict[str, list[int]]]:
    """The rows as TRL's `SFTTrainer` takes tokenised data."""
    return [{"input_ids": row.input_ids, "labels": row.labels} for row in rows]
