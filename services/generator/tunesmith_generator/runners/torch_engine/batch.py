"""Rows of one base that are decoded together. B rows, T new tokens, S tokens so far with left padding, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from tunesmith.domain.errors import TunesmithError
from tunesmith.ports.language_model import FinishReason, Generation, StreamChunk, Token
from tunesmith_generator.runners.exchange import Ticket
from tunesmith_generator.runners.text import TextStream
from tunesmith_generator.runners.torch_engine.bases import Base
from tunesmith_generator.runners.torch_engine.sampling import Sampler

if TYPE_CHECKING:
    from tunesmith_generator.runners.torch_engine.grammar import Grammar


class _Layer(Protocol):
    """transformers' DynamicLayer once it holds something; keys and values are (B, heads, S, head size)."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(slots=True, eq=False)
class Row:
    """One request while it is decoded."""

    ticket: Ticket
    adapter: str
    """Internal name of its adapter."""
    prompt_ids: list[int]
    seed: int | None
    sampler: Sampler
    text: TextStream
    grammar: Grammar | None = None
    """Says which tokens may come next; None where any may."""
    generated_ids: list[int] = field(default_factory=list)
    finished: bool = False

    def next_token(self, logits_V: torch.Tensor) -> int:
        """Choose it; where the answer's grammar cannot go on, the row alone fails and gives token 0."""
        seen = self.prompt_ids + self.generated_ids
        try:
            if self.grammar is None:
                return self.sampler.choose(logits_V, seen=seen, answer=self.generated_ids)
            allowed_V = self.grammar.allowed_V().to(logits_V.device)[: logits_V.numel()]
            token_id = self.sampler.choose(logits_V, seen=seen, answer=self.generated_ids, allowed_V=allowed_V)
            self.grammar.accept(token_id)
        except TunesmithError as error:
            self.finished = True
            self.ticket.deliver(error)
            return 0
        return token_id

    def accept(self, token_id: int, logprob: float, *, base: Base) -> None:
        """Take the next token: deliver it, and end the row when it is the last."""
        parameters = self.ticket.parameters
        self.generated_ids.append(token_id)
        special = token_id in base.special_ids
        piece = "" if special else self.text.push(token_id)
        reason: FinishReason | None = None
        if token_id in base.end_ids:
            reason = "eos_token"
        elif self.text.stopped:
            reason = "stop_sequence"
        elif len(self.generated_ids) == parameters.max_new_tokens:
            reason = "length"
        generation = None
        if reason is not None:
            self.finished = True
            held_back = self.text.flush() if not self.text.stopped else ""
            piece += held_back
            text = self.ticket.prompt + self.text.text if parameters.return_full_text else self.text.text
            generation = Generation(text, reason, len(self.generated_ids), self.seed, len(self.prompt_ids))
        token = Token(token_id, base.token_text(token_id) if special else piece, logprob, special)
        self.ticket.deliver(StreamChunk(token, generation))


class Batch:
    """Rows of any age and any adapter of one base; rows join and leave between steps.

    Rows are padded on the left and every row counts its positions from its own first token, so padding changes nothing
    but the last bits of the floats. The cache is a plain DynamicCache whose tensors are padded, joined and cut here.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self.rows: list[Row] = []
        self._cache = DynamicCache()
        self._mask_BS = torch.empty(0)

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> None:
        """Read the prompts of `rows`, give each its first token, and let them take part from the next step on."""
        width = max(len(row.prompt_ids) for row in rows)
        ids_BT = _left_padded([row.prompt_ids for row in rows], width)
        mask_BT = _left_padded([[1] * len(row.prompt_ids) for row in rows], width)
        cache = DynamicCache()
        logits_BV = self._forward(rows, ids_BT, mask_BT, (mask_BT.cumsum(1) - 1).clamp(min=0), cache)
        self._choose(rows, logits_BV)
        if self.rows:
            self._mask_BS = _merge(self._cache, cache, self._mask_BS, mask_BT)
        else:
            self._cache, self._mask_BS = cache, mask_BT
        self.rows.extend(rows)
        self._drop(lambda row: row.finished)

    @torch.inference_mode()
    def step(self) -> None:
        """Give every row its next token; cancelled and finished rows leave."""
        self._drop(lambda row: row.ticket.cancelled)
        if not self.rows:
            return
        ids_B1 = torch.tensor([row.generated_ids[-1:] for row in self.rows])
        self._mask_BS = pad(self._mask_BS, (0, 1), value=1)
        positions_B1 = self._mask_BS.sum(1, keepdim=True) - 1
        logits_BV = self._forward(self.rows, ids_B1, self._mask_BS, positions_B1, self._cache)
        self._choose(self.rows, logits_BV)
        self._drop(lambda row: row.finished)

    def clear(self) -> list[Row]:
        """Empty the batch, after a failure; returns the rows that were in it."""
        rows, self.rows, self._cache, self._mask_BS = self.rows, [], DynamicCache(), torch.empty(0)
        return rows

    def _forward(
        self,
        rows: Sequence[Row],
        ids_BT: torch.Tensor,
        mask_BS: torch.Tensor,
        positions_BT: torch.Tensor,
        cache: DynamicCache,
    ) -> torch.Tensor:
        device = self._base.device
        return self._base.forward(
            ids_BT.to(device),
            mask_BS=mask_BS.to(device),
            positions_BT=positions_BT.to(device),
            cache=cache,
            adapters=[row.adapter for row in rows],
        )

    def _choose(self, rows: Sequence[Row], logits_BV: torch.Tensor) -> None:
        chosen = [row.next_token(logits_V) for row, logits_V in zip(rows, logits_BV, strict=True)]
        index_B1 = torch.tensor(chosen, device=logits_BV.device)[:, None]
        logprobs_B = (logits_BV.gather(1, index_B1)[:, 0] - logits_BV.logsumexp(1)).tolist()
        for row, token_id, logprob in zip(rows, chosen, logprobs_B, strict=True):
            if not row.finished:
                row.accept(token_id, logprob, base=self._base)

    def _drop(self, leaves: Callable[[Row], bool]) -> None:
        """Take rows out, and the padding columns that nobody needs any more."""
        stay = [index for index, row in enumerate(self.rows) if not leaves(row)]
        if len(stay) == len(self.rows):
            return
        if not stay:
            self.clear()
            return
        self.rows = [self.rows[index] for index in stay]
        self._mask_BS = self._mask_BS[stay]
        first = int(self._mask_BS.argmax(1).min())
        self._mask_BS = self._mask_BS[:, first:]
        for layer in _layers(self._cache):
            layer.keys = layer.keys[stay][:, :, first:]
            layer.values = layer.values[stay][:, :, first:]


def _left_padded(rows: Sequence[Sequence[int]], width: int) -> torch.Tensor:
    return torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])


def _layers(cache: DynamicCache) -> list[_Layer]:
    """The cache's layers, all of the plain kind: `Base.load` lets no other model in."""
    return cast("list[_Layer]", cache.layers)


def _merge(
    cache: DynamicCache, newcomers: DynamicCache, mask_BS: torch.Tensor, newcomers_mask_BS: torch.Tensor
) -> torch.Tensor:
    """Append the newcomers' rows to `cache` and return the joint mask; the shorter side is padded on the left."""
    width = max(mask_BS.shape[1], newcomers_mask_BS.shape[1])

    def joined(a: torch.Tensor, b: torch.Tensor, *, dim: int) -> torch.Tensor:
        trailing = (0, 0) if dim == 2 else ()
        a = pad(a, (*trailing, width - a.shape[dim], 0))
        b = pad(b, (*trailing, width - b.shape[dim], 0))
        return torch.cat([a, b])

    for layer, newcomer in zip(_layers(cache), _layers(newcomers), strict=True):
        layer.keys = joined(layer.keys, newcomer.keys, dim=2)
        layer.values = joined(layer.values, newcomer.values, dim=2)
    return joined(mask_BS, newcomers_mask_BS, dim=1)
