"""HTML: the text, or an attribute, of every match of a CSS selector."""

from __future__ import annotations

from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, SelectolaxError

from tunesmith.domain.errors import InvalidInput
from tunesmith_scraper.formats.layout import Layout, Row
from tunesmith_scraper.licences import licence_at


def check_selector(selector: str) -> None:
    """InvalidInput when `selector` is missing or cannot be read."""
    if not selector.strip():
        raise InvalidInput(
            "format=html needs a CSS selector of the elements to collect, for example selector='ul.genres li'",
            reason="SELECTOR_MISSING",
        )
    try:
        LexborHTMLParser("<p>").css(selector)
    except SelectolaxError as error:
        raise InvalidInput(
            f"the CSS selector {selector[:200]!r} cannot be read; write for example 'ul.genres li'",
            reason="SELECTOR_BAD",
            metadata={"selector": selector[:200]},
        ) from error


def rows(layout: Layout) -> Iterator[Row]:
    """One row a match in document order, inner space made single. The page's own licence links are told to `admit`."""
    size_bytes = layout.path.stat().st_size
    if size_bytes > layout.max_parsed_bytes:
        raise layout.too_large_to_parse(size_bytes, fix="collect a smaller page")
    tree = LexborHTMLParser(layout.path.read_text(encoding=layout.encoding, errors=layout.errors))
    for node in tree.css("link[rel~=license][href], a[rel~=license][href]"):
        address = node.attributes.get("href") or ""
        layout.admit(licence_at(address, (node.html or "")[:500]))
    field = layout.needed[0]
    for node in tree.css(layout.selector):
        text = (node.attributes.get(layout.attribute) or "") if layout.attribute else node.text()
        yield {field: " ".join(text.split())}
