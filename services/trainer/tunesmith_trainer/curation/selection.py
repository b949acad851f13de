"""Which usable rows a dataset takes at all: a sample of them, in the languages that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b

from tunesmith.domain.datasets import CurationSettings
from tunesmith.domain.examples import Dropped, Example
from tunesmith_trainer.curation.drops import (
    LANGUAGE_DISAGREES,
    LANGUAGE_NOT_WANTED,
    LANGUAGE_UNKNOWN,
    SAMPLED_OUT,
    Drops,
)
from tunesmith_trainer.curation.languages import UNKNOWN, stated_language
from tunesmith_trainer.curation.steps import Usable


class Selection:
    """The settings' choice of rows."""

    def __init__(self, settings: CurationSettings, *, detect: Callable[[str], str]) -> None:
        self._settings = settings
        self._detect = detect
        self._wanted = settings.language_codes
        self._kept = settings.kept
        self._sample_limit = int(settings.sample_share * 2**64)
        self._key = f"sample {settings.seed}".encode()

    def of(self, rows: Iterable[Usable], drops: Drops) -> Iterator[Usable]:
        """The rows to take; the others are counted in `drops`."""
        for row in rows:
            dropped = self._why_not(row)
            if dropped is None:
                yield row
            else:
                drops.add(dropped)

    def always_keeps(self, example: Example) -> bool:
        """Whether one of its attributes is in the settings' `keep`; lists (`Rock; Folk`) count by item."""
        if not self._kept:
            return False
        for name, text in example.attributes.items():
            for value in {text, *text.split(";")}:
                folded = " ".join(value.split()).casefold()
                if folded in self._kept or f"{name}={folded}" in self._kept:
                    return True
        return False

    def _why_not(self, row: Usable) -> Dropped | None:
        if not self._in_sample(row.identity) and not self.always_keeps(row.example):
            return Dropped(SAMPLED_OUT)
        return self._wrong_language(row.example) if self._wanted else None

    def _in_sample(self, identity: str) -> bool:
        if self._settings.sample_share >= 1:
            return True
        digest = blake2b(identity.encode(), digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "big") < self._sample_limit

    def _wrong_language(self, example: Example) -> Dropped | None:
        """Why the row is in no wanted language. A detector that is not sure leaves it to the column."""
        by = self._settings.language_by
        stated = "" if by == "detection" else stated_language(example)
        if stated and stated not in self._wanted:
            return Dropped(LANGUAGE_NOT_WANTED, stated)
        if stated and by == "column":
            return None
        detected = self._detect(example.answer)
        if detected == UNKNOWN:
            return None if stated else Dropped(LANGUAGE_UNKNOWN, example.answer)
        if stated and stated != detected:
            return Dropped(LANGUAGE_DISAGREES, f"stated {stated}, detected {detected}")
        return None if detected in self._wanted else Dropped(LANGUAGE_NOT_WANTED, detected)
