"""What a format reader is told, and the values it gives."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tunesmith.domain.errors import ResourceExhausted, SourceUnusable
from tunesmith.domain.records import Licence
from tunesmith_scraper.settings import environment_name

Format = Literal["auto", "text", "csv", "json", "html", "jspf"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is not collected. `reason` is a short snake_case word that is counted in the result."""

    reason: str


JOIN_KEY = "join_key"
"""Field under which the rows of two tables are matched."""

Row = Mapping[str, str] | Skipped
"""Values by record field, or why there are none."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One document and where in it the record fields are."""

    path: Path
    source: str
    """How messages call the document."""
    encoding: str
    needed: tuple[str, ...]
    """Fields that every record must have; the first is what a plain list fills."""
    columns: Mapping[str, str]
    """Field -> column or key, for the needed fields and all others that are to be collected."""
    mapped: frozenset[str]
    """Fields whose column the caller named."""
    selector: str
    attribute: str
    max_line_chars: int
    max_parsed_bytes: int
    admit: Callable[[Licence], None]
    """Told the licences that the content itself states; raises PermissionRefused."""
    optional: frozenset[str] = frozenset()
    """Fields whose column may be missing."""
    errors: str = "strict"
    """How bytes that do not decode are read: `surrogateescape` where their rows are to be skipped."""

    def lines(self) -> Iterator[str]:
        """The document's lines with their ends as they are; SourceUnusable for one that is too long."""
        limit = self.max_line_chars
        with self.path.open(encoding=self.encoding, errors=self.errors, newline="") as file:
            number = 0
            while line := file.readline(limit + 1):
                number += 1
                if len(line) > limit:
                    raise self.unusable(
                        f"line {number} is longer than {limit} characters; check that the format is right",
                        reason="LINE_TOO_LONG",
                    )
                yield line

    def head(self, num_chars: int = 4096) -> str:
        """The first characters."""
        with self.path.open(encoding=self.encoding, errors=self.errors, newline="") as file:
            return file.read(num_chars)

    def unusable(self, problem: str, *, reason: str, **metadata: str) -> SourceUnusable:
        """The error for content that is not what was promised."""
        return SourceUnusable(f"{self.source}: {problem}", reason=reason, metadata={"source": self.source} | metadata)

    def too_large_to_parse(self, size_bytes: int, *, fix: str) -> ResourceExhausted:
        """The error for a document that is parsed in memory and too large for that."""
        setting = environment_name("max_parsed_bytes")
        return ResourceExhausted(
            f"{self.source} is {size_bytes} bytes large, and at most {self.max_parsed_bytes} are parsed in memory; "
            f"{fix}, or raise {setting}",
            reason="TOO_LARGE_TO_PARSE",
            metadata={"source": self.source, "limit": str(self.max_parsed_bytes), "setting": setting},
        )

    def missing_column(self, field: str, existing: Sequence[str], *, kind: str) -> SourceUnusable:
        """The error for a `kind` (column, key) that does not exist, with those that do and the nearest."""
        wanted = self.columns[field]
        shown = ", ".join(repr(name[:60]) for name in existing[:20]) + (", …" if len(existing) > 20 else "")
        folded = {name.casefold(): name for name in existing}
        nearest = difflib.get_close_matches(wanted.casefold(), folded, n=1)
        guess = folded[nearest[0]][:60] if nearest else ""
        hint = f" Did you mean {guess!r}?" if guess else ""
        return self.unusable(
            f"there is no {kind} {wanted!r} for the field {field!r}; there are: {shown or 'none'}.{hint} "
            + (
                "Name the columns to join on (--join-on COLUMN=OTHER_COLUMN)"
                if field == JOIN_KEY
                else f"Say which one to take with columns, for example {field}={guess or 'Genre'!r}"
            ),
            reason="COLUMN_MISSING",
            column=wanted,
            field=field,
            existing=",".join(name[:60] for name in existing[:20]).encode(errors="replace").decode(),
        )


def matching_name(wanted: str, existing: Sequence[str]) -> int | None:
    """Index of the name that is `wanted`, else of the only one that is but for case and outer space; None if none."""
    exact = [index for index, name in enumerate(existing) if name == wanted]
    near = [index for index, name in enumerate(existing) if name.strip().casefold() == wanted.strip().casefold()]
    found = exact or near
    return found[0] if len(found) == 1 else None
