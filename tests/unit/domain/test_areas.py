"""Every key belongs to an area that some service may write."""

from __future__ import annotations

import inspect

import pytest

from tunesmith.domain import areas, keys


@pytest.mark.parametrize(
    "make", [make for _, make in inspect.getmembers(keys, inspect.isfunction) if make.__module__ == keys.__name__]
)
def test_every_kind_of_key_is_in_the_table(make: object) -> None:
    assert callable(make)
    given = [0 if "int" in str(p.annotation) else "x" for p in inspect.signature(make).parameters.values()]

    assert make(*given).partition("/")[0] in areas.AREA_OF


def test_every_area_is_written_by_some_service() -> None:
    assert {area for written in areas.WRITTEN_BY.values() for area in written} == set(areas.AREAS)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", areas.AREAS),
        ("jobs", ("shared",)),
        ("jobs/ab", ("shared",)),
        ("me", ("scraper", "shared")),
        ("media/", ("scraper",)),
        ("c", ("captioner", "collections", "shared", "trainer")),
        ("unheard-of/", ("shared",)),
    ],
)
def test_a_prefix_leads_to_all_areas_that_it_may_be_of(prefix: str, expected: tuple[str, ...]) -> None:
    assert areas.areas_under(prefix) == expected
