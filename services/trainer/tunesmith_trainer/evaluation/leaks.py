"""Leaks: held-out rows that were trained on, found by what the run wrote down and by what its dataset holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b

from tunesmith.domain.examples import Example
from tunesmith.recipes.base import Recipe
from tunesmith_trainer.curation.near_twins import folded
from tunesmith_trainer.evaluation.answers import KnownAnswers
from tunesmith_trainer.evaluation.twins import TwinIndex


def key_digest(key: str) -> str:
    """16 hex digits of a `Recipe.duplicate_key`, the same for keys that differ in case, spaces or punctuation only."""
    return blake2b(folded(key).encode(), digest_size=8).hexdigest()


def trained_on(recipe: Recipe, examples: Iterable[Example]) -> bytes:
    """What a run writes down of the rows that its training was given: one digest a line, sorted, each once."""
    digests = {key_digest(recipe.duplicate_key(example)) for example in examples}
    return "".join(f"{digest}\n" for digest in sorted(digests)).encode()


def leaked_rows(
    recipe: Recipe,
    test_examples: Sequence[Example],
    *,
    train_keys: Sequence[str],
    known: KnownAnswers,
    trained_on: Collection[str],
) -> list[bool]:
    """Whether each held-out row, or a near-twin of it, was trained on.

    `train_keys` are the duplicate keys of the dataset's training rows, `trained_on` the digests that the run wrote
    down. The two agree unless something went wrong, which is what this is here to find.
    """
    keys = tuple(dict.fromkeys(train_keys))
    similarity = recipe.curation.near_duplicate_similarity
    twins = known.twins if keys == known.training else TwinIndex.build(keys, similarity=similarity)
    tested = [recipe.duplicate_key(example) for example in test_examples]
    return [key_digest(key) in trained_on or twins.twin(key) is not None for key in tested]
