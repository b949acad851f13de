"""What was left out, by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from tunesmith.domain.examples import Dropped

EXACT_DUPLICATE: Final = "exact_duplicate"
NEAR_DUPLICATE: Final = "near_duplicate"
BALANCE_WORD: Final = "balance_word"
BALANCE_LANGUAGE: Final = "balance_language"
SAMPLED_OUT: Final = "sampled_out"
LANGUAGE_NOT_WANTED: Final = "language_not_wanted"
LANGUAGE_DISAGREES: Final = "language_disagrees"
LANGUAGE_UNKNOWN: Final = "language_unknown"

_MAX_DETAIL_CHARS = 60


class Drops:
    """Counts of dropped rows, with the first detail met for each reason."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first_details: dict[str, str] = {}

    def add(self, dropped: Dropped) -> None:
        """Count one dropped row."""
        self._counts[dropped.reason] += 1
        if dropped.detail:
            self._first_details.setdefault(dropped.reason, dropped.detail[:_MAX_DETAIL_CHARS])

    @property
    def total(self) -> int:
        """Number of dropped rows."""
        return self._counts.total()

    def counts(self) -> Mapping[str, int]:
        """Number of dropped rows by reason, the commonest first."""
        return dict(sorted(self._counts.items(), key=lambda item: (-item[1], item[0])))

    def __str__(self) -> str:
        return ", ".join(
            f"{reason} {count}" + (f" (first: {detail!r})" if (detail := self._first_details.get(reason)) else "")
            for reason, count in self.counts().items()
        )
