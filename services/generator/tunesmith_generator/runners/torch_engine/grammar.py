"""JSON Schemas as masks over a vocabulary of V tokens, by llguidance. Imported with the first schema asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits
from llguidance.hf import from_tokenizer

from tunesmith.domain.errors import InvalidInput, Unsupported

MAX_REMEMBERED = 32
"""Compiled schemas; the least recently used one goes."""

LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000, step_lexer_fuel=200_000, max_lexer_states=50_000, max_grammar_size=200_000,
    precompute_large_lexemes=False, verbose_errors=False,
)  # fmt: skip
"""About 20 ms to compile and 15 ms a token at most, by llguidance's own figures of fuel a millisecond."""

# The spaces of `json.dumps`, which recipes with JSON answers train. Free spaces would also let a model go on for ever.
_SPACING: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammar:
    """Where one answer stands in its schema. Not thread-safe."""

    def __init__(self, matcher: LLMatcher, *, num_entries: int) -> None:
        self._matcher = matcher
        self._num_entries = num_entries

    def allowed_V(self) -> torch.Tensor:
        """Which tokens may come next (V, bool); only end tokens once the document is whole."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        return torch.from_numpy(np.unpackbits(bits, count=self._num_entries, bitorder="little").astype(np.bool_))

    def accept(self, token_id: int) -> None:
        """Go on by the token that was chosen."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token_id)
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise InvalidInput(
                "generation parameter json_schema became too complex at this answer "
                f"({self._matcher.get_error()[:200]}); make the schema simpler",
                reason="SCHEMA_REFUSED",
                metadata={"parameter": "json_schema"},
            )


class Grammars:
    """Compiles schemas for one tokenizer. Usable from any thread."""

    def __init__(self, tokenizer: Any, *, num_entries: int, end_ids: Collection[int]) -> None:
        """`num_entries` is the length of the model's logits, which may exceed the tokenizer's vocabulary."""
        try:
            self._tokenizer = from_tokenizer(tokenizer, n_vocab=num_entries, eos_token=sorted(end_ids))
        except ValueError as error:
            raise Unsupported(
                f"the base's tokenizer cannot follow JSON schemas ({str(error)[:200]}); use a base with a fast one",
                metadata={"parameter": "json_schema"},
            ) from error
        self._num_entries = num_entries
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def start(self, schema: str) -> Grammar:
        """A new answer of `schema`; InvalidInput says why the schema cannot be followed."""
        with self._lock:
            matcher = self._compiled.get(schema)
            if matcher is None:
                grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_SPACING)
                matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=LIMITS)
                if matcher.is_error():
                    raise InvalidInput(
                        f"generation parameter json_schema cannot be followed: {matcher.get_error()[:300]}",
                        reason="SCHEMA_REFUSED",
                        metadata={"parameter": "json_schema"},
                    )
                self._compiled[schema] = matcher
                if len(self._compiled) > MAX_REMEMBERED:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(schema)
            return Grammar(matcher.deep_copy(), num_entries=self._num_entries)
