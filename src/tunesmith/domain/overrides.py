"""Changing the fields of a settings dataclass by name, with checks that name the setting, the value and the range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from tunesmith.domain.errors import InvalidInput

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    _T = TypeVar("_T", bound=DataclassInstance)
else:
    _T = TypeVar("_T")

Ranges = Mapping[str, tuple[float, float]]
"""Smallest and largest value by field name, both allowed."""


def with_overrides(settings: _T, overrides: Mapping[str, Any], *, what: str, ranges: Ranges) -> _T:
    """A copy of `settings` with `overrides` applied; values may be text, as command lines give them.

    InvalidInput for an unknown name, a value of another type, or one out of its range. `what` names the kind of
    setting in messages.
    """
    known = {field.name: type(getattr(settings, field.name)) for field in fields(settings)}
    values = {}
    for name, value in overrides.items():
        if name not in known:
            raise InvalidInput(
                f"{what} setting {name[:60]!r} is unknown; known settings: {', '.join(sorted(known))}",
                reason="UNKNOWN_SETTING",
                metadata={"field": name[:60]},
            )
        values[name] = _read(name, value, known[name], what)
    changed = replace(settings, **values)
    check_ranges(changed, what=what, ranges=ranges)
    return changed


def check_ranges(settings: DataclassInstance, *, what: str, ranges: Ranges) -> None:
    """Raise InvalidInput for the first field that is out of its range."""
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise InvalidInput(
                f"{what} setting {name}={value} is out of range: it must lie between {low:g} and {high:g}",
                reason="SETTING_OUT_OF_RANGE",
                metadata={"field": name, "value": str(value), "minimum": f"{low:g}", "maximum": f"{high:g}"},
            )


def _read(name: str, value: Any, kind: type, what: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[str(value).lower()]
        if kind in (int, float):
            number = float(value)
            if not math.isfinite(number) or (kind is int and not number.is_integer()):
                raise ValueError(value)
            return kind(number)
        if not isinstance(value, str):
            raise ValueError(value)
        return value
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        raise InvalidInput(
            f"{what} setting {name}={str(value)[:60]!r} is not {words.get(kind, kind.__name__)}",
            reason="SETTING_OF_WRONG_TYPE",
            metadata={"field": name, "value": str(value)[:60]},
        ) from error
