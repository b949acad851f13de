from __future__ import annotations

import json
from typing import Any

import pytest

from tunesmith.domain.errors import InvalidInput
from tunesmith.ports import json_schemas
from tunesmith.recipes import SHIPPED


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = of(a=schema)
    return schema


def doubling(levels: int) -> dict[str, Any]:
    """A few references that stand for 2 to the power of `levels` schemas."""
    defs: dict[str, Any] = {"d0": {"type": "string"}}
    for level in range(1, levels + 1):
        defs[f"d{level}"] = of(a={"$ref": f"#/$defs/d{level - 1}"}, b={"$ref": f"#/$defs/d{level - 1}"})
    return of(all={"$ref": f"#/$defs/d{levels}"}) | {"$defs": defs}


def test_a_schema_within_the_limits_is_read() -> None:
    schema = of(
        tags={"type": "array", "items": {"enum": ["a", 1, None]}, "maxItems": 3},
        bpm={"type": ["integer", "null"], "minimum": 40, "maximum": 220},
        part={"anyOf": [{"const": "verse"}, {"$ref": "#/$defs/named~1part"}]},
    ) | {"$defs": {"named/part": of(name={"type": "string", "maxLength": 20})}, "required": ["tags"]}

    assert json_schemas.checked(json.dumps(schema)) == schema


@pytest.mark.parametrize(
    "recipe", [recipe for recipe in SHIPPED.values() if recipe.answer_schema], ids=lambda r: r.name
)
def test_the_recipes_schemas_are_within_the_limits(recipe: Any) -> None:
    assert json_schemas.checked(recipe.answer_schema)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "at most 65536"),
        ("[" * 60_000, "is not JSON"),
        ('{"type": "object", "properties": {"a": {"minimum": NaN}}}', "NaN"),
        ([], "not a JSON object"),
        ({"type": "string"}, "must describe an object"),
        ({"type": "object"}, "must describe an object"),
        (of(a={"type": "string", "description": "x" * 70_000}), "at most 65536"),
        (nested(40), "32 deep"),
        (doubling(12), "2000 schemas"),
        (of(**{f"k{n}": True for n in range(1001)}), "at most 1000"),
        (of(a={"enum": list(range(1001))}), "1 to 1000 values"),
        (of(a={"enum": []}), "1 to 1000 values"),
        (of(a={"type": "string", "maxLength": 10**9}), "up to 100000"),
        (of(a={"type": "array", "maxItems": -1}), "up to 100000"),
        (of(a={"type": "integer", "maximum": 1e300}), "1e15"),
        (of(a={"type": "string", "pattern": "(a+)+$"}), "'pattern'"),
        (of(a={"uniqueItems": True}), "'uniqueItems'"),
        (of(a={"type": "nonsense"}), "nonsense"),
        (of(a={"type": []}), "type"),
        (of(a=5), "no schema at"),
        (of(a={"anyOf": []}), "list of schemas"),
        (of(a={"$ref": "http://127.0.0.1/schema.json"}), "only '#/...'"),
        (of(a={"$ref": "#/$defs/none"}), "has nothing at"),
        (of(a={"$ref": "#/$defs/n"}) | {"$defs": {"n": of(next={"$ref": "#/$defs/n"})}}, "circle"),
        (of(a={"$ref": "#/properties/a"}), "circle"),
        (of(a={"type": "string"}) | {"required": "a"}, "list of names"),
    ],
)
def test_a_schema_beyond_a_limit_is_refused_with_the_limit(schema: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        json_schemas.checked(schema if isinstance(schema, str) else json.dumps(schema))

    assert refused.value.metadata["parameter"] == "json_schema"
    assert len(refused.value.message) < 600
