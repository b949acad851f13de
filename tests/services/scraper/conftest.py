"""Fixtures of the scraper's tests; what they are made of is in scraper_parts.py."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from scraper_parts import Handler, MakeFetcher, MovingClock, Names, Scraper, Site

from fixtures_places import Place
from tunesmith_scraper import network
from tunesmith_scraper.fetch import Fetcher
from tunesmith_scraper.politeness import PoliteFetcher
from tunesmith_scraper.settings import ScraperSettings


class Server(ThreadingHTTPServer):
    """Serves in threads that are joined when it is closed; TLS is spoken in them, where a `context` is given."""

    daemon_threads = False
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is None:
            super().finish_request(request, client_address)
            return
        with self.context.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients that hang up, or dislike our certificate, are what the tests are about."""


def _serve(context: ssl.SSLContext | None = None) -> Iterator[Site]:
    handler = type("SiteHandler", (Handler,), {})
    server = Server(("127.0.0.1", 0), handler)
    server.context = context
    site = Site(server.server_port)
    handler.site = site  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    site.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    yield from _serve()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Signs certificates that only a client which was told so believes."""
    return trustme.CA()


@pytest.fixture
def secure_site(authority: trustme.CA) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("lists.test").configure_cert(context)
    yield from _serve(context)


@pytest.fixture
def clock() -> MovingClock:
    return MovingClock()


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def local_site_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 counts as public, so that a local server can stand for the internet; all else is judged as ever."""
    judge = network.is_public
    monkeypatch.setattr(network, "is_public", lambda address: address == "127.0.0.1" or judge(address))


@pytest.fixture
def make_fetcher(clock: MovingClock, names: Names) -> MakeFetcher:
    """Fetchers that may use this machine's addresses unless told otherwise."""

    def make(*, ssl_context: ssl.SSLContext | None = None, **settings: Any) -> Fetcher:
        chosen = ScraperSettings(**{"allow_private_addresses": True} | settings)
        return Fetcher(chosen, clock=clock, resolver=names, ssl_context=ssl_context, uniform=lambda: 1.0)

    return make


@pytest.fixture
def make_polite(make_fetcher: MakeFetcher, clock: MovingClock) -> Callable[..., PoliteFetcher]:
    def make(**settings: Any) -> PoliteFetcher:
        chosen = ScraperSettings(**{"allow_private_addresses": True} | settings)
        return PoliteFetcher(make_fetcher(**settings), chosen, clock=clock)

    return make


@pytest.fixture
def scraper(place: Place, tmp_path: Path, clock: MovingClock, make_polite: Callable[..., PoliteFetcher]) -> Scraper:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Scraper(place.store(tmp_path), clock, make_polite, scratch)
