"""Which format a document has."""

from __future__ import annotations

import csv
import re
from pathlib import PurePosixPath

from tunesmith_scraper.formats import jspf
from tunesmith_scraper.formats.delimited import delimiter_and_header
from tunesmith_scraper.formats.layout import Format, Layout, matching_name

_OF_ENDING: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "text",
    ".lst": "text",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".jspf": "jspf",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
}
_OF_MEDIA_TYPE: dict[str, Format] = {
    "text/csv": "csv",
    "application/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/jspf+json": "jspf",
    "application/json": "json",
    "application/jsonl": "json",
    "application/x-ndjson": "json",
    "application/ndjson": "json",
    "text/html": "html",
    "application/xhtml+xml": "html",
}
_HTML = re.compile(
    r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_JSON = re.compile(r"\s*(\[\s*[\[{\"\]\d-]|\{\s*[\"}])")


def format_of(layout: Layout, wanted: Format, *, file_name: str, content_type: str) -> Format:
    """The format to read with: what is wanted, else what name, media type and content tell.

    SourceUnusable for a web page where a list is expected: an error page or a viewer is the commonest mistake.
    """
    head = layout.head()
    if layout.selector or wanted == "html":
        return "html"
    if _HTML.match(head):
        promised = "" if wanted == "auto" else f", not {wanted}"
        raise layout.unusable(
            f"it is a web page (HTML){promised}; give the address of the raw file, or collect from the page "
            "with format=html and a CSS selector, for example selector='ul.genres li'",
            reason="HTML_NOT_DATA",
            format=wanted,
        )
    if wanted in ("auto", "json") and jspf.STARTS.match(head):
        return "jspf"
    if wanted != "auto":
        return wanted
    ending = PurePosixPath(file_name).suffix.lower()
    told = _OF_ENDING.get(ending) or _OF_MEDIA_TYPE.get(content_type)
    if told is None and content_type.endswith("+json"):
        told = "json"
    if told == "html":
        raise layout.unusable(
            "it says that it is a web page (HTML); collect from it with format=html and a CSS selector, "
            "for example selector='ul.genres li', or say its true format",
            reason="HTML_NOT_DATA",
        )
    if told is not None:
        return told
    if _JSON.match(head):
        return "json"
    return "csv" if _has_needed_columns(layout) else "text"


def _has_needed_columns(layout: Layout) -> bool:
    """Whether the first line is a header of several columns, the needed ones among them."""
    try:
        _, header = delimiter_and_header(layout)
    except (csv.Error, StopIteration):
        return False
    return len(header) > 1 and all(matching_name(layout.columns[field], header) is not None for field in layout.needed)
