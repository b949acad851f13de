"""Which encoding a document has: its byte order mark, else the charset its server named, else UTF-8. No guessing."""

from __future__ import annotations

import codecs
from pathlib import Path

from tunesmith.domain.errors import SourceUnusable

_CHUNK_BYTES = 2**18
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_TEXT = (
    (b"PK\x03\x04", "a ZIP archive or a spreadsheet (.xlsx, .ods)", "export it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet or document (.xls, .doc)", "export it as CSV"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it"),
    (b"%PDF", "a PDF", "copy its text into a file"),
    (b"PAR1", "a Parquet file", "export it as CSV"),
    (b"SQLite format 3", "an SQLite database", "export it as CSV"),
)


def checked_encoding(path: Path, *, charset: str, source: str, errors: str = "strict") -> str:
    """The encoding that the whole file at `path` decodes with; with another `errors`, bytes that do not decode pass.

    SourceUnusable when the file is empty or blank, is a known binary, holds a byte that does not decode (naming
    offset and line) or a NUL character.
    """
    with path.open("rb") as file:
        head = file.read(16)
    for magic, what, fix in _NOT_TEXT:
        if head.startswith(magic):
            raise _unusable(source, f"it is {what}, not text; {fix} first", reason="NOT_TEXT")
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), charset or "utf-8")
    _check(path, encoding, source, errors)
    return encoding


def _check(path: Path, encoding: str, source: str, errors: str) -> None:
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    offset = 0
    line = 1
    blank = True
    ascii_only = True
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK_BYTES)
            num_pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                good = error.object[: error.start].decode(encoding, errors="replace")
                where = offset - num_pending + error.start
                fix = (
                    "convert the file, for example with: iconv -f WINDOWS-1252 -t UTF-8 list.csv > list-utf8.csv"
                    if ascii_only and good.isascii()
                    else "text before it is, so the file mixes encodings: repair that row, or skip and count such "
                    "rows with skip_undecodable (--skip-undecodable)"
                )
                raise _unusable(
                    source,
                    f"byte {where} (line {line + good.count(chr(10))}) is not {encoding.upper()}; {fix}",
                    reason="NOT_UTF8",
                    offset=str(where),
                    line=str(line + good.count("\n")),
                ) from error
            if (position := text.find("\0")) >= 0:
                raise _unusable(
                    source,
                    f"line {line + text.count(chr(10), 0, position)} holds a NUL character, which text never does; "
                    "check that it is a text file",
                    reason="NUL_CHARACTER",
                    line=str(line + text.count("\n", 0, position)),
                )
            line += text.count("\n")
            blank = blank and not text.strip()
            ascii_only = ascii_only and text.isascii()
            offset += len(chunk)
            if not chunk:
                break
    if blank:
        raise _unusable(source, "it is empty; nothing can be collected from it", reason="SOURCE_EMPTY")


def _unusable(source: str, problem: str, *, reason: str, **metadata: str) -> SourceUnusable:
    return SourceUnusable(f"{source}: {problem}", reason=reason, metadata={"source": source} | metadata)
