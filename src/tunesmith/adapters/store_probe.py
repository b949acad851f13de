"""Proves that a store keeps the conditions of writes. Jobs and champions are safe only on one that does."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from tunesmith.domain.errors import AlreadyExists, Conflict, FailedPrecondition, TunesmithError
from tunesmith.ports.store import Store

NUM_RACERS = 8
NUM_RACES = 4
"""Racing writes of each kind. Stores that check and write in two steps let several win nearly every time."""


def prove_conditions(store: Store, *, name: str) -> None:
    """Return when create-if-absent and compare-and-swap hold, alone and in races; FailedPrecondition otherwise.

    Writes a few objects under `probes/` and removes them. `name` is what the message calls the store. Takes some
    hundred requests, well below a second on a near store. Raises what the store raises when it cannot be used at all.
    """
    key = f"probes/{secrets.token_hex(8)}"
    made = [key]
    try:
        first = store.create(key, b"first")
        with suppress(AlreadyExists):
            store.create(key, b"another")
            raise _unfit(name, "creates an object that exists already (If-None-Match is ignored)")
        second = store.replace(key, b"second", version=first)
        with suppress(Conflict):
            store.replace(key, b"third", version=first)
            raise _unfit(name, "replaces an object that has changed (If-Match is ignored)")
        if store.get(key).data != b"second":
            raise _unfit(name, "does not keep what was written last")
        with ThreadPoolExecutor(NUM_RACERS) as pool:
            for race in range(NUM_RACES):
                fresh = f"{key}-{race}"
                made.append(fresh)
                _expect_one(pool, name, "creates", partial(store.create, fresh))
                _expect_one(pool, name, "replaces", partial(store.replace, key, version=second))
                second = store.get(key).version
    finally:
        for key in made:
            with suppress(TunesmithError):
                store.delete(key)


def _expect_one(pool: ThreadPoolExecutor, name: str, verb: str, write: Callable[[bytes], str]) -> None:
    start = threading.Barrier(NUM_RACERS)

    def attempt(number: int) -> bool:
        start.wait()
        try:
            write(f"{number} {secrets.token_hex(4)}".encode())
        except (AlreadyExists, Conflict):
            return False
        return True

    num_winners = sum(pool.map(attempt, range(NUM_RACERS)))
    if num_winners != 1:
        raise _unfit(name, f"lets {num_winners} of {NUM_RACERS} racing writers win that each {verb} one object")


def _unfit(name: str, what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the store {name} cannot be used: it {what}. Jobs could run twice and results be lost on it. Use MinIO "
        "(2025-09-07 or newer), or another S3 store that keeps If-None-Match and If-Match on PutObject; a gateway or "
        "cache before the store must pass both headers on",
        reason="STORE_IGNORES_CONDITIONS",
    )
