"""Column names of well-known tables, so that nobody has to type them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tunesmith.domain.errors import InvalidInput
from tunesmith_scraper.sources.base import JoinSpec, SourceSpec

LYRICS_PAIR = "lyrics-pair"

PRESETS: Mapping[str, SourceSpec] = {
    LYRICS_PAIR: SourceSpec(
        url="",
        columns={"title": "SName", "lyrics": "Lyric", "language": "language"},
        join=JoinSpec(url="", key="ALink", other_key="Link", columns={"artist": "Artist", "genres": "Genres"}),
    ),
}
"""`lyrics-pair`: songs (`ALink,SName,SLink,Lyric,language`) beside artists (`Artist,Genres,…,Link`), the shape of the
song lyrics "from 79 musical genres" that are on Kaggle."""


def with_preset(spec: SourceSpec) -> SourceSpec:
    """The spec with what its preset says and the caller does not; InvalidInput for an unknown preset.

    A preset of two tables needs the second one's URL.
    """
    if not spec.preset:
        return spec
    preset = PRESETS.get(spec.preset)
    if preset is None:
        raise InvalidInput(
            f"preset {spec.preset[:60]!r} is unknown; known presets: {', '.join(PRESETS)}",
            reason="UNKNOWN_PRESET",
            metadata={"value": spec.preset[:60], "known": ",".join(PRESETS)},
        )
    join = spec.join
    if preset.join is not None:
        if join is None or not join.url:
            raise InvalidInput(
                f"preset {spec.preset} reads two tables; give the second one's address as the join's url (--join)",
                reason="JOIN_WITHOUT_URL",
            )
        join = replace(
            join,
            key=join.key or preset.join.key,
            other_key=join.other_key or preset.join.other_key,
            columns={**preset.join.columns, **join.columns},
        )
    return replace(spec, columns={**preset.columns, **spec.columns}, join=join)
