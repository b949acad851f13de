"""Answers that a JSON Schema describes: whole and allowed by it, or an error; whichever backend writes them.

The backend is told the schema in its own way; that it kept to it is checked here all the same.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from tunesmith.domain.errors import ResourceExhausted, Unavailable
from tunesmith.ports import json_schemas
from tunesmith.ports.language_model import Adapter, Generation, GenerationParameters, LanguageModel, StreamChunk

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

INCOMPLETE = "INCOMPLETE_ANSWER"


class StructuredLanguageModel:
    """Implements `LanguageModel` over another one, and passes through what asks for plain text.

    Beyond the port, with a `json_schema`: `text` is one whole document that the schema allows, without spaces around
    it. ResourceExhausted (`INCOMPLETE_ANSWER`) when the tokens ran out before its end, Unavailable (`OFF_SCHEMA`) when
    the backend wrote something else. Stop sequences are left out: the document ends by itself, and one inside it would
    cut it. A stream raises in place of its last token.
    """

    def __init__(self, language_model: LanguageModel) -> None:
        self._inner = language_model

    async def load(self, adapter: Adapter) -> None:
        """See the port."""
        await self._inner.load(adapter)

    async def unload(self, name: str) -> None:
        """See the port."""
        await self._inner.unload(name)

    async def generate(self, prompt: str, parameters: GenerationParameters, *, adapter: str | None) -> Generation:
        """See the port and the class."""
        if parameters.json_schema is None:
            return await self._inner.generate(prompt, parameters, adapter=adapter)
        json_schemas.checked(parameters.json_schema)
        generation = await self._inner.generate(prompt, _document_only(parameters), adapter=adapter)
        return _whole(generation, prompt, parameters)

    def stream(
        self, prompt: str, parameters: GenerationParameters, *, adapter: str | None
    ) -> AsyncIterator[StreamChunk]:
        """See the port and the class."""
        if parameters.json_schema is None:
            return self._inner.stream(prompt, parameters, adapter=adapter)
        return self._documents(prompt, parameters, adapter)

    async def close(self) -> None:
        """See the port."""
        await self._inner.close()

    async def _documents(
        self, prompt: str, parameters: GenerationParameters, adapter: str | None
    ) -> AsyncGenerator[StreamChunk, None]:
        assert parameters.json_schema is not None
        json_schemas.checked(parameters.json_schema)
        chunks = self._inner.stream(prompt, _document_only(parameters), adapter=adapter)
        async with aclosing(cast("AsyncGenerator[StreamChunk]", chunks)):
            async for chunk in chunks:
                if chunk.generation is not None:
                    chunk = replace(chunk, generation=_whole(chunk.generation, prompt, parameters))
                yield chunk


def _document_only(parameters: GenerationParameters) -> GenerationParameters:
    return replace(parameters, stop=(), return_full_text=False)


def _whole(generation: Generation, prompt: str, parameters: GenerationParameters) -> Generation:
    assert parameters.json_schema is not None
    text = generation.text.strip()
    problem = problem_of(text, parameters.json_schema)
    if not problem:
        return replace(generation, text=prompt + text if parameters.return_full_text else text)
    if generation.finish_reason == "length":
        raise ResourceExhausted(
            f"the answer was cut off after max_new_tokens={parameters.max_new_tokens}, before its JSON was whole; "
            "raise max_new_tokens, or bound the schema's strings and lists (maxLength, maxItems)",
            reason=INCOMPLETE,
            metadata={"parameter": "max_new_tokens", "value": str(parameters.max_new_tokens)},
        )
    raise Unavailable(
        f"the backend did not keep to the JSON schema ({problem}); try again with another seed",
        reason="OFF_SCHEMA",
        metadata={"parameter": "json_schema"},
    )


def problem_of(text: str, schema: str) -> str:
    """Why `text` is no document that `schema` allows; empty when it is one."""
    from jsonschema.exceptions import ValidationError

    try:
        _validator(schema).validate(json.loads(text, parse_constant=_no_constant))
    except ValidationError as error:
        return f"{error.json_path[:80]}: {error.message[:120]}"
    except (ValueError, RecursionError) as error:
        return f"not JSON: {str(error)[:80]}"
    return ""


@lru_cache(maxsize=64)
def _validator(schema: str) -> Draft202012Validator:
    # Imported here, because most generators are never asked for a document.
    from jsonschema import Draft202012Validator
    from referencing import Registry

    # An empty registry: a reference beyond the schema is never fetched.
    registry: Registry[Any] = Registry()
    return Draft202012Validator(dict(json_schemas.checked(schema)), registry=registry)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
