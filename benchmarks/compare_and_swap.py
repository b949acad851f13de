"""Racing writers on every store: exactly one winner, and nobody told wrong. Run: python benchmarks/compare_and_swap.py

Bars: with 32 writers and 1,000 rounds per adapter exactly one wins each round; with 10 % of the applied writes answered
503 or cut off (and others lost, doubled or carried out late) no outcome is misreported. A writer that cannot know is
told so, and then must read; how often that happened is printed.

Three races. `create`: all create one key. `replace`: all replace one version. `count`: all count up one object by
reading and replacing, so that a winner's write is soon replaced by others; every number must have been written by
exactly the writer that was told so.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.minio_setup import make_buckets
from tunesmith.adapters.minio_store import MinioStore
from tunesmith.domain.errors import AlreadyExists, Conflict, Unavailable
from tunesmith.ports.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import real_parts as parts
from store_faults import Faults, faulty

LOST_REPLIES = Faults(error_after=0.05, cut_after=0.05)
"""What the bar says: a tenth of the applied writes."""

ALL_FAULTS = Faults(error_after=0.05, cut_after=0.05, cut_before=0.03, twice=0.05, late=0.03, cut_reply=0.02)


@dataclass
class Tally:
    """What came of a race."""

    rounds: int = 0
    wins: int = 0
    not_one_winner: int = 0
    """Rounds after which not exactly one writer's bytes are those of a winner or of one who could not know."""
    misreported: int = 0
    """Writers that were told that they won and had not, or the reverse."""
    unknown: int = 0
    """Writers that were told to read again because their outcome is not known."""
    seconds: float = 0.0

    @property
    def is_right(self) -> bool:
        """Whether the bars are kept."""
        return not self.not_one_winner and not self.misreported

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


def race(store: Store, *, kind: str, writers: int, rounds: int) -> Tally:
    """Run one kind of race on keys of its own."""
    started_s = time.monotonic()
    with ThreadPoolExecutor(writers) as pool:
        key = f"races/{kind}-{secrets.token_hex(4)}"
        if kind == "count":
            tally = _count(store, key, pool, writers, rounds)
        else:
            tally = _rounds(store, key, pool, writers, rounds, creating=kind == "create")
    tally.seconds = time.monotonic() - started_s
    return tally


def _rounds(store: Store, key: str, pool: ThreadPoolExecutor, writers: int, rounds: int, *, creating: bool) -> Tally:
    tally = Tally()
    start = threading.Barrier(writers)
    version = "" if creating else store.create(key, b"start")
    for number in range(rounds):
        target = f"{key}/{number:05d}" if creating else key

        def write(writer: int, number: int = number, target: str = target, version: str = version) -> str:
            data = f"{number} {writer}".encode()
            start.wait()
            try:
                if creating:
                    store.create(target, data)
                else:
                    store.replace(target, data, version=version)
            except (AlreadyExists, Conflict):
                return "lost"
            except Unavailable:
                return "unknown"
            return "won"

        told = list(pool.map(write, range(writers)))
        stored = store.get(target)
        version = stored.version
        winner = int(stored.data.split()[1]) if stored.data.startswith(b"%d " % number) else None
        won = [writer for writer, outcome in enumerate(told) if outcome == "won"]
        tally.rounds += 1
        tally.wins += len(won)
        tally.unknown += told.count("unknown")
        tally.not_one_winner += winner is None
        tally.misreported += sum(writer != winner for writer in won)
        tally.misreported += winner is not None and told[winner] == "lost"
    return tally


def _count(store: Store, key: str, pool: ThreadPoolExecutor, writers: int, rounds: int) -> Tally:
    """Every write holds its number and a token; what each writer was told is compared with the whole line of writes."""
    tally = Tally(rounds=rounds)
    store.create(key, json.dumps([0, "start", ""]).encode())
    told: dict[str, tuple[int, str, str]] = {}
    lock = threading.Lock()

    def count(_: int) -> None:
        while True:
            stored = store.get(key)
            number, before, _token = json.loads(stored.data)
            if number >= rounds:
                return
            token = secrets.token_hex(6)
            try:
                store.replace(key, json.dumps([number + 1, token, before]).encode(), version=stored.version)
                outcome = "won"
            except Conflict:
                outcome = "lost"
            except Unavailable:
                outcome = "unknown"
            with lock:
                told[token] = (number + 1, outcome, before)

    list(pool.map(count, range(writers)))
    tally.wins = sum(outcome == "won" for _, outcome, _ in told.values())
    tally.unknown = sum(outcome == "unknown" for _, outcome, _ in told.values())
    # Backwards from what is stored: each write names the one that it replaced.
    token = json.loads(store.get(key).data)[1]
    line: list[str] = []
    while token != "start":
        line.append(token)
        token = told[token][2]
    tally.not_one_winner = abs(len(line) - rounds)
    tally.misreported = sum(told[token][1] == "lost" for token in line) + sum(
        outcome == "won" and token not in set(line) for token, (_, outcome, _) in told.items()
    )
    return tally


def _minio(server: parts.Minio, endpoint: str) -> MinioStore:
    url = f"s3://races?endpoint={endpoint}"
    return MinioStore.open(url, access_key=server.access_key, secret_key=server.secret_key)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="1000 for the bar, which takes half an hour")
    parser.add_argument("--writers", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(argv)
    right = True
    print(f"{given.writers} writers, seed {given.seed}")
    print(f"{'store':<34}{'race':<9}{'rounds':>7}{'wins':>7}{'not one':>9}{'misreported':>13}{'unknown':>9}{'s':>8}")

    def show(name: str, store: Store) -> None:
        nonlocal right
        for kind in ("create", "replace", "count"):
            tally = race(store, kind=kind, writers=given.writers, rounds=given.rounds)
            right = right and tally.is_right
            print(
                f"{name:<34}{kind:<9}{tally.rounds:>7}{tally.wins:>7}{tally.not_one_winner:>9}"
                f"{tally.misreported:>13}{tally.unknown:>9}{tally.seconds:>8.1f}",
                flush=True,
            )

    with tempfile.TemporaryDirectory() as folder:
        show("local", LocalStore(Path(folder) / "store"))
        try:
            server = parts.minio(Path(folder) / "minio")
        except parts.PartMissing as missing:
            print(f"MinIO left out: {missing}")
            return 1
        with parts.running(server):
            open_at: Callable[[str], MinioStore] = partial(_minio, server)
            make_buckets(open_at(server.endpoint).connection)
            show("minio", open_at(server.endpoint))
            for name, faults in (("10 % of replies lost", LOST_REPLIES), ("all faults", ALL_FAULTS)):
                with faulty(server.endpoint, faults, seed=given.seed) as proxy:
                    show(f"minio, {name}", open_at(proxy.endpoint))
                print(f"  struck: {dict(sorted(proxy.struck.items()))}")
    print("all bars kept" if right else "A BAR IS MISSED")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
