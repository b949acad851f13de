"""Collections in, one immutable dataset out: the whole of curation, read from top to bottom."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tunesmith.domain import keys
from tunesmith.domain.datasets import CurationSettings, Dataset
from tunesmith.domain.errors import AlreadyExists, Interrupted, InvalidInput, NoUsableRows
from tunesmith.domain.examples import SPLITS, Dropped, Example, Split
from tunesmith.domain.ids import canonical_json, content_id
from tunesmith.domain.jobs import Progress, ProgressReporter
from tunesmith.domain.records import Collection, Record
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.store import Store
from tunesmith.recipes.base import Recipe
from tunesmith_trainer.curation.answers import Answers
from tunesmith_trainer.curation.balance import Traits, overrepresented
from tunesmith_trainer.curation.disk_lines import DiskLines
from tunesmith_trainer.curation.distributions import Distributions
from tunesmith_trainer.curation.drops import (
    BALANCE_LANGUAGE,
    BALANCE_WORD,
    EXACT_DUPLICATE,
    LANGUAGE_DISAGREES,
    LANGUAGE_NOT_WANTED,
    LANGUAGE_UNKNOWN,
    NEAR_DUPLICATE,
    SAMPLED_OUT,
    Drops,
)
from tunesmith_trainer.curation.languages import UNKNOWN, LanguageDetector, language_of
from tunesmith_trainer.curation.load import file_sha256, load_dataset_manifest
from tunesmith_trainer.curation.near_twins import twin_clusters
from tunesmith_trainer.curation.selection import Selection
from tunesmith_trainer.curation.splits import assign_splits
from tunesmith_trainer.curation.steps import Row, in_reading_order, read_rows, sightings, usable_rows

CURATION_VERSION = 1
"""Part of every dataset id; raised when the same records and settings would give other rows."""

_ROWS_PER_REPORT = 1000

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


def build_dataset(
    recipe: Recipe,
    collections: Sequence[Collection],
    settings: CurationSettings,
    *,
    store: Store,
    clock: Clock,
    work_dir: Path,
    report: ProgressReporter,
    should_stop: Callable[[], bool],
) -> tuple[Dataset, bool]:
    """Curate the records of `collections` into a dataset, and say whether it existed already.

    Steps: recipe filters, sample, languages, exact duplicates, near-twins, balancing, split, prompts. The order of
    `collections` does not matter. The id follows from recipe, settings, CURATION_VERSION and the bytes of the three
    shards (which hold the ordered examples and no times): collections that add nothing new give the stored dataset
    back, with the counts and the lineage of its first build. Shards and lineage are written before the manifest, so a
    dataset whose manifest is there is whole, and a build that died leaves nothing that counts and is simply run again.

    `work_dir` takes the texts, some 1.5 times the size of the records; memory grows by some 350 bytes an answer.
    The folder `work_dir/curation` is emptied first and removed at the end.

    Raises NoUsableRows when fewer than `recipe.min_train_examples` training rows remain, Interrupted soon after
    `should_stop` says so, DataLoss when a record shard is missing or corrupt, InvalidInput for settings or
    collections that cannot work.
    """
    _check(recipe, collections, settings)
    folder = work_dir / "curation"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with Answers(folder, settings) as answers:
            pace = _Pace(report, should_stop)
            detect = LanguageDetector()
            build = _Build(recipe, in_reading_order(collections), settings, store, folder, pace, answers, detect)
            return build.run(clock)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(recipe: Recipe, collections: Sequence[Collection], settings: CurationSettings) -> None:
    similarity = settings.near_duplicate_similarity
    if not 0 < similarity <= 1:
        raise InvalidInput(
            f"near_duplicate_similarity={similarity} is outside (0, 1]; the default is "
            f"{CurationSettings().near_duplicate_similarity}",
            metadata={"field": "near_duplicate_similarity", "value": str(similarity)},
        )
    shares = {"max_word_share": settings.max_word_share, "max_language_share": settings.max_language_share}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise InvalidInput(
                f"{name}={share} is outside [0, 1]; use 0 to turn it off, or a share such as 0.05",
                metadata={"field": name, "value": str(share)},
            )
    settings.check()
    for collection in collections:
        if collection.recipe != recipe.name:
            raise InvalidInput(
                f"collection {collection.id} was collected for recipe {collection.recipe!r}, not {recipe.name!r}; "
                f"collect {collection.source} for {recipe.name!r}",
                metadata={"collection": collection.id, "value": collection.recipe, "recipe": recipe.name},
            )


@dataclass(frozen=True, slots=True)
class _Pace:
    """Reports progress and notices a stop, every _ROWS_PER_REPORT rows."""

    report: ProgressReporter
    should_stop: Callable[[], bool]

    def each(self, rows: Iterable[_T], *, stage: str, total: int, unit: str) -> Iterator[_T]:
        """`rows`, with progress on the way and at the end."""
        done = 0
        for done, row in enumerate(rows, start=1):
            yield row
            if done % _ROWS_PER_REPORT == 0:
                self.check(stage, done, total, unit)
        self.check(stage, done, total, unit)

    def check(self, stage: str, done: int, total: int, unit: str) -> None:
        """Report, then raise Interrupted if asked to stop."""
        self.report(Progress(stage, done=done, total=total, unit=unit))
        if self.should_stop():
            raise Interrupted(
                f"curation was asked to stop while {stage} ({done} of {total} {unit}); "
                "nothing was published, running it again starts over",
                metadata={"stage": stage},
            )


@dataclass(frozen=True, slots=True)
class _Build:
    """One build: its inputs, and the steps over them in the order of `run`."""

    recipe: Recipe
    collections: tuple[Collection, ...]
    settings: CurationSettings
    store: Store
    folder: Path
    pace: _Pace
    answers: Answers
    detect: LanguageDetector

    def run(self, clock: Clock) -> tuple[Dataset, bool]:
        drops, distributions = Drops(), Distributions()
        num_records = self._read(drops)
        roots = self._find_twins()
        kept = bytearray([1]) * len(self.answers)
        if self.settings.drop_near_duplicates:
            self._drop_twins(roots, kept, drops)
        if self.settings.max_word_share or self.settings.max_language_share:
            self._balance(kept, drops, distributions)
        splits = assign_splits(roots, self.answers.buckets, kept, ranks=self.answers.ranks)
        num_examples: dict[str, int] = {split: splits.count(split) for split in SPLITS}
        if num_examples["train"] < max(self.recipe.min_train_examples, 1):
            raise _no_usable_rows(self.recipe, num_records, num_examples, drops)
        with DiskLines(self.folder / "example-ids") as example_ids:
            self._write_shards(splits, example_ids, distributions)
            self._write_lineage(splits, roots, example_ids)
        assert num_records == sum(num_examples.values()) + drops.total, "each record is an example or a counted drop"

        hashes: dict[str, str] = {split: file_sha256(self._shard(split)) for split in SPLITS}
        settings = self.settings.to_json()
        dataset_id = content_id("ds", [CURATION_VERSION, self.recipe.name, settings, hashes])
        dataset = Dataset(
            id=dataset_id,
            recipe=self.recipe.name,
            shards={split: keys.dataset_shard(self.recipe.name, dataset_id, split) for split in SPLITS},
            shard_hashes=hashes,
            num_examples=num_examples,
            num_records=num_records,
            dropped=drops.counts(),
            distributions=distributions.top(),
            settings=settings,
            collections=tuple(collection.id for collection in self.collections),
            licences=_licences(self.collections),
            created_at=rfc3339(clock.now()),
        )
        return self._publish(dataset)

    def _read(self, drops: Drops) -> int:
        """Fill `answers`, and return the number of records read."""
        num_records = 0

        def counted(rows: Iterable[Row]) -> Iterator[Row]:
            nonlocal num_records
            for row in rows:
                num_records += 1
                yield row

        rows = counted(read_rows(self.collections, store=self.store, folder=self.folder))
        promised = sum(collection.num_records for collection in self.collections)
        rows = self.pace.each(rows, stage="reading", total=promised, unit="records")
        selection = Selection(self.settings, detect=self.detect)
        chosen = selection.of(usable_rows(rows, self.recipe, drops), drops)
        for sighting in sightings(chosen, drops):
            self.answers.add(sighting, always_kept=selection.always_keeps(sighting.usable.example))
        return num_records

    def _find_twins(self) -> Sequence[int]:
        total = 2 * len(self.answers)
        return twin_clusters(
            self.answers.folds,
            similarity=self.settings.near_duplicate_similarity,
            num_chars=self.settings.near_duplicate_chars,
            seed=self.settings.seed,
            checkpoint=lambda done: self.pace.check("comparing", done, total, "answers"),
        )

    def _drop_twins(self, roots: Sequence[int], kept: bytearray, drops: Drops) -> None:
        for number, root in enumerate(roots):
            if number != root:
                kept[number] = 0
                drops.add(Dropped(NEAR_DUPLICATE, self.answers.folds[number].decode()))

    def _balance(self, kept: bytearray, drops: Drops, distributions: Distributions) -> None:
        by_word, by_language = self.settings.max_word_share > 0, self.settings.max_language_share > 0
        traits = Traits()
        records = self.pace.each(self.answers.records(), stage="balancing", total=len(kept), unit="answers")
        for example in (_example(self.recipe, record, index=0) for record in records):
            traits.append(
                self.recipe.attributes(example.answer).get("word", ()) if by_word else (),
                language_of(example, detect=self.detect) if by_language else UNKNOWN,
            )
        refused = overrepresented(
            traits,
            sorted(
                (n for n, is_kept in enumerate(kept) if is_kept and not self.answers.always_kept[n]),
                key=self.answers.ranks.__getitem__,
            ),
            max_word_share=self.settings.max_word_share,
            max_language_share=self.settings.max_language_share,
        )
        for number, dropped in refused.items():
            kept[number] = 0
            drops.add(dropped)
            distributions.add(f"dropped_{dropped.reason}", [dropped.detail])

    def _write_shards(
        self, splits: Sequence[Split | None], example_ids: DiskLines, distributions: Distributions
    ) -> None:
        """One row per kept answer in record order, with `index` counting them over all splits.

        `datasets.load_dataset` infers types from the first rows, so every row has every attribute, `""` for none.
        """
        attributes = sorted(self.answers.attributes)
        num_written = 0
        records = self.pace.each(self.answers.records(), stage="writing", total=len(splits), unit="answers")
        with ExitStack() as stack:
            shards = {split: stack.enter_context(self._shard(split).open("wb")) for split in SPLITS}
            for record, split in zip(records, splits, strict=True):
                if split is None:
                    example_ids.append(b"")
                    continue
                example = _example(self.recipe, record, index=num_written)
                num_written += 1
                example_ids.append(example.id.encode())
                distributions.add_example(example, split, self.recipe)
                row = example.to_json() | {
                    "attributes": {name: example.attributes.get(name, "") for name in attributes}
                }
                shards[split].write(canonical_json(row) + b"\n")

    def _write_lineage(self, splits: Sequence[Split | None], roots: Sequence[int], example_ids: DiskLines) -> None:
        """One line per record whose answer is in the dataset: its own (`kept`), or one that stands for it."""
        num_seen = 0
        with (self.folder / "lineage.jsonl").open("wb") as lineage:
            for number, collection, record_id in self.answers.sightings():
                relation = "kept" if number == num_seen else EXACT_DUPLICATE
                num_seen = max(num_seen, number + 1)
                if splits[number] is None:
                    number, relation = roots[number], NEAR_DUPLICATE
                if splits[number] is None or (relation == NEAR_DUPLICATE and not self.settings.drop_near_duplicates):
                    continue
                row = {
                    "record_id": record_id,
                    "collection_id": self.collections[collection].id,
                    "example_id": example_ids[number].decode(),
                    "split": splits[number],
                    "relation": relation,
                }
                lineage.write(canonical_json(row) + b"\n")

    def _publish(self, dataset: Dataset) -> tuple[Dataset, bool]:
        manifest = keys.dataset(dataset.recipe, dataset.id)
        if not self.store.exists(manifest):
            for split in SPLITS:
                self.store.put_file(dataset.shards[split], self._shard(split))
            self.store.put_file(keys.dataset_lineage(dataset.recipe, dataset.id), self.folder / "lineage.jsonl")
            try:
                self.store.create(manifest, canonical_json(dataset.to_json()))
            except AlreadyExists:
                _log.info("dataset %s was built by someone else meanwhile", dataset.id)
            else:
                _log.info("dataset %s: %s, dropped %s", dataset.id, dataset.num_examples, dataset.dropped)
                return dataset, False
        return load_dataset_manifest(dataset.recipe, dataset.id, store=self.store), True

    def _shard(self, split: Split) -> Path:
        return self.folder / f"{split}.jsonl"


def _example(recipe: Recipe, record: Record, *, index: int) -> Example:
    example = recipe.example(record, index=index)
    assert isinstance(example, Example), f"recipe {recipe.name} took record {record.id} at first and dropped it at last"
    return example


def _licences(collections: Sequence[Collection]) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for collection in collections:
        total.update(collection.licences)
    return dict(sorted(total.items()))


def _no_usable_rows(recipe: Recipe, num_records: int, num_examples: Mapping[str, int], drops: Drops) -> NoUsableRows:
    counts = drops.counts()
    if not num_records:
        fix = "collect records first"
    elif counts.get(BALANCE_WORD) or counts.get(BALANCE_LANGUAGE):
        fix = "raise max_word_share or max_language_share, or collect more varied records"
    elif counts.get(SAMPLED_OUT):
        fix = "raise sample_share, or collect more records"
    elif any(counts.get(r) for r in (LANGUAGE_NOT_WANTED, LANGUAGE_DISAGREES, LANGUAGE_UNKNOWN)):
        fix = "allow more languages, set language_by=column or detection, or collect more records"
    elif counts.get(NEAR_DUPLICATE):
        fix = "set drop_near_duplicates=false, raise near_duplicate_similarity, or collect more records"
    else:
        fix = f"collect more records with a usable {recipe.record_fields[0]!r}"
    return NoUsableRows(
        f"recipe {recipe.name!r} needs at least {recipe.min_train_examples} training rows and has "
        f"{num_examples['train']}: {num_records} records came in, {drops.total} were dropped"
        f"{f' ({drops})' if drops.total else ''}, {sum(num_examples.values())} remain "
        f"({', '.join(f'{split} {count}' for split, count in num_examples.items())}); {fix}",
        metadata={
            "num_records": str(num_records),
            "num_train_examples": str(num_examples["train"]),
            "min_train_examples": str(recipe.min_train_examples),
            **{f"dropped_{reason}": str(count) for reason, count in counts.items()},
        },
    )
