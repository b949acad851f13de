"""How a document's bytes become rows: text lists, CSV, JSON, HTML and JSPF."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith_scraper.formats import delimited, html_page, json_rows, jspf, text_list
from tunesmith_scraper.formats.layout import Format, Layout, Row

_READERS = {
    "text": text_list.rows,
    "csv": delimited.rows,
    "json": json_rows.rows,
    "html": html_page.rows,
    "jspf": jspf.rows,
}


def rows(layout: Layout, format: Format) -> Iterator[Row]:
    """The document's rows in order; `format` is not `auto`."""
    return _READERS[format](layout)
