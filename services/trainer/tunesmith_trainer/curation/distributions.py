"""Distributions: how often which value stands in a dataset, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from tunesmith.domain.examples import Example, Split
from tunesmith.recipes.base import Recipe

MAX_VALUES = 100
"""Values kept of each distribution."""

_MAX_COUNTED = 50_000
"""Values counted at once; beyond it the rarer half is forgotten, which leaves the top 100 right in all but the
flattest distributions."""

_RESERVED: Final = frozenset({"word", "length", "split", "dropped_balance_word", "dropped_balance_language"})


class Distributions:
    """Counts of rows by attribute and value. A value counts once a row."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}

    def add(self, attribute: str, values: Iterable[str]) -> None:
        """Count one row under each of `values`."""
        counts = self._counts.setdefault(attribute, Counter())
        counts.update(set(values))
        if len(counts) > _MAX_COUNTED:
            self._counts[attribute] = Counter(dict(_commonest(counts, _MAX_COUNTED // 2)))

    def add_example(self, example: Example, split: Split, recipe: Recipe) -> None:
        """Count a row under its split, its length, the recipe's attributes of its answer and its record's own.

        An attribute that lists several values (`Rock; Folk`) counts under each.
        """
        attributes = {name: list(values) for name, values in recipe.attributes(example.answer).items()}
        for name, value in example.attributes.items():
            values = [item.strip() for item in value.split(";")]
            attributes.setdefault(f"record_{name}" if name in _RESERVED else name, values)
        for name, values in attributes.items():
            self.add(name, values)
        self.add("length", [length_band(len(example.answer))])
        self.add("split", [split])

    def top(self) -> Mapping[str, Mapping[str, int]]:
        """The MAX_VALUES commonest values of each attribute, the commonest first; `length` by length."""
        return {
            attribute: dict(
                sorted(counts.items(), key=lambda item: int(item[0].split("-")[0]))
                if attribute == "length"
                else _commonest(counts, MAX_VALUES)
            )
            for attribute, counts in sorted(self._counts.items())
        }


def length_band(num_chars: int) -> str:
    """`15-19`, `300-399`: bands of 5 under 100 and of the leading digit above, so that names and lyrics both spread."""
    width = 5 if num_chars < 100 else 10 ** (len(str(num_chars)) - 1)
    low = num_chars // width * width
    return f"{low}-{low + width - 1}"


def _commonest(counts: Counter[str], number: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:number]
