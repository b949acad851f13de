"""Structured logs: one JSON object a line, with the ids of what is being worked on taken from context."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

_context: ContextVar[Mapping[str, str]] = ContextVar("tunesmith_log_context")

LogFormat = Literal["json", "text"]


@contextlib.contextmanager
def log_context(**ids: str) -> Iterator[None]:
    """Add ids (`job_id`, `event_id`, `rpc`, ...) to every log line of this context."""
    token = _context.set({**_context.get({}), **{k: v for k, v in ids.items() if v}})
    try:
        yield
    finally:
        _context.reset(token)


def add_log_context(**ids: str) -> None:
    """The same for the rest of the current asyncio task, which has a context of its own."""
    _context.set({**_context.get({}), **ids})


class JsonFormatter(logging.Formatter):
    """One line of JSON: time, level, logger, message, the context's ids, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_context.get({}),
        }
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return json.dumps(row, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        ids = " ".join(f"{k}={v}" for k, v in _context.get({}).items())
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7} {record.getMessage()}"
        traceback = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        return f"{line}  [{ids}]{traceback}" if ids else line + traceback


def configure_logging(*, level: str, log_format: LogFormat) -> None:
    """Send logs to standard error. Called once, by a process's main."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "urllib3", "matplotlib", "fontTools"):
        logging.getLogger(chatty).setLevel("WARNING")
