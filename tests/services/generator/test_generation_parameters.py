from __future__ import annotations

from typing import Any

import pytest

from tunesmith.domain.errors import InvalidInput
from tunesmith.ports import parameters
from tunesmith.ports.language_model import GenerationParameters

DEFAULTS = GenerationParameters(max_new_tokens=48, temperature=1.0, do_sample=True, stop=("|<stop>|",))


def test_overrides_replace_defaults_by_name() -> None:
    merged = parameters.merged(DEFAULTS, {"temperature": 2, "top_k": 5, "stop": ["x"], "do_sample": False})

    assert merged == GenerationParameters(max_new_tokens=48, temperature=2.0, top_k=5, stop=("x",))


def test_none_leaves_a_warper_off() -> None:
    assert parameters.merged(DEFAULTS, {"temperature": None}).temperature is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temprature", 1.0),
        ("temperature", "hot"),
        ("temperature", True),
        ("max_new_tokens", 1.5),
        ("max_new_tokens", None),
        ("do_sample", 1),
        ("stop", "|<stop>|"),
        ("stop", [1]),
        ("stop", None),
        ("seed", "7"),
    ],
)
def test_unknown_names_and_wrong_types_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=name) as refused:
        parameters.merged(DEFAULTS, {name: value})

    assert refused.value.metadata["parameter"] == name


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"temperature": 1.0}, False),
        ({"temperature": 0.9}, True),
        ({"top_k": 3}, True),
        ({"top_p": 0.9}, True),
        ({"typical_p": 0.9}, True),
        ({"repetition_penalty": 1.2}, False),
        ({"do_sample": True}, True),
    ],
)
def test_sampling_follows_text_generation_inference(changes: dict[str, Any], expected: bool) -> None:
    assert parameters.samples(GenerationParameters(**changes)) is expected


def test_a_refusal_names_value_and_limit() -> None:
    with pytest.raises(InvalidInput, match=r"max_new_tokens=600 must be between 1 and 512"):
        parameters.check(GenerationParameters(max_new_tokens=600), max_new_tokens_limit=512)
