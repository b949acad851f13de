"""How a document's bytes become rows: text lists, CSV, JSON and HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.domain.records import Licence
from tunesmith_scraper.formats import delimited, html_page, json_rows, text_list
from tunesmith_scraper.formats.detection import format_of
from tunesmith_scraper.formats.encoding import checked_encoding
from tunesmith_scraper.formats.layout import Layout
from tunesmith_scraper.settings import ScraperSettings
