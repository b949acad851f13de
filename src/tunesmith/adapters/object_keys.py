"""Which object keys are valid; every store adapter checks them here."""

from __future__ import annotations

import re

from tunesmith.domain.errors import InvalidInput

MAX_KEY_BYTES = 512
MAX_SEGMENT_BYTES = 255
"""The longest file name that Linux file systems, and MinIO on top of them, can hold."""

_SEGMENT = r"[A-Za-z0-9._=-]{1,255}"
_KEY = re.compile(rf"(?:{_SEGMENT}/)*{_SEGMENT}")
_PREFIX = re.compile(rf"(?:{_SEGMENT}/)*(?:{_SEGMENT})?")
_RULE = (
    f"use at most {MAX_KEY_BYTES} bytes in '/'-separated segments of 1 to {MAX_SEGMENT_BYTES} ASCII letters, digits, "
    "'.', '_', '=' or '-', none of them '.' or '..'"
)


def check_key(key: str) -> str:
    """Return `key` if it can name an object, else raise InvalidInput with the rule."""
    return _checked(key, _KEY, what="object key")


def check_prefix(prefix: str) -> str:
    """Return `prefix` if a key can start with it, else raise InvalidInput with the rule."""
    return _checked(prefix, _PREFIX, what="key prefix")


def is_segment(name: str) -> bool:
    """Whether `name` can be one segment of a key."""
    return re.fullmatch(_SEGMENT, name) is not None and name not in (".", "..")


def _checked(text: str, pattern: re.Pattern[str], *, what: str) -> str:
    climbs = any(segment in (".", "..") for segment in text.split("/"))
    if climbs or len(text) > MAX_KEY_BYTES or not pattern.fullmatch(text):
        raise InvalidInput(
            f"{what} {text[:100]!r} ({len(text)} characters) is not valid: {_RULE}",
            reason="INVALID_OBJECT_KEY",
            metadata={"value": text[:100]},
        )
    return text
