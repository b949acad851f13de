"""Good manners: robots.txt and a pace for every host, redirects included."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal

import httpx
from protego import Protego

from tunesmith.domain.errors import (
    InvalidInput,
    NotFound,
    PermissionRefused,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
)
from tunesmith.ports.clock import Clock
from tunesmith_scraper.fetch import Fetcher, Limits, Page
from tunesmith_scraper.settings import ScraperSettings, environment_name

RobotsVerdict = Literal["allowed", "no-robots-file", "not-applicable"]

MAX_ROBOTS_BYTES = 2 * 2**20
"""RFC 9309 asks for at least 500 KiB; a longer file than this is taken as a refusal."""
_KEEP_ROBOTS_S = 24 * 3600.0
"""RFC 9309, section 2.4: no longer than 24 hours."""
_KEEP_FAILURE_S = 600.0


@dataclass(frozen=True, slots=True)
class _Robots:
    """What is known of a host's robots.txt: its rules, or that there are none, or why it could not be read."""

    rules: Protego | None
    failure: str
    until_s: float


class PoliteFetcher:
    """A Fetcher that asks robots.txt and keeps a pace before every request. Thread-safe.

    The pace is kept within this process: parallel processes each keep their own.
    """

    def __init__(self, fetcher: Fetcher, settings: ScraperSettings, *, clock: Clock) -> None:
        self._fetcher = fetcher
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._next_request_s: dict[str, float] = {}
        self._robots: dict[str, _Robots] = {}

    def fetch(
        self,
        url: str,
        sink: BinaryIO,
        *,
        accept: Callable[[Page], None],
        robots: bool = True,
        min_interval_s: float = 0.0,
        limits: Limits | None = None,
    ) -> tuple[Page, RobotsVerdict]:
        """`Fetcher.fetch`, polite. `robots` False is for documented programming interfaces, which robots.txt is not
        about; `min_interval_s` is the interface's own pace, where it is slower than the setting.

        Also raises PermissionRefused for a path that robots.txt forbids, and Unavailable while robots.txt cannot be
        read (RFC 9309: a server error means that everything is forbidden for now).
        """
        obey = robots and self._settings.respect_robots
        verdicts: list[RobotsVerdict] = []

        def before_request(hop: str) -> None:
            delay_s = 0.0
            if obey:
                verdict, delay_s = self._admit(hop)
                verdicts.append(verdict)
            self._keep_pace(hop, max(delay_s, min_interval_s))

        page = self._fetcher.fetch(url, sink, limits=limits, before_request=before_request, accept=accept)
        return page, verdicts[-1] if verdicts else "not-applicable"

    def _keep_pace(self, url: str, min_interval_s: float) -> None:
        """Wait for this host's next turn and take it."""
        interval_s = max(1.0 / self._settings.requests_per_s_per_host, min_interval_s)
        host = httpx.URL(url).host
        with self._lock:
            now_s = self._clock.monotonic_s()
            turn_s = max(now_s, self._next_request_s.get(host, now_s))
            self._next_request_s[host] = turn_s + interval_s
        if turn_s > now_s:
            self._clock.sleep(turn_s - now_s)

    def _admit(self, url: str) -> tuple[RobotsVerdict, float]:
        """The verdict of the host's robots.txt on `url` and its crawl delay in seconds."""
        robots = self._robots_of(httpx.URL(url))
        setting = environment_name("respect_robots")
        if robots.failure:
            raise Unavailable(
                f"{url} may not be fetched now: its robots.txt cannot be read ({robots.failure}); try again later, "
                f"or, for a site of your own, set {setting}=false",
                reason="ROBOTS_UNAVAILABLE",
                metadata={"url": url, "setting": setting},
            )
        if robots.rules is None:
            return "no-robots-file", 0.0
        agent = self._settings.user_agent
        if not robots.rules.can_fetch(url, agent):
            raise PermissionRefused(
                f"{url} is closed to programs by its robots.txt; ask the site's owner and upload the file, "
                f"or, for a site of your own, set {setting}=false",
                reason="ROBOTS_REFUSED",
                metadata={"url": url, "user_agent": agent, "setting": setting},
            )
        return "allowed", min(robots.rules.crawl_delay(agent) or 0.0, self._settings.max_crawl_delay_s)

    def _robots_of(self, url: httpx.URL) -> _Robots:
        """The cached or fetched robots.txt of the URL's host and port."""
        address = str(url.copy_with(raw_path=b"/robots.txt", fragment=None))
        known = self._robots.get(address)
        if known is None or self._clock.monotonic_s() >= known.until_s:
            known = self._read_robots(address)
            self._robots[address] = known
        return known

    def _read_robots(self, address: str) -> _Robots:
        """Fetch robots.txt. Only a refused address is raised; it would meet the page itself just so."""
        body = io.BytesIO()
        rules: Protego | None = None
        failure = ""
        try:
            limits = replace(Limits.of_pages(self._settings), max_bytes=MAX_ROBOTS_BYTES)
            self._fetcher.fetch(address, body, limits=limits, before_request=lambda hop: self._keep_pace(hop, 0.0))
            rules = Protego.parse(body.getvalue().decode("utf-8-sig", errors="replace"))
        except ResourceExhausted:
            failure = f"it is larger than {MAX_ROBOTS_BYTES} bytes"
        except (NotFound, InvalidInput, PermissionRefused) as error:
            if error.reason == "PRIVATE_ADDRESS":
                raise
            if not error.metadata.get("status", "").startswith("4"):
                failure = error.message
        except TunesmithError as error:
            failure = error.message
        keep_s = _KEEP_FAILURE_S if failure else _KEEP_ROBOTS_S
        return _Robots(rules, failure, self._clock.monotonic_s() + keep_s)
