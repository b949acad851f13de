"""Structured logs, one JSON object a line with the ids of what is being worked on; and the hook for tracing."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

_context: ContextVar[Mapping[str, str]] = ContextVar("tunesmith_log_context")

LogFormat = Literal["json", "text"]

SpanKind = Literal["internal", "server", "consumer"]

_NO_TRACE: Mapping[str, str] = {}
_NO_SPAN = contextlib.nullcontext()


class Tracing(Protocol):
    """Makes spans. Trace contexts go in and out as `domain.events.checked_trace` gives them."""

    def current(self) -> Mapping[str, str]:
        """The current span's trace context; empty outside of all spans."""
        ...

    def span(
        self, name: str, *, kind: SpanKind, continues: Mapping[str, str], follows: Mapping[str, str]
    ) -> contextlib.AbstractContextManager[Any]:
        """A span that is the current one during the block; an exception that leaves the block is noted in it."""
        ...


_tracing: Tracing | None = None


def use_tracing(tracing: Tracing | None) -> None:
    """Have this process's spans made by `tracing`; None for no spans."""
    global _tracing
    _tracing = tracing


def is_tracing() -> bool:
    """Whether spans are made in this process."""
    return _tracing is not None


def current_trace() -> Mapping[str, str]:
    """The W3C trace context to hand on from here; empty where there is none."""
    return _NO_TRACE if _tracing is None else _tracing.current()


def span(
    name: str,
    *,
    kind: SpanKind = "internal",
    continues: Mapping[str, str] = _NO_TRACE,
    follows: Mapping[str, str] = _NO_TRACE,
) -> contextlib.AbstractContextManager[Any]:
    """A span around a block: a child of the trace context `continues` (else of the current span), linked to `follows`.

    Does nothing in a process without tracing.
    """
    return _NO_SPAN if _tracing is None else _tracing.span(name, kind=kind, continues=continues, follows=follows)


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
    # It warns of every task of its own that took a tenth of a second, which on a busy machine is each one.
    logging.getLogger("kafka.net.selector").setLevel("ERROR")
