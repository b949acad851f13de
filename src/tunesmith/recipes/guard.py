"""Stands between Tunesmith and a plug-in recipe: whatever it does wrong becomes an error that its author can use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import wraps
from traceback import extract_tb
from typing import Any

from tunesmith.domain.errors import RecipeFailed, TunesmithError
from tunesmith.domain.examples import Dropped, Example
from tunesmith.recipes.base import Parsed, Recipe


def failure(
    recipe: str,
    where: str,
    problem: str,
    *,
    method: str = "",
    error: BaseException | None = None,
    line: int | None = None,
) -> RecipeFailed:
    """What a recipe's author needs to know. The line is the last one of `where` in the error's traceback."""
    line = line or _line(error, where)
    place = f"{where}, line {line}" if line else where
    check = f"tunesmith recipe check {where}" if where.endswith(".py") else "tunesmith recipe check FILE"
    return RecipeFailed(
        f"recipe {recipe!r} ({place}){f' failed in {method}' if method else ' cannot be used'}: {problem:.500}; "
        f"correct it (`{check}` tries it) and start the server again",
        metadata={"recipe": recipe, "file": where, "line": str(line or ""), "method": method},
    )


def _line(error: BaseException | None, where: str) -> int | None:
    if isinstance(error, SyntaxError) and error.filename == where:
        return error.lineno
    lines = [frame.lineno for frame in extract_tb(error.__traceback__)] if error else []
    files = [frame.filename for frame in extract_tb(error.__traceback__)] if error else []
    return next((line for line, file in zip(reversed(lines), reversed(files), strict=True) if file == where), None)


def guarded(recipe: Recipe, where: str, code_hash: str) -> Recipe:
    """A copy of `recipe` of a subclass of its class, each of whose methods gives what it should or raises.

    RecipeFailed names the recipe, the method, file and line; the domain's own errors (InvalidInput, Unsupported) pass.
    """
    kind = type(recipe)
    methods = {
        name: _guard(name, getattr(kind, name), where)
        for name, value in vars(Recipe).items()
        if callable(value) and not name.startswith("_")
    }
    made: type[Recipe] = type(kind.__name__, (kind,), {**methods, "__slots__": (), "__module__": kind.__module__})
    values = {f.name: getattr(recipe, f.name) for f in fields(recipe) if f.init}
    return made(**{**values, "code_hash": code_hash})


def _guard(name: str, method: Callable[..., Any], where: str) -> Callable[..., Any]:
    check = _CHECKS.get(name, _check_nothing)

    @wraps(method)
    def call(self: Recipe, *args: Any, **kwargs: Any) -> Any:
        try:
            found = method(self, *args, **kwargs)
        except TunesmithError:
            raise
        except (Exception, SystemExit) as error:  # foreign code; the job or call fails with it
            problem = f"{type(error).__name__}: {error}"
            raise failure(self.name, where, problem, method=name, error=error) from error
        if problem := check(found):
            raise failure(self.name, where, problem, method=name, line=_first_line(method))
        return found

    return call


def _first_line(method: Callable[..., Any]) -> int | None:
    code = getattr(method, "__code__", None)
    return code.co_firstlineno if code else None


def _given(found: object) -> str:
    return f"it gave {type(found).__name__} {found!r:.80}"


def _check_nothing(_found: object) -> str:
    return ""


def _check_text(found: object) -> str:
    return "" if isinstance(found, str) else f"it must give text; {_given(found)}"


def _check_example(found: object) -> str:
    if isinstance(found, Dropped):
        is_word = isinstance(found.reason, str) and found.reason.isidentifier() and found.reason.islower()
        return "" if is_word else f"a Dropped needs a reason, one snake_case word; {_given(found.reason)}"
    if not isinstance(found, Example):
        return f"it must give an Example or a Dropped; {_given(found)}"
    for name in ("id", "prompt", "completion", "answer"):
        value = getattr(found, name)
        if not isinstance(value, str) or not value:
            return f"the Example's {name} must be text; {_given(value)}"
    if not isinstance(found.record_ids, tuple) or not all(isinstance(i, str) for i in found.record_ids):
        return f"the Example's record_ids must be a tuple of text; {_given(found.record_ids)}"
    return "" if _is_texts(found.attributes) else f"the Example's attributes must be text by name; {_given(found)}"


def _check_parsed(found: object) -> str:
    if not isinstance(found, Parsed):
        return f"it must give a Parsed; {_given(found)}"
    if not (isinstance(found.answer, str) and isinstance(found.valid, bool) and isinstance(found.reason, str)):
        return f"a Parsed holds answer (text), valid (true or false) and reason (text); {_given(found)}"
    return ""


def _check_inputs(found: object) -> str:
    return "" if _is_texts(found) else f"it must give text by input name; {_given(found)}"


def _check_attributes(found: object) -> str:
    good = isinstance(found, Mapping) and all(
        isinstance(name, str)
        and isinstance(values, Sequence)
        and not isinstance(values, str)
        and all(isinstance(value, str) for value in values)
        for name, values in found.items()
    )
    return "" if good else f"it must give a list of texts by attribute; {_given(found)}"


def _check_measures(found: object) -> str:
    good = isinstance(found, Mapping) and all(
        isinstance(name, str)
        and isinstance(observations, Sequence)
        and all(_is_observation(observation) for observation in observations)
        for name, observations in found.items()
    )
    return "" if good else f"it must give, by name, a list of numbers, pairs of numbers or None; {_given(found)}"


def _check_sample_measures(found: object) -> str:
    good = isinstance(found, Mapping) and all(isinstance(k, str) and _is_number(v) for k, v in found.items())
    return "" if good else f"it must give numbers by name; {_given(found)}"


def _is_texts(found: object) -> bool:
    return isinstance(found, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in found.items())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _is_observation(value: object) -> bool:
    if isinstance(value, tuple):
        return len(value) == 2 and all(map(_is_number, value))
    return value is None or _is_number(value)


_CHECKS: Mapping[str, Callable[[object], str]] = {
    "example": _check_example,
    "prompt": _check_text,
    "inputs_of_seed": _check_inputs,
    "parse": _check_parsed,
    "read": _check_parsed,
    "identity": _check_text,
    "duplicate_key": _check_text,
    "attributes": _check_attributes,
    "measures": _check_measures,
    "sample_measures": _check_sample_measures,
}
"""What is wrong with what a method gave, empty when nothing is."""
