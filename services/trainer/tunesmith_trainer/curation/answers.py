"""The answers under curation: texts on disk, a few bytes each in memory."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

from tunesmith.domain.datasets import CurationSettings
from tunesmith.domain.examples import SPLITS, split_bucket
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.records import Record
from tunesmith_trainer.curation.disk_lines import DiskLines
from tunesmith_trainer.curation.near_twins import folded
from tunesmith_trainer.curation.steps import Sighting


class Answers:
    """Every unique answer by number, and every sighting of one. Closing it leaves the files to the folder's owner."""

    def __init__(self, folder: Path, settings: CurationSettings) -> None:
        self._files = ExitStack()
        self._records = self._files.enter_context(DiskLines(folder / "records"))
        self._sightings = self._files.enter_context(DiskLines(folder / "sightings"))
        self.folds = self._files.enter_context(DiskLines(folder / "folds"))
        """The folded answers, for near-twins."""
        self.buckets = bytearray()
        """By answer the index in SPLITS of the split that its text alone gives it."""
        self.ranks = array("Q")
        """By answer a number that orders answers by seed and text, whatever their order in the records."""
        self.attributes: set[str] = set()
        """Names of the attributes that any answer has."""
        self.always_kept = bytearray()
        """By answer 1 if balancing must not leave it out."""
        self._settings = settings
        self._key = str(settings.seed).encode()

    def __len__(self) -> int:
        return len(self.ranks)

    def add(self, sighting: Sighting, *, always_kept: bool) -> None:
        """Keep what later steps need of a sighting, and of the answer on its first one.

        An answer is always kept if any of its sightings is.
        """
        usable = sighting.usable
        self._sightings.append(canonical_json([sighting.number, usable.row.collection, usable.row.record.id]))
        if not sighting.is_first:
            self.always_kept[sighting.number] |= always_kept
            return
        self.always_kept.append(always_kept)
        self._records.append(usable.row.line)
        self.folds.append(folded(usable.identity).encode())
        split = split_bucket(
            usable.identity,
            validation_share=self._settings.validation_share,
            test_share=self._settings.test_share,
        )
        self.buckets.append(SPLITS.index(split))
        digest = blake2b(usable.identity.encode(), digest_size=8, key=self._key[:64]).digest()
        self.ranks.append(int.from_bytes(digest, "big"))
        self.attributes.update(usable.example.attributes)

    def records(self) -> Iterator[Record]:
        """The record of each answer, in number order."""
        return (Record.from_json(json.loads(line)) for line in self._records)

    def sightings(self) -> Iterator[tuple[int, int, str]]:
        """Answer number, collection number and record id of each usable record, in record order."""
        for line in self._sightings:
            number, collection, record_id = json.loads(line)
            yield number, collection, record_id

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._files.close()
