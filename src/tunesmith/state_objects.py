"""State objects beside those of jobs: one small JSON object each, changed only by compare-and-swap."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from tunesmith.catalogue import parse_object, read_object
from tunesmith.domain.errors import AlreadyExists, Conflict, NotFound, Unavailable
from tunesmith.domain.ids import canonical_json
from tunesmith.ports.store import Store

MAX_CAS_ROUNDS = 64
"""Lost races in a row before giving up: each loss means another writer made progress."""


class StateObject(Protocol):
    """What is stored. Every write has the next `rev` and a `writer` of its own, so that no two are equal bytes."""

    @property
    def rev(self) -> int: ...

    @property
    def writer(self) -> str: ...

    def to_json(self) -> dict[str, Any]: ...


_S = TypeVar("_S", bound=StateObject)


def new_writer() -> str:
    """The nonce of one write."""
    return secrets.token_hex(8)


def find_object(store: Store, key: str, parse: Callable[[Mapping[str, Any]], _S], *, what: str) -> _S | None:
    """The object, or None when there is none. DataLoss when it does not parse."""
    try:
        return read_object(store, key, parse, what=what)
    except NotFound:
        return None


def change_object(
    store: Store,
    key: str,
    step: Callable[[_S | None], _S | None],
    *,
    parse: Callable[[Mapping[str, Any]], _S],
    what: str,
) -> tuple[_S | None, bool]:
    """Apply `step` by compare-and-swap until it wins; the object as stored, and whether this call wrote it.

    `step` gets the current object (None when there is none) and returns the next, or None to leave it. It may run
    several times and may raise to refuse. A write whose outcome is unknown counts when its writer is read back.
    Conflict when others kept winning; DataLoss when the object does not parse.
    """
    for _ in range(MAX_CAS_ROUNDS):
        try:
            stored = store.get(key)
        except NotFound:
            current, version = None, ""
        else:
            current, version = parse_object(stored.data, parse, key=key, what=what), stored.version
        changed = step(current)
        if changed is None:
            return current, False
        try:
            if version:
                store.replace(key, canonical_json(changed.to_json()), version=version)
            else:
                store.create(key, canonical_json(changed.to_json()))
        except (AlreadyExists, Conflict, NotFound, Unavailable):
            now = find_object(store, key, parse, what=what)
            if now is None or (now.rev, now.writer) != (changed.rev, changed.writer):
                continue
        return changed, True
    raise Conflict(f"{what} changed {MAX_CAS_ROUNDS} times while it was being written; try again")
