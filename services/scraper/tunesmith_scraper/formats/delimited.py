"""CSV and TSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from tunesmith_scraper.formats.layout import Layout, Row, Skipped, matching_name

DELIMITERS = (",", ";", "\t")
_NO_DELIMITER = "\x1f"
"""ASCII unit separator: reads a file of one column without cutting its values at commas."""


def rows(layout: Layout) -> Iterator[Row]:
    """One row a CSV record after the header. A file of one column needs no header.

    Quoting is read strictly, so that a quote that is never closed is an error and not one long value.
    """
    delimiter, header = delimiter_and_header(layout)
    reader = csv.reader(layout.lines(), delimiter=delimiter, strict=True)
    try:
        if not _is_headless_list(layout, header):
            next(reader)
            indices = {
                field: _index(layout, field, header)
                for field, column in layout.columns.items()
                if field not in layout.optional or matching_name(column, header) is not None
            }
        else:
            indices = {layout.needed[0]: 0}
        num_columns = len(header)
        for cells in reader:
            if not any(cells):
                yield Skipped("blank_line")
            elif any(cells[num_columns:]):
                yield Skipped("too_many_cells")
            elif len(cells) <= max(indices.values()):
                yield Skipped("too_few_cells")
            else:
                yield {field: cells[index] for field, index in indices.items()}
    except csv.Error as error:
        raise layout.unusable(
            f"line {reader.line_num} is not good CSV ({error}); check its quotes: a value that holds a quote, "
            'a delimiter or a line end must stand in quotes, and quotes inside are doubled ("")',
            reason="BAD_CSV",
            line=str(reader.line_num),
        ) from error


def delimiter_and_header(layout: Layout) -> tuple[str, Sequence[str]]:
    """The delimiter whose header has the needed columns, else the most columns; and that header."""
    best: tuple[tuple[int, int], str, Sequence[str]] | None = None
    failure: csv.Error | None = None
    for delimiter in DELIMITERS:
        try:
            header = _first_row(layout, delimiter)
        except csv.Error as error:
            failure = error
            continue
        num_found = sum(matching_name(layout.columns[field], header) is not None for field in layout.needed)
        if best is None or (num_found, len(header)) > best[0]:
            best = (num_found, len(header)), delimiter, header
    if best is None:
        raise layout.unusable(f"its header is not good CSV ({failure}); check its quotes", reason="BAD_CSV", line="1")
    _, delimiter, header = best
    return (_NO_DELIMITER if len(header) == 1 else delimiter), header


def _first_row(layout: Layout, delimiter: str) -> Sequence[str]:
    """The first row that is not blank."""
    return next(cells for cells in csv.reader(layout.lines(), delimiter=delimiter, strict=True) if any(cells))


def _is_headless_list(layout: Layout, header: Sequence[str]) -> bool:
    field = layout.needed[0]
    return (
        len(header) == 1
        and len(layout.columns.keys() - layout.optional) == 1
        and field not in layout.mapped
        and matching_name(layout.columns[field], header) is None
    )


def _index(layout: Layout, field: str, header: Sequence[str]) -> int:
    index = matching_name(layout.columns[field], header)
    if index is not None:
        return index
    if sum(name == layout.columns[field] for name in header) > 1:
        raise layout.unusable(
            f"there are several columns {layout.columns[field]!r}; rename all but one", reason="COLUMN_AMBIGUOUS"
        )
    raise layout.missing_column(field, header, kind="column")
