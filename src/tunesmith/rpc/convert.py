"""Small conversions between protobuf's well-known types and plain values."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf import json_format, struct_pb2, timestamp_pb2

from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.ids import canonical_json

_T = TypeVar("_T")

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


def to_timestamp(text: str) -> timestamp_pb2.Timestamp:
    """RFC 3339 text to a Timestamp."""
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(datetime.fromisoformat(text))
    return stamp


def to_struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """A JSON-like mapping to a Struct; its numbers become doubles."""
    struct = struct_pb2.Struct()
    json_format.Parse(canonical_json(values), struct)
    return struct


def from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct to plain values; whole doubles come back as int."""
    return {key: _whole(value) for key, value in json_format.MessageToDict(struct).items()}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def page_size(asked: int) -> int:
    """The page size to use for a request's `page_size`; InvalidInput when it is out of range."""
    if not 0 <= asked <= MAX_PAGE_SIZE:
        raise InvalidInput(
            f"page_size={asked} is out of range: it must lie between 0 (meaning {DEFAULT_PAGE_SIZE}) and "
            f"{MAX_PAGE_SIZE}",
            metadata={"field": "page_size"},
        )
    return asked or DEFAULT_PAGE_SIZE


def page(items: list[_T], *, token: str, size: int) -> tuple[list[_T], str]:
    """One page of `items` and the token of the next one; the token is an offset."""
    try:
        start = int(token or 0)
        if start < 0:
            raise ValueError(token)
    except ValueError:
        raise InvalidInput(
            f"page_token={token[:40]!r} is not one that this server gave", metadata={"field": "page_token"}
        ) from None
    end = start + size
    return items[start:end], str(end) if end < len(items) else ""


def checked_request_id(value: str) -> str:
    """`value` if it is empty or a UUID; InvalidInput otherwise (AIP-155)."""
    try:
        return str(uuid.UUID(value)) if value else ""
    except ValueError:
        raise InvalidInput(
            f"request_id={value[:60]!r} is not a UUID; send for example one made by uuid4, or nothing",
            metadata={"field": "request_id"},
        ) from None
