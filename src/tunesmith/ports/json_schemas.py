"""JSON Schemas that every backend can follow, and the limits of one that a caller sends. Free of any schema library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tunesmith.domain.errors import InvalidInput

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
"""Of schemas inside one another, references followed."""
MAX_NODES = 2_000
"""Schemas in all, references followed: a few references that double each other would otherwise stand for billions."""
MAX_VALUES = 1_000
"""Of one enum, and of one object's properties."""
MAX_REPEATS = 100_000
"""Largest minItems, maxItems, minLength or maxLength."""

_WITHOUT_EFFECT = ("title", "description", "default", "examples", "$comment", "$schema", "$defs", "definitions")
_REPEATS = ("minItems", "maxItems", "minLength", "maxLength")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
KEYWORDS = frozenset(
    (*_WITHOUT_EFFECT, *_REPEATS, *_BOUNDS, "type", "properties", "required", "additionalProperties", "items", "enum",
     "const", "anyOf", "$ref")
)  # fmt: skip
"""What outlines, xgrammar and llguidance all have. Not among them: `pattern`, whose expressions Python could not check
in bounded time."""

_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})


@lru_cache(maxsize=64)
def checked(text: str) -> Mapping[str, Any]:
    """The schema in `text`, read. InvalidInput names what is beyond a limit, where, and the limit.

    It describes an object with `properties`, as text-generation-inference wants it, and refers only to itself, never in
    a circle.
    """
    size_bytes = len(text.encode(errors="replace"))
    if size_bytes > MAX_BYTES:
        raise _refused(f"has {size_bytes} bytes; at most {MAX_BYTES} are read", limit=MAX_BYTES)
    try:
        schema = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _refused(f"is not JSON ({str(error)[:80]}); send a JSON Schema as JSON text") from error
    if not isinstance(schema, dict):
        raise _refused("is not a JSON object; send a JSON Schema")
    _Reader(schema).read(schema, path="$", depth=1, behind=())
    top = schema
    if schema.get("type") != "object" or not isinstance(top.get("properties"), dict) or not top["properties"]:
        raise _refused('must describe an object: {"type": "object", "properties": {...}}')
    frozen: Mapping[str, Any] = schema
    return frozen


class _Reader:
    """Walks over a schema, following its references."""

    def __init__(self, whole: Mapping[str, Any]) -> None:
        self._whole = whole
        self._num_nodes = 0

    def read(self, schema: Any, *, path: str, depth: int, behind: tuple[str, ...]) -> None:
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            raise _refused(f"has no schema at {path}: {json.dumps(schema)[:60]}")
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:
            raise _refused(
                f"stands for more than {MAX_NODES} schemas once its references are followed", limit=MAX_NODES
            )
        if depth > MAX_DEPTH:
            raise _refused(f"is nested more than {MAX_DEPTH} deep at {path[:120]}", limit=MAX_DEPTH)
        for keyword, value in schema.items():
            if keyword not in KEYWORDS:
                raise _refused(
                    f"uses {keyword[:40]!r} at {path[:120]}, which not every backend has; known keywords: "
                    f"{', '.join(sorted(KEYWORDS))}"
                )
            self._read_keyword(keyword, value, path=f"{path}.{keyword[:40]}", depth=depth, behind=behind)

    def _read_keyword(self, keyword: str, value: Any, *, path: str, depth: int, behind: tuple[str, ...]) -> None:
        match keyword:
            case "type":
                named = value if isinstance(value, list) else [value]
                if not named or not all(isinstance(each, str) and each in _TYPES for each in named):
                    raise _refused(
                        f"has the type {json.dumps(value)[:60]} at {path}; types: {', '.join(sorted(_TYPES))}"
                    )
            case "properties":
                for name, each in _object(value, path).items():
                    self.read(each, path=f"{path}.{name[:40]}", depth=depth + 1, behind=behind)
            case "required":
                if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                    raise _refused(f"has no list of names at {path}")
            case "items" | "additionalProperties":
                self.read(value, path=path, depth=depth + 1, behind=behind)
            case "anyOf":
                if not isinstance(value, list) or not value:
                    raise _refused(f"has no list of schemas at {path}")
                for number, each in enumerate(value):
                    self.read(each, path=f"{path}[{number}]", depth=depth + 1, behind=behind)
            case "enum":
                if not isinstance(value, list) or not 1 <= len(value) <= MAX_VALUES:
                    raise _refused(f"must have 1 to {MAX_VALUES} values at {path}", limit=MAX_VALUES)
            case "$ref":
                self._follow(value, path=path, depth=depth, behind=behind)
            case _ if keyword in _REPEATS:
                if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_REPEATS:
                    raise _refused(f"must have a whole number up to {MAX_REPEATS} at {path}", limit=MAX_REPEATS)
            case _ if keyword in _BOUNDS:
                if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e15:
                    raise _refused(f"must have a number between -1e15 and 1e15 at {path}")

    def _follow(self, reference: Any, *, path: str, depth: int, behind: tuple[str, ...]) -> None:
        if not isinstance(reference, str) or not reference.startswith("#/"):
            raise _refused(f"refers to {json.dumps(reference)[:80]} at {path}; only '#/...' in itself is followed")
        if reference in behind:
            raise _refused(f"refers to itself in a circle by {reference[:80]}; answers must have a bounded depth")
        found: Any = self._whole
        for part in reference[2:].split("/"):
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        if found is None:
            raise _refused(f"has nothing at {reference[:80]}, to which {path} refers")
        self.read(found, path=reference[:80], depth=depth + 1, behind=(*behind, reference))


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > MAX_VALUES:
        raise _refused(f"must have an object of at most {MAX_VALUES} properties at {path}", limit=MAX_VALUES)
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _refused(what: str, *, limit: int | None = None) -> InvalidInput:
    metadata = {"parameter": "json_schema"} | ({} if limit is None else {"limit": str(limit)})
    return InvalidInput(f"generation parameter json_schema {what}", reason="SCHEMA_REFUSED", metadata=metadata)
