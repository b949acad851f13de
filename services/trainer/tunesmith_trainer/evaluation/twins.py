"""Near-twins: answers that differ only in spelling from a known one."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

MAX_TWIN_CHARS = 200
"""Longer texts are near-twins only when their folded forms are equal; what they copy is measured as spans."""


def folded(text: str) -> str:
    """Letters and digits only, without accents or case: `Synth-Pop` and `synthpop` fold to one form."""
    decomposed = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()
    return "".join(c for c in plain if c.isalnum())


def trigrams(text: str) -> frozenset[str]:
    """The character 3-grams of a text; a shorter text is its own."""
    return frozenset(text[i : i + 3] for i in range(max(1, len(text) - 2)))


@dataclass(frozen=True, slots=True)
class TwinIndex:
    """Finds the near-twin of a text among many: equal when folded, or of enough Jaccard similarity of 3-grams."""

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
            form = folded(text)
            if form:
                by_folded.setdefault(form, position)
            if len(text) <= MAX_TWIN_CHARS:
                grams = trigrams(text)
                sizes[position] = len(grams)
                for gram in grams:
                    postings.setdefault(gram, []).append(position)
        arrays = {gram: np.asarray(positions, dtype=np.int32) for gram, positions in postings.items()}
        return cls(similarity, rows, by_folded, sizes, arrays)

    def twin(self, text: str) -> str | None:
        """The indexed text that `text` is a near-twin of (the most similar, the first among equals), or None."""
        position = self.by_folded.get(folded(text))
        if position is not None:
            return self.texts[position]
        if len(text) > MAX_TWIN_CHARS:
            return None
        grams = trigrams(text)
        found = [self.postings[gram] for gram in sorted(grams) if gram in self.postings]
        if not found:
            return None
        shared = np.bincount(np.concatenate(found), minlength=len(self.texts))
        jaccard = shared / np.maximum(self.num_trigrams + len(grams) - shared, 1)
        best = int(np.argmax(jaccard))
        return self.texts[best] if jaccard[best] >= self.similarity else None
