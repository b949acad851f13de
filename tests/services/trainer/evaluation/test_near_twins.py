"""Near-twins: spelling variants are found, other names are not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith_trainer.curation.near_twins import folded, jaccard, shingles
from tunesmith_trainer.evaluation.twins import TwinIndex

INDEX = TwinIndex.build(["synth-pop", "música tropical", "progressive electronica", "dub"], similarity=0.85)


@pytest.mark.parametrize(
    ("text", "twin"),
    [
        ("synth-pop", "synth-pop"),
        ("Synth Pop", "synth-pop"),
        ("synthpop", "synth-pop"),
        ("musica tropical", "música tropical"),
        ("progressive electronicas", "progressive electronica"),
        ("progressive house", None),
        ("dubs", None),
        ("☃", None),
        ("", None),
    ],
)
def test_a_twin_is_found_where_there_is_one(text: str, twin: str | None) -> None:
    assert INDEX.twin(text) == twin


@settings(deadline=None)
@given(st.lists(st.text("abcd ", max_size=8), max_size=8), st.text("abcd ", max_size=8))
def test_twins_are_those_of_the_definition(texts: list[str], text: str) -> None:
    def alike(other: str) -> bool:
        return jaccard(shingles(folded(text)), shingles(folded(other))) >= 0.5

    found = TwinIndex.build(texts, similarity=0.5).twin(text)

    assert (found is not None) == any(alike(other) for other in texts)
    assert found is None or alike(found)


def test_an_empty_index_knows_nobody() -> None:
    assert TwinIndex.build([], similarity=0.85).twin("dub") is None
