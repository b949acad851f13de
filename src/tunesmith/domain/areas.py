"""Whose each part of the store is: the first segment of a key names an area, and each service writes few of them."""

from __future__ import annotations

SHARED = "shared"
"""The area of jobs, of probes, and of every key whose first segment is not in `AREA_OF`."""

AREA_OF = {
    "uploads": "scraper",
    "media": "scraper",
    "media-sources": "scraper",
    "watches": "scraper",
    "clips": "captioner",
    "captions": "captioner",
    "collections": "collections",
    "records": "collections",
    "pairs": "trainer",
    "datasets": "trainer",
    "policies": "trainer",
    "runs": "trainer",
    "bases": "trainer",
    "reports": "trainer",
    "sweeps": "trainer",
    "sweep-parts": "trainer",
    "models": "trainer",
    "catalogues": "trainer",
    "publications": "trainer",
    "jobs": SHARED,
    "jobs-active": SHARED,
    "hosts": SHARED,
    "probes": SHARED,
}
"""Area by the first segment of a key."""

AREAS = tuple(sorted(set(AREA_OF.values())))

WRITTEN_BY = {
    "scraper": ("scraper", "collections", SHARED),
    "captioner": ("captioner", "collections", SHARED),
    "trainer": ("trainer", "collections", SHARED),
    "generator": (SHARED,),
}
"""Areas that each service writes; all services read all areas, because each builds on what others made."""


def area_of(key: str) -> str:
    """The area that an object belongs to."""
    return AREA_OF.get(key.partition("/")[0], SHARED)


def areas_under(prefix: str) -> tuple[str, ...]:
    """Areas that can hold keys with that prefix, which may end within a segment."""
    segment, whole, _ = prefix.partition("/")
    if whole:
        return (area_of(prefix),)
    return tuple(sorted({SHARED} | {area for name, area in AREA_OF.items() if name.startswith(segment)}))
