"""The second table of a join, indexed on disk by its key, so that the first one can be streamed past it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from tunesmith.domain.errors import ResourceExhausted, SourceUnusable
from tunesmith_scraper.formats.layout import JOIN_KEY, Row, Skipped
from tunesmith_scraper.settings import environment_name

NO_MATCH = Skipped("no_join_match")
AMBIGUOUS = Skipped("ambiguous_join_key")

_CACHED_KEYS = 1024
"""Rows of the first table are mostly grouped by their key."""


class JoinIndex:
    """Fields by key, in an SQLite file: memory does not grow with the table. Not thread-safe."""

    def __init__(self, path: Path, *, source: str, max_rows: int) -> None:
        self._source = source
        self._max_rows = max_rows
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute("CREATE TABLE fields (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        self.fields_of = lru_cache(_CACHED_KEYS)(self._fields_of)
        """The fields of the row with that key, or why there are none."""

    def fill(self, rows: Iterable[Row]) -> None:
        """Add the table's rows, each with its JOIN_KEY. Equal rows count once.

        SourceUnusable when there is no usable row, ResourceExhausted past `max_rows`.
        """
        num_rows = 0
        with self._database:
            self._database.execute("BEGIN")
            for row in rows:
                if isinstance(row, Skipped):
                    continue
                num_rows += 1
                if num_rows > self._max_rows:
                    setting = environment_name("max_records")
                    raise ResourceExhausted(
                        f"{self._source} has more than {self._max_rows} rows; split it, or raise {setting}",
                        reason="TOO_MANY_RECORDS",
                        metadata={"limit": str(self._max_rows), "setting": setting, "source": self._source},
                    )
                fields = {field: value for field, value in row.items() if field != JOIN_KEY}
                self._database.execute(
                    # Two different rows of one key leave neither: which of them is meant cannot be told.
                    "INSERT INTO fields VALUES (?, ?) "
                    "ON CONFLICT (key) DO UPDATE SET value = '' WHERE value <> excluded.value",
                    (row[JOIN_KEY].strip(), json.dumps(fields, ensure_ascii=False, sort_keys=True)),
                )
        if num_rows == 0:
            raise SourceUnusable(
                f"{self._source} has no row to join with; check its column for the key",
                reason="NO_ROWS_TO_JOIN",
                metadata={"source": self._source},
            )

    def _fields_of(self, key: str) -> Mapping[str, str] | Skipped:
        found = self._database.execute("SELECT value FROM fields WHERE key = ?", (key.strip(),)).fetchone()
        if found is None:
            return NO_MATCH
        fields: dict[str, str] = json.loads(found[0]) if found[0] else {}
        return fields if found[0] else AMBIGUOUS

    def __enter__(self) -> JoinIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._database.close()
