"""JSON: an array of strings or objects, or one string or object a line (JSON lines)."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tunesmith_scraper.formats.layout import Layout, Row, Skipped, matching_name

_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
"""Numbers stay as they are written: records hold text, and huge ones cost nothing."""


def rows(layout: Layout) -> Iterator[Row]:
    """One row an item. An array is decoded item by item, from a text of at most `max_parsed_bytes`."""
    items = _array_items(layout) if layout.head().lstrip().startswith("[") else _line_items(layout)
    checked_keys = False
    for where, item in items:
        if isinstance(item, Skipped):
            yield item
            continue
        if isinstance(item, dict) and not checked_keys:
            for field in layout.needed:
                if matching_name(layout.columns[field], list(item)) is None:
                    raise layout.missing_column(field, list(item), kind="key")
            checked_keys = True
        yield _row(layout, item, where)


def _row(layout: Layout, item: object, where: str) -> Row:
    if isinstance(item, str):
        if len(layout.needed) > 1:
            raise layout.unusable(
                f"{where} is only a string, but records need {', '.join(layout.needed)}; send objects with these keys",
                reason="FIELDS_MISSING",
            )
        return {layout.needed[0]: item}
    if not isinstance(item, dict):
        return Skipped("not_text")
    names = list(item)
    values: dict[str, str] = {}
    for field, key in layout.columns.items():
        index = matching_name(key, names)
        value = item[names[index]] if index is not None else None
        if value is None:
            value = ""
        if not isinstance(value, str):
            if field in layout.needed:
                return Skipped("not_text")
            value = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else ""
        values[field] = value
    return values


def _array_items(layout: Layout) -> Iterator[tuple[str, object]]:
    size_bytes = layout.path.stat().st_size
    if size_bytes > layout.max_parsed_bytes:
        raise layout.too_large_to_parse(size_bytes, fix="send it as JSON lines, one object a line")
    text = layout.path.read_text(encoding=layout.encoding, errors=layout.errors)
    at = _after_space(text, text.index("[") + 1)
    number = 0
    while not text.startswith("]", at):
        number += 1
        item, at = _decoded(layout, text, at, f"item {number}")
        yield f"item {number}", item
        at = _after_space(text, at)
        if text.startswith(",", at):
            at = _after_space(text, at + 1)
        elif not text.startswith("]", at):
            raise layout.unusable(
                f"after item {number} (line {text.count(chr(10), 0, at) + 1}) neither ',' nor ']' follows; "
                "the JSON array is damaged or cut off",
                reason="BAD_JSON",
            )
    if text[at + 1 :].strip():
        raise layout.unusable("text follows the end of its JSON array; send one array", reason="BAD_JSON")


def _line_items(layout: Layout) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(layout.lines(), start=1):
        text = line.strip()
        if not text:
            yield f"line {number}", Skipped("blank_line")
            continue
        item, end = _decoded(layout, text, 0, f"line {number}")
        if text[end:].strip():
            raise layout.unusable(f"line {number} holds more than one JSON value", reason="BAD_JSON", line=str(number))
        yield f"line {number}", item


def _decoded(layout: Layout, text: str, at: int, where: str) -> tuple[object, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise layout.unusable(
            f"{where} is not good JSON ({error}); send an array of strings or objects, or one object a line",
            reason="BAD_JSON",
        ) from error
    except RecursionError as error:
        raise layout.unusable(f"{where} is nested too deeply; send flat objects", reason="BAD_JSON") from error


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at
