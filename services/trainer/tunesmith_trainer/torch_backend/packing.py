"""Batches of packed rows.

TRL's own collator lays a whole batch out as one long sequence, which suits flash attention; elsewhere attention then
costs the square of the batch. Here every packed row stays a row of its own. Delete when TRL's collator can do that.

Shape suffixes: B packed rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tunesmith_trainer.torch_backend.rows import IGNORED


@dataclass(frozen=True, slots=True)
class PackedRowCollator:
    """Collate rows of `input_ids`, `labels` and, when packed, `seq_lengths` (the lengths of the pieces in the row).

    There is no attention mask: transformers sees from positions that start again at 0 where a piece begins, and keeps
    pieces apart. The padding at a row's end is a piece of its own. It only does so with `use_cache=False`.
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, torch.Tensor]:
        length = max(len(row["input_ids"]) for row in rows)
        input_ids_BT = torch.full((len(rows), length), self.pad_token_id)
        labels_BT = torch.full((len(rows), length), IGNORED)
        position_ids_BT = torch.zeros((len(rows), length), dtype=torch.long)
        for b, row in enumerate(rows):
            size = len(row["input_ids"])
            input_ids_BT[b, :size] = torch.tensor(row["input_ids"])
            labels_BT[b, :size] = torch.tensor(row["labels"])
            pieces = [*row.get("seq_lengths", [size]), length - size]
            position_ids_BT[b] = torch.cat([torch.arange(piece) for piece in pieces])
        # A piece's first token would be predicted from the piece before it.
        labels_BT[position_ids_BT == 0] = IGNORED
        return {"input_ids": input_ids_BT, "labels": labels_BT, "position_ids": position_ids_BT}
