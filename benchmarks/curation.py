"""What curating costs: wall, CPU and peak memory for 1,000, 10,000 and 100,000 synthetic records.

    .venv/bin/python benchmarks/curation.py
    .venv/bin/python benchmarks/curation.py --sizes 1000 20000 --answers lyrics

Each size runs in a process of its own, after a warm-up build of 200 records that pays for imports, so that the
numbers are what the records cost. The bars: ten times the records take at most 15 times the CPU, and 100,000 records
at most 100 MB more than 1,000.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Literal

from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain import keys
from tunesmith.domain.datasets import CurationSettings
from tunesmith.domain.examples import Dropped, Example
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.records import Collection, Licence, Provenance, Record
from tunesmith.recipes import recipe_named
from tunesmith.recipes.base import Recipe
from tunesmith.recipes.micro_genre import MicroGenre
from tunesmith_trainer.curation.build import build_dataset

Answers = Literal["names", "lyrics"]

MAX_CPU_GROWTH_FOR_TENFOLD = 15.0
MAX_MEMORY_GROWTH_MIB = 100.0

_RECORDS_PER_SHARD = 5000
_WARM_UP_RECORDS = 200


class LongAnswers(MicroGenre):
    """The micro-genre recipe without its length limit, to curate texts of the length of lyrics."""

    def example(self, record: Record, *, index: int) -> Example | Dropped:
        text = record.fields["name"]
        short = super().example(replace(record, fields={"name": record.id}), index=index)
        return short if isinstance(short, Dropped) else replace(short, completion=text, answer=text)


def main() -> int:
    """Print the table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="numbers of records")
    parser.add_argument("--answers", choices=["names", "lyrics"], default="names", help="10-30 or 1,500 characters")
    parser.add_argument("--balance", action="store_true", help="balance by word and language as well")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    settings = (
        CurationSettings(max_word_share=0.02, max_language_share=0.5) if arguments.balance else CurationSettings()
    )
    if arguments.child is not None:
        print(json.dumps(_measure(arguments.child, arguments.answers, settings)))
        return 0
    options = ["--answers", arguments.answers, *(["--balance"] if arguments.balance else [])]
    return _print_table([_measure_in_child(size, options) for size in arguments.sizes])


def _measure_in_child(size: int, options: Sequence[str]) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", str(size), *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _measure(size: int, answers: Answers, settings: CurationSettings) -> dict[str, float]:
    recipe: Recipe = recipe_named("micro_genre")
    if answers == "lyrics":
        recipe = LongAnswers(**{name: getattr(recipe, name) for name in recipe.__dataclass_fields__})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store = LocalStore(folder / "store")
        _build(recipe, _collect(store, _WARM_UP_RECORDS, answers), settings, store, folder)
        collection = _collect(store, size, answers)
        base_mib = _peak_mib()
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        num_examples = _build(recipe, collection, settings, store, folder)
        return {
            "records": size,
            "examples": num_examples,
            "wall_s": time.perf_counter() - wall_s,
            "cpu_s": time.process_time() - cpu_s,
            "base_mib": base_mib,
            "peak_mib": _peak_mib(),
        }


def _build(recipe: Recipe, collection: Collection, settings: CurationSettings, store: LocalStore, folder: Path) -> int:
    dataset, _ = build_dataset(
        recipe,
        [collection],
        settings,
        store=store,
        clock=SystemClock(),
        work_dir=folder / "work",
        report=lambda _: None,
        should_stop=lambda: False,
    )
    return sum(dataset.num_examples.values())


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _collect(store: LocalStore, size: int, answers: Answers) -> Collection:
    collection_id = f"col-{size}"
    shard_keys = []
    texts = _texts(size, answers)
    for number, first in enumerate(range(0, size, _RECORDS_PER_SHARD)):
        key = keys.record_shard("micro_genre", collection_id, number)
        rows = range(first, min(first + _RECORDS_PER_SHARD, size))
        store.put(key, b"".join(canonical_json(_record(next(texts), row).to_json()) + b"\n" for row in rows))
        shard_keys.append(key)
    return Collection(collection_id, "micro_genre", "bench:", size, tuple(shard_keys), {"CC0-1.0": size}, "2026-11-21")


def _record(text: str, position: int) -> Record:
    provenance = Provenance(
        source="bench:",
        url="https://example.org/genres",
        final_url="https://example.org/genres",
        licence=Licence("CC0-1.0"),
        fetched_at="2026-11-21T10:00:00.000000Z",
        content_hash="0" * 64,
        position=position,
    )
    language = ("en", "en", "en", "es", "ja")[position % 5]
    return Record.make({"name": text, "language": language}, provenance)


def _texts(size: int, answers: Answers) -> Iterator[str]:
    """Words drawn by Zipf's law; 5 % of the texts repeat an earlier one, 5 % respell one."""
    rng = random.Random(7)
    vocabulary = ["".join(rng.choices("aeioubcdfghklmnprstvz", k=rng.randint(3, 9))) for _ in range(20_000)]
    cumulative = list(accumulate(1 / rank for rank in range(10, len(vocabulary) + 10)))
    recent: deque[str] = deque(maxlen=1000)
    for _ in range(size):
        kind = rng.random()
        if recent and kind < 0.05:
            yield rng.choice(recent)
            continue
        if recent and kind < 0.10:
            yield rng.choice(recent).replace(" ", "-", 1)
            continue
        num_words = rng.randint(1, 4) if answers == "names" else 250
        text = " ".join(rng.choices(vocabulary, cum_weights=cumulative, k=num_words))
        recent.append(text)
        yield text


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    name: str
    form: str


_COLUMNS = (
    _Column("records", "records", "{:,.0f}"),
    _Column("examples", "examples", "{:,.0f}"),
    _Column("wall s", "wall_s", "{:.2f}"),
    _Column("CPU s", "cpu_s", "{:.2f}"),
    _Column("records / CPU s", "rate", "{:,.0f}"),
    _Column("peak MiB", "peak_mib", "{:.0f}"),
    _Column("growth MiB", "growth_mib", "{:.0f}"),
    _Column("CPU x", "cpu_growth", "{:.1f}"),
)


def _print_table(measured: Sequence[dict[str, float]]) -> int:
    print(" | ".join(column.title for column in _COLUMNS))
    print(" | ".join("---:" for _ in _COLUMNS))
    missed = []
    for number, row in enumerate(measured):
        before = measured[max(number - 1, 0)]
        row["rate"] = row["records"] / row["cpu_s"]
        row["growth_mib"] = row["peak_mib"] - measured[0]["peak_mib"]
        row["cpu_growth"] = row["cpu_s"] / before["cpu_s"]
        print(" | ".join(column.form.format(row[column.name]) for column in _COLUMNS))
        limit = MAX_CPU_GROWTH_FOR_TENFOLD * row["records"] / before["records"] / 10
        if number and row["cpu_growth"] > limit:
            missed.append(f"CPU grew {row['cpu_growth']:.1f} times to {row['records']:,.0f} records, limit {limit:.1f}")
        if row["growth_mib"] > MAX_MEMORY_GROWTH_MIB:
            missed.append(f"memory grew {row['growth_mib']:.0f} MiB, limit {MAX_MEMORY_GROWTH_MIB:.0f}")
    print("\n".join(missed) or "both bars are met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
