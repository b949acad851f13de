"""What the scraper's tests are made of: a clock that they move, a real web server, a resolver and a whole scraper."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tunesmith.domain.jobs import Progress
from tunesmith.ports.store import Store
from tunesmith_scraper.fetch import Fetcher
from tunesmith_scraper.handlers import Collected, CollectRequest, collect
from tunesmith_scraper.politeness import PoliteFetcher
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import SourceSpec

START = datetime(2026, 11, 21, 10, tzinfo=UTC)


class MovingClock:
    """Sleeping moves it at once; so does every look at it, by `tick_s`."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.tick_s = 0.0
        self.sleeps: list[float] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self.passed_s)

    def monotonic_s(self) -> float:
        self.passed_s += self.tick_s
        return self.passed_s

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.passed_s += seconds


Answer = Callable[["Handler"], None]
MakeFetcher = Callable[..., Fetcher]


class Handler(BaseHTTPRequestHandler):
    """Answers with the site's route of the path."""

    site: Site

    def do_GET(self) -> None:
        self.site.requests.append((self.path, dict(self.headers)))
        route = self.site.routes.get(self.path, self.site.routes.get(self.path.partition("?")[0]))
        try:
            (route or status(404))(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Tests look at `requests` instead."""

    def reply(self, code: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def status(code: int, headers: Mapping[str, str] | None = None) -> Answer:
    return lambda handler: handler.reply(code, headers or {})


def page(body: bytes | str, content_type: str = "text/plain; charset=utf-8", **headers: str) -> Answer:
    data = body.encode() if isinstance(body, str) else body
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.reply(200, {"Content-Type": content_type} | more, data)


def redirect(target: str, code: int = 302) -> Answer:
    return status(code, {"Location": target})


def in_turn(*answers: Answer) -> Answer:
    """The first answer to the first request, and so on; the last one for all that follow."""
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)


@dataclass
class Site:
    """A real server on this machine, its routes and what it was asked."""

    port: int
    routes: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str, *, host: str = "lists.test", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


@dataclass
class Names:
    """A resolver: every name is this machine unless it was given other addresses, one answer a look-up."""

    answers: dict[str, list[Sequence[str]]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    lookups: list[str] = field(default_factory=list)

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.lookups.append(host)
        if host in self.unknown:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = self.answers.get(host)
        if answers is None:
            return [host if host[0].isdigit() else "127.0.0.1"]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@dataclass
class Scraper:
    """`collect` with everything it needs."""

    store: Store
    clock: MovingClock
    make_polite: Callable[..., PoliteFetcher]
    scratch: Path
    progress: list[Progress] = field(default_factory=list)
    should_stop: Callable[[], bool] = lambda: False

    def collect(
        self, url: str, *, recipe: str = "micro_genre", settings: Mapping[str, Any] | None = None, **spec: Any
    ) -> Collected:
        chosen = ScraperSettings(**{"allow_private_addresses": True} | dict(settings or {}))
        return collect(
            CollectRequest(recipe, SourceSpec(url, **spec)),
            store=self.store,
            clock=self.clock,
            fetcher=self.make_polite(**dict(settings or {})),
            settings=chosen,
            report=self.progress.append,
            should_stop=self.should_stop,
            scratch=self.scratch,
        )
