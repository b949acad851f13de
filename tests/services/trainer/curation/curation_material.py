"""Collections to curate, and one call that curates them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tunesmith.domain import keys
from tunesmith.domain.datasets import CurationSettings, Dataset
from tunesmith.domain.ids import canonical_json, content_id
from tunesmith.domain.jobs import Progress
from tunesmith.domain.records import Collection, Licence, Provenance, Record
from tunesmith.ports.store import Store
from tunesmith.recipes import recipe_named
from tunesmith_trainer.curation.build import build_dataset

RECIPE = recipe_named("micro_genre")

# No two are near-twins, and their split buckets are 80 % train.
PLAIN_NAMES = tuple(
    f"{first} {second}"
    for first in ("acid", "baroque", "cosmic", "dust", "ember", "frozen", "ghost", "harbour")
    for second in ("jazz", "mambo", "polka", "techno", "waltz", "grindcore")
)


class TickingClock:
    """A clock that is a second later each time it is read."""

    def __init__(self) -> None:
        self._now = datetime(2026, 11, 21, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now

    def monotonic_s(self) -> float:
        return self._now.timestamp()

    def sleep(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


@dataclass
class Workbench:
    """A store to collect into, and a folder to curate in."""

    store: Store
    folder: Path
    clock: TickingClock = field(default_factory=TickingClock)
    reported: list[Progress] = field(default_factory=list)

    def collect(
        self,
        names: Sequence[str | Mapping[str, str]],
        *,
        source: str = "list:one",
        licence: str = "CC0-1.0",
        created_at: str = "2026-11-01",
        shard_size: int = 7,
    ) -> Collection:
        records = [
            Record.make(
                {"name": row} if isinstance(row, str) else row,
                Provenance(source, "u", "u", Licence(licence), "2026-11-01T00:00:00.000000Z", "0" * 64, position=n),
            )
            for n, row in enumerate(names)
        ]
        collection_id = content_id("col", [source, [record.id for record in records]])
        shards = []
        for first in range(0, len(records), shard_size):
            key = keys.record_shard(RECIPE.name, collection_id, len(shards))
            lines = (canonical_json(record.to_json()) + b"\n" for record in records[first : first + shard_size])
            self.store.put(key, b"".join(lines))
            shards.append(key)
        return Collection(
            collection_id, RECIPE.name, source, len(records), tuple(shards), {licence: len(records)}, created_at
        )

    def build(
        self,
        *collections: Collection,
        settings: CurationSettings | None = None,
        store: Store | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> tuple[Dataset, bool]:
        return build_dataset(
            RECIPE,
            collections,
            settings or RECIPE.curation,
            store=store or self.store,
            clock=self.clock,
            work_dir=self.folder / "work",
            report=self.reported.append,
            should_stop=should_stop,
        )
