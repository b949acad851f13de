"""Identifiers made from content: the same inputs give the same id, so a repeated step is a no-op."""

from __future__ import annotations

import hashlib
import json
import re
import uuid

from tunesmith.domain.errors import InvalidInput

NAMESPACE = uuid.UUID("6a1f1f6e-7b0c-5c53-9d1e-6f5a2b9d7c11")
"""The uuid5 namespace of every id that Tunesmith derives."""

_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


def canonical_json(value: object) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes. Raises ValueError on NaN."""
    return _CANONICAL.encode(value).encode()


def content_id(kind: str, value: object, *, length: int = 16) -> str:
    """`<kind>-<hex>`: the first `length` hex digits of the SHA-256 of `value` as canonical JSON."""
    return f"{kind}-{hashlib.sha256(canonical_json(value)).hexdigest()[:length]}"


def derived_uuid(*parts: object) -> str:
    """uuid5 of the parts; used for job and event ids, which must be UUIDs for other tools."""
    return str(uuid.uuid5(NAMESPACE, canonical_json([str(part) for part in parts]).decode()))


def sha256_hex(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def check_name(value: str, *, what: str) -> str:
    """Return `value` if it can be part of an object key, else raise InvalidInput naming it and the rule."""
    if not _NAME.fullmatch(value):
        raise InvalidInput(
            f"{what} {value!r} is not a valid name: use 1 to 63 lower-case letters, digits, '.', '_' or '-', "
            "starting with a letter or digit",
            metadata={"value": value[:100], "what": what},
        )
    return value
