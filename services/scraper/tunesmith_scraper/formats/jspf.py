"""JSPF, the JSON playlist format (https://www.xspf.org/jspf): one row a playlist.

A row has `title`, `description` (the playlist's annotation, as text) and `songs`: a JSON array of objects with `title`
and `artist`, in order. A document is one playlist, or a list of them as ListenBrainz gives it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping

from tunesmith_scraper.formats.layout import Layout, Row, Skipped, matching_name
from tunesmith_scraper.licences import licence_at

STARTS = re.compile(r'\s*\{\s*"playlists?"\s*:\s*[\[{]|\s*\[\s*\{\s*"playlist"\s*:\s*\{')
"""How a JSPF document begins."""

_TAG = re.compile(r"<[^>]{0,2000}>")
_KEYS = ("title", "description", "songs")


def rows(layout: Layout) -> Iterator[Row]:
    """One row a playlist, read from a text of at most `max_parsed_bytes`. Its licence is told to `layout.admit`."""
    size_bytes = layout.path.stat().st_size
    if size_bytes > layout.max_parsed_bytes:
        raise layout.too_large_to_parse(size_bytes, fix="send fewer playlists at once")
    try:
        document = json.loads(layout.path.read_text(encoding=layout.encoding))
    except (json.JSONDecodeError, RecursionError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise layout.unusable(
            f"it is not good JSON ({problem}); export the playlist again as JSPF", reason="BAD_JSON"
        ) from error
    for field in layout.needed:
        if matching_name(layout.columns[field], _KEYS) is None:
            raise layout.missing_column(field, _KEYS, kind="key")
    playlists = _playlists(layout, document)
    for playlist in playlists:
        if isinstance(playlist, dict) and isinstance(stated := playlist.get("license"), str) and stated.strip():
            layout.admit(licence_at(stated, stated[:500]))
    for playlist in playlists:
        yield _row(layout, playlist)


def _playlists(layout: Layout, document: object) -> list[object]:
    if isinstance(document, dict) and isinstance(document.get("playlists"), list):
        document = document["playlists"]
    items = document if isinstance(document, list) else [document]
    found = [item["playlist"] for item in items if isinstance(item, dict) and "playlist" in item]
    if len(found) < len(items):
        raise layout.unusable(
            'it is not JSPF: it should be an object with the key "playlist"; export the playlist again as JSPF, '
            "or say its true format",
            reason="NOT_JSPF",
        )
    return found


def _row(layout: Layout, playlist: object) -> Row:
    if not isinstance(playlist, dict):
        return Skipped("not_a_playlist")
    tracks = playlist.get("track")
    songs = [song for track in tracks if (song := _song(track))] if isinstance(tracks, list) else []
    if not songs:
        return Skipped("no_songs")
    values: Mapping[str, str] = {
        "title": _text(playlist.get("title")),
        "description": _text(playlist.get("annotation")),
        "songs": json.dumps(songs, ensure_ascii=False),
    }
    found: dict[str, str] = {}
    for field, key in layout.columns.items():
        index = matching_name(key, _KEYS)
        found[field] = "" if index is None else values[_KEYS[index]]
    return found


def _song(track: object) -> dict[str, str] | None:
    """The track's title and artist; None where one of them is missing."""
    if not isinstance(track, dict):
        return None
    song = {"title": _text(track.get("title")), "artist": _text(track.get("creator"))}
    return song if all(song.values()) else None


def _text(value: object) -> str:
    """Text without markup (ListenBrainz' annotations are HTML); empty for what is no text."""
    return " ".join(html.unescape(_TAG.sub(" ", value)).split()) if isinstance(value, str) else ""
