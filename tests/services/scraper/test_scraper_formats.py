"""Text lists, CSV, JSON and encodings, read from files."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.domain.errors import ResourceExhausted, SourceUnusable
from tunesmith_scraper import formats
from tunesmith_scraper.formats.detection import format_of
from tunesmith_scraper.formats.encoding import checked_encoding
from tunesmith_scraper.formats.layout import Format, Layout, Row, Skipped


def layout_of(path: Path, needed: tuple[str, ...] = ("name",), **changes: Any) -> Layout:
    columns: Mapping[str, str] = changes.pop("columns", {})
    values: dict[str, Any] = {
        "path": path,
        "source": "a list",
        "encoding": checked_encoding(path, charset="", source="a list"),
        "needed": needed,
        "columns": {field: field for field in needed} | dict(columns),
        "mapped": frozenset(columns),
        "selector": "",
        "attribute": "",
        "max_line_chars": 2**20,
        "max_parsed_bytes": 2**20,
        "admit": lambda _: None,
    }
    return Layout(**values | changes)


def read(
    folder: Path, content: bytes | str, *, name: str = "list", format: Format = "auto", **options: Any
) -> list[Row]:
    path = folder / "document"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    layout = layout_of(path, **options)
    return list(formats.rows(layout, format_of(layout, format, file_name=name, content_type="")))


def names(*values: str) -> list[Row]:
    return [{"name": value} for value in values]


def test_a_text_list_has_one_name_a_line_and_no_comments(tmp_path: Path) -> None:
    rows = read(tmp_path, "ska\r\n\n# hashtag pop\n dub ")

    assert rows == [{"name": "ska"}, Skipped("blank_line"), {"name": "# hashtag pop"}, {"name": "dub"}]


@pytest.mark.parametrize(
    "content", ["name,year\nska,1960\n", "year;Name \n1960;ska\n", "\ufeffname\tyear\nska\t1960\n"]
)
def test_a_csv_is_known_by_its_header_with_any_delimiter(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == names("ska")


def test_quoted_values_hold_delimiters_quotes_and_line_ends(tmp_path: Path) -> None:
    rows = read(tmp_path, 'name,year\n"ska, the ""first""\nwave",1960\n', name="a.csv")

    assert rows == names('ska, the "first"\nwave')


def test_a_csv_of_one_column_needs_no_header(tmp_path: Path) -> None:
    assert read(tmp_path, "ska\nrock, pop\n", name="a.csv") == names("ska", "rock, pop")
    assert read(tmp_path, "NAME\nska\n", name="a.csv") == names("ska")


def test_a_missing_column_is_named_with_those_that_exist_and_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable) as caught:
        read(tmp_path, "genre_name,year\nska,1960\n", name="a.csv", columns={"name": "genre"})

    for part in ("no column 'genre'", "'genre_name', 'year'", "Did you mean 'genre_name'", "name='genre_name'"):
        assert part in caught.value.message


def test_several_columns_of_one_name_are_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match="several columns 'name'"):
        read(tmp_path, "name,name\nska,dub\n", name="a.csv")


def test_rows_of_the_wrong_width_are_skipped_by_reason(tmp_path: Path) -> None:
    rows = read(tmp_path, "id,name\n1,ska\n2\n\n3,rock,pop\n4,dub,,\n", name="a.csv")

    assert rows == [
        {"name": "ska"},
        Skipped("too_few_cells"),
        Skipped("blank_line"),
        Skipped("too_many_cells"),
        {"name": "dub"},
    ]


def test_a_quote_that_is_never_closed_is_an_error_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match=r"line 3 is not good CSV.*quotes"):
        read(tmp_path, 'id,name\n1,ska\n2,"dub\n', name="a.csv")


@given(
    cells=st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)] * 2),
        min_size=1,
        max_size=10,
    ),
    delimiter=st.sampled_from(",;\t"),
)
def test_what_pythons_csv_writer_writes_is_read_back(cells: list[tuple[str, str]], delimiter: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(("name", "mood"))
    writer.writerows(cells)

    with tempfile.TemporaryDirectory() as folder:
        rows = read(Path(folder), text.getvalue(), format="csv", columns={"mood": "mood"})

    assert rows == [{"name": name, "mood": mood} if name or mood else Skipped("blank_line") for name, mood in cells]


@pytest.mark.parametrize(
    "content",
    [
        '["ska", "dub"]',
        ' [{"name": "ska"}, {"Name": "dub", "x": [1, {}]}]\n',
        '{"name": "ska"}\n{"name": "dub"}\n',
        '"ska"\n"dub"',
        '[{"name": "x", "name": "ska"}, {"name": "dub"}]',
    ],
)
def test_json_arrays_and_lines_of_strings_and_objects_are_read(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content, format="json") == names("ska", "dub")


def test_json_is_known_by_its_first_characters(tmp_path: Path) -> None:
    assert read(tmp_path, '["ska"]') == names("ska")
    assert read(tmp_path, "[untitled]\nska\n") == names("[untitled]", "ska")


def test_json_values_that_are_no_text_are_skipped_and_numbers_stay_as_written(tmp_path: Path) -> None:
    rows = read(tmp_path, '[{"name": ["a"]}, {"name": null}, {"name": 1980.50}, 7, true, {"name": ' + "9" * 9999 + "}]")

    assert rows == [
        Skipped("not_text"),
        {"name": ""},
        {"name": "1980.50"},
        {"name": "7"},
        Skipped("not_text"),
        {"name": "9" * 9999},
    ]


def test_a_missing_json_key_is_named_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match="no key 'name'.*'names', 'id'.*Did you mean 'names'"):  # noqa: RUF043
        read(tmp_path, '[{"names": "ska", "id": 1}]')


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('["ska" "dub"]', "neither ',' nor ']'"),
        ('["ska",', "item 2 is not good JSON"),
        ('["ska"] x', "follows the end"),
        ('{"name":\n"ska"}', "line 1 is not good JSON"),
        ('{"name": "a"} {"name": "b"}', "more than one JSON value"),
    ],
)
def test_damaged_json_says_where(tmp_path: Path, content: str, why: str) -> None:
    with pytest.raises(SourceUnusable, match=why):
        read(tmp_path, content, format="json")


def test_a_json_array_too_large_for_memory_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ResourceExhausted, match="JSON lines.*TUNESMITH_SCRAPER_MAX_PARSED_BYTES"):  # noqa: RUF043
        read(tmp_path, '["ska"]', max_parsed_bytes=3)


def test_a_list_cannot_fill_several_fields(tmp_path: Path) -> None:
    for content in ("ska\ndub\n", '["ska"]'):
        with pytest.raises(SourceUnusable, match="title, lyrics"):
            read(tmp_path, content, needed=("title", "lyrics"))


def test_utf_16_and_a_utf_8_mark_are_honoured(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-8-sig", "utf-32"):
        assert read(tmp_path, "föhn\nска\n".encode(encoding)) == names("föhn", "ска")


def test_a_byte_that_is_not_utf_8_is_named_even_far_into_the_file(tmp_path: Path) -> None:
    for num_lines in (0, 100_000):
        good = "é\n".encode() * num_lines

        with pytest.raises(SourceUnusable, match=rf"byte {len(good) + 4} \(line {num_lines + 2}\) is not UTF-8"):
            read(tmp_path, good + b"dub\n\xe9t\xe9\n")


def test_a_character_cut_off_at_the_end_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match=r"byte 4 \(line 2\)"):
        read(tmp_path, b"dub\n\xc3")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b" \n\t\n", "empty"),
        (b"dub\nsk\0a\n", "line 2 holds a NUL"),
        (b"PK\x03\x04rest", "spreadsheet"),
        (b"\x1f\x8b\x08rest", "gzip"),
    ],
)
def test_what_is_no_text_is_refused_by_what_it_is(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(SourceUnusable, match=why):
        read(tmp_path, content)


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match="line 2 is longer than 100 characters"):
        read(tmp_path, "ska\n" + "x" * 1000, max_line_chars=100)
