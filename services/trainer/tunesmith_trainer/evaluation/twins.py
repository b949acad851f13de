"""Near-twins: answers that differ only in spelling from a known one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tunesmith_trainer.curation.near_twins import folded, shingles

MAX_TWIN_CHARS = 200
"""Longer texts are near-twins only when their folded forms are equal; what they copy is measured as spans."""


@dataclass(frozen=True, slots=True)
class TwinIndex:
    """Finds the near-twin of a text among many, by the definition that curation splits by: the Jaccard similarity of
    the character 3-grams of folded texts."""

    similarity: float
    texts: tuple[str, ...]
    by_folded: Mapping[str, int]
    num_trigrams: NDArray[np.int32]
    """Size of each text's 3-gram set; 0 for texts that are too long to compare by 3-grams."""
    postings: Mapping[str, NDArray[np.int32]]

    @classmethod
    def build(cls, texts: Collection[str], *, similarity: float) -> Self:
        """Index the texts; `similarity` lies in (0, 1]."""
        rows = tuple(texts)
        by_folded: dict[str, int] = {}
        sizes = np.zeros(len(rows), dtype=np.int32)
        postings: dict[str, list[int]] = {}
        for position, text in enumerate(rows):
            fold = folded(text)
            by_folded.setdefault(fold, position)
            if len(fold) <= MAX_TWIN_CHARS:
                grams = shingles(fold)
                sizes[position] = len(grams)
                for gram in grams:
                    postings.setdefault(gram, []).append(position)
        arrays = {gram: np.asarray(positions, dtype=np.int32) for gram, positions in postings.items()}
        return cls(similarity, rows, by_folded, sizes, arrays)

    def twin(self, text: str) -> str | None:
        """The indexed text that `text` is a near-twin of (the most similar, the first among equals), or None."""
        fold = folded(text)
        if (position := self.by_folded.get(fold)) is not None:
            return self.texts[position]
        if len(fold) > MAX_TWIN_CHARS:
            return None
        grams = shingles(fold)
        found = [self.postings[gram] for gram in sorted(grams) if gram in self.postings]
        if not found:
            return None
        shared = np.bincount(np.concatenate(found), minlength=len(self.texts))
        jaccard = shared / np.maximum(self.num_trigrams + len(grams) - shared, 1)
        best = int(np.argmax(jaccard))
        return self.texts[best] if jaccard[best] >= self.similarity else None
