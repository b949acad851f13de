"""Reading what is kept in the store as JSON objects: one, or all of a kind."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tunesmith.domain.errors import DataLoss, NotFound
from tunesmith.ports.store import Store

log = logging.getLogger(__name__)

_T = TypeVar("_T")


def read_object(store: Store, key: str, parse: Callable[[Mapping[str, Any]], _T], *, what: str) -> _T:
    """The object under `key`, parsed. NotFound names `what`; DataLoss the key of an object that does not parse."""
    try:
        data = store.get(key).data
    except NotFound:
        raise NotFound(f"{what} does not exist", metadata={"key": key}) from None
    return parse_object(data, parse, key=key, what=what)


def parse_object(data: bytes, parse: Callable[[Mapping[str, Any]], _T], *, key: str, what: str) -> _T:
    """The parsed bytes of the object `key`; DataLoss names the key of one that does not parse."""
    try:
        return parse(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataLoss(
            f"the stored object {key} ({what}) is corrupt ({type(error).__name__}: {error}); restore it from a backup, "
            "or delete it and make it again",
            reason="CORRUPT_OBJECT",
            metadata={"key": key},
        ) from error


def list_objects(
    store: Store, prefix: str, parse: Callable[[Mapping[str, Any]], _T], *, what: str, suffix: str = ".json"
) -> list[_T]:
    """All objects under `prefix` whose key ends with `suffix`, in key order; corrupt ones are logged and left out."""
    found = []
    for info in store.list(prefix):
        if not info.key.endswith(suffix):
            continue
        try:
            found.append(read_object(store, info.key, parse, what=what))
        except (NotFound, DataLoss) as error:
            log.error("%s", error)
    return found
