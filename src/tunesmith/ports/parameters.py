"""Limits of sampling parameters, as text-generation-inference 3.3 has them. Free of PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from tunesmith.domain.errors import InvalidInput
from tunesmith.ports.language_model import GenerationParameters

MAX_STOP_SEQUENCES = 4
"""text-generation-inference's default `max_stop_sequences`."""

MAX_SEED = 2**64 - 1


def check(
    parameters: GenerationParameters,
    *,
    max_new_tokens_limit: int,
    max_stop_sequences: int = MAX_STOP_SEQUENCES,
    max_truncate: int | None = None,
) -> None:
    """Raise InvalidInput for the first parameter out of its limits, with its name, its value and the limit."""
    p = parameters
    # Every request comes through here, several times: words are made only for what is refused.
    if not 1 <= p.max_new_tokens <= max_new_tokens_limit:
        raise _beyond("max_new_tokens", p.max_new_tokens, f"between 1 and {max_new_tokens_limit}")
    for name, above_0 in (("temperature", p.temperature), ("repetition_penalty", p.repetition_penalty)):
        if above_0 is not None and not (above_0 > 0 and math.isfinite(above_0)):
            raise _beyond(name, above_0, "greater than 0 and finite")
    for name, share in (("top_p", p.top_p), ("typical_p", p.typical_p)):
        if share is not None and not 0 < share < 1:
            raise _beyond(name, share, "greater than 0 and less than 1; leave it out for 1")
    if p.top_k is not None and p.top_k < 1:
        raise _beyond("top_k", p.top_k, "at least 1")
    if p.frequency_penalty is not None and not -2 <= p.frequency_penalty <= 2:
        raise _beyond("frequency_penalty", p.frequency_penalty, "between -2 and 2")
    if p.truncate is not None and not 1 <= p.truncate <= (max_truncate or p.truncate):
        raise _beyond("truncate", p.truncate, f"between 1 and {max_truncate}" if max_truncate else "at least 1")
    if p.seed is not None and not 0 <= p.seed <= MAX_SEED:
        raise _beyond("seed", p.seed, f"between 0 and {MAX_SEED}")
    if len(p.stop) > max_stop_sequences:
        raise _beyond("stop", len(p.stop), f"at most {max_stop_sequences} sequences")
    if not all(p.stop):
        raise _beyond("stop", "''", "free of empty sequences")


def check_prompt(prompt: str) -> None:
    """Raise InvalidInput for a prompt that no tokenizer can read."""
    if not prompt:
        raise _beyond("prompt", "''", "at least one character long")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"prompt holds half a surrogate pair at character {error.start}; send valid Unicode",
            reason="PARAMETER_OUT_OF_RANGE",
            metadata={"parameter": "prompt"},
        ) from error


def samples(parameters: GenerationParameters) -> bool:
    """Whether the next token is drawn rather than the likeliest: `do_sample`, or any warper that changes something."""
    p = parameters
    warps = p.temperature not in (None, 1.0) or p.top_k is not None or p.top_p is not None or p.typical_p is not None
    return p.do_sample or warps


def merged(defaults: GenerationParameters, overrides: Mapping[str, Any]) -> GenerationParameters:
    """`defaults` with `overrides` by field name; InvalidInput for unknown names and values of another type.

    None leaves a warper off. Limits are `check`'s business.
    """
    if not overrides:
        return defaults
    known = {f.name for f in fields(GenerationParameters)}
    values: dict[str, Any] = {}
    for name, value in overrides.items():
        if name not in known:
            raise InvalidInput(
                f"generation parameter {name[:80]!r} is unknown; known parameters: {', '.join(sorted(known))}",
                reason="UNKNOWN_PARAMETER",
                metadata={"parameter": name[:80]},
            )
        values[name] = _typed(name, value)
    return replace(defaults, **values)


_INTEGERS = ("max_new_tokens", "top_k", "seed", "truncate")
_NUMBERS = ("temperature", "top_p", "typical_p", "repetition_penalty", "frequency_penalty")
_FLAGS = ("do_sample", "return_full_text")


def _typed(name: str, value: Any) -> Any:
    if value is None and name not in (*_FLAGS, "max_new_tokens", "stop"):
        return None
    if name in _FLAGS and isinstance(value, bool):
        return value
    if name in _INTEGERS and isinstance(value, int) and not isinstance(value, bool):
        return value
    if name in _NUMBERS and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if name == "json_schema" and isinstance(value, str):
        return value
    if name == "stop" and isinstance(value, list | tuple) and all(isinstance(s, str) for s in value):
        return tuple(value)
    kind = "true or false" if name in _FLAGS else "a whole number" if name in _INTEGERS else "a number"
    kind = {"stop": "a list of strings", "json_schema": "a JSON Schema as JSON text"}.get(name, kind)
    raise InvalidInput(
        f"generation parameter {name}={value!r:.80} must be {kind}",
        reason="PARAMETER_TYPE",
        metadata={"parameter": name, "value": str(value)[:80]},
    )


def _beyond(name: str, value: object, limit: str) -> InvalidInput:
    return InvalidInput(
        f"generation parameter {name}={value} must be {limit}",
        reason="PARAMETER_OUT_OF_RANGE",
        metadata={"parameter": name, "value": str(value), "limit": limit},
    )
