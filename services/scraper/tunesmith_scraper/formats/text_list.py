"""Plain lists: one record a line, blank lines skipped. There are no comments: `#` may begin a name."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith_scraper.formats.layout import Layout, Row, Skipped


def rows(layout: Layout) -> Iterator[Row]:
    """One row a line, outer space stripped; `\\n`, `\\r\\n` and `\\r` end a line."""
    if len(layout.needed) > 1:
        raise layout.unusable(
            f"a plain list fills only {layout.needed[0]!r}, but records need {', '.join(layout.needed)}; "
            "send a CSV or JSON with these columns",
            reason="FIELDS_MISSING",
        )
    field = layout.needed[0]
    for line in layout.lines():
        text = line.strip()
        yield {field: text} if text else Skipped("blank_line")
