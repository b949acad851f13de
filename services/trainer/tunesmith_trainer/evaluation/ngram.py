"""A character n-gram model: the model-free anchor that a tuned model's loss is held against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

START = "\ufdd0"
END = "\ufdd1"
"""Unicode noncharacters, which no interchanged text may contain."""

MAX_FIT_CHARS = 5_000_000
"""Characters that `fit` reads at most, to bound time and memory: about ten seconds and 2 GB at order 5."""


def num_scored_chars(text: str) -> int:
    """How many characters a text counts for in bits per character: its own, and one for its end.

    The models and the n-gram share this definition, so that their bits per character compare.
    """
    return len(text) + 1


@dataclass(frozen=True, slots=True)
class CharacterNgram:
    """An interpolated Witten-Bell character n-gram.

    P(c | h) = (N(h, c) + T(h) P(c | h')) / (N(h) + T(h)), where N counts, T(h) is the number of different characters
    seen after h, and h' is h without its first character; below the empty context stands the uniform distribution
    over the training characters, the end and one unseen character. Witten & Bell 1991, "The zero-frequency problem",
    IEEE Transactions on Information Theory 37(4), method C, interpolated as in Chen & Goodman 1998, section 2.4.
    """

    order: int
    counts: Mapping[str, Mapping[str, int]]
    """Next-character counts by context, for contexts of 0 to order - 1 characters."""
    totals: Mapping[str, int]
    num_symbols: int

    @classmethod
    def fit(cls, texts: Iterable[str], *, order: int = 5, max_chars: int = MAX_FIT_CHARS) -> Self:
        """Count the texts, in order, until `max_chars` characters are read."""
        counts: dict[str, dict[str, int]] = {}
        symbols: set[str] = {END}
        num_chars = 0
        for text in texts:
            if num_chars >= max_chars:
                break
            num_chars += len(text)
            symbols.update(text)
            padded = START * (order - 1) + text + END
            for end in range(order - 1, len(padded)):
                char = padded[end]
                for start in range(end - order + 1, end + 1):
                    row = counts.setdefault(padded[start:end], {})
                    row[char] = row.get(char, 0) + 1
        totals = {context: sum(row.values()) for context, row in counts.items()}
        return cls(order, counts, totals, len(symbols) + 1)

    def bits(self, text: str) -> float:
        """Bits of `text` together with its end."""
        padded = START * (self.order - 1) + text + END
        return sum(-math.log2(self._probability(padded, end)) for end in range(self.order - 1, len(padded)))

    def _probability(self, padded: str, end: int) -> float:
        char = padded[end]
        probability = 1 / self.num_symbols
        for start in range(end, end - self.order, -1):
            row = self.counts.get(padded[start:end])
            if row is None:
                break
            total = self.totals[padded[start:end]]
            probability = (row.get(char, 0) + len(row) * probability) / (total + len(row))
        return probability
