"""Settings of the scraper, read from `TUNESMITH_SCRAPER_…` environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "TUNESMITH_SCRAPER_"

OPEN_LICENCES = frozenset(
    {
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC-BY-2.0",
        "CC-BY-2.5",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-PDM-1.0",
        "CC0-1.0",
        "CDLA-Permissive-1.0",
        "CDLA-Permissive-2.0",
        "MIT",
        "ODC-By-1.0",
        "PDDL-1.0",
        "Unlicense",
    }
)
"""Licences that allow training without further duties than naming the source: no NC, ND or SA among them."""


def environment_name(field: str) -> str:
    """The environment variable that sets `field`, for messages."""
    return f"{PREFIX}{field.upper()}"


class ScraperSettings(BaseSettings):
    """How the scraper reaches sources and what it accepts from them. Lists are comma-separated."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, validate_default=True)

    allow_private_addresses: bool = False
    """Fetch from loopback, private, link-local and other addresses that are not public. For tests and intranets."""
    file_roots: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders that `file:///…` sources may lie under; none, so no local file can be read, by default."""
    user_agent: str = "tunesmith/0.1"
    """Product name sent to servers; its part before `/` is what robots.txt rules are matched with."""
    contact: str = ""
    """A page or e-mail address where a site's owner reaches you; sent with the user agent. MusicBrainz asks for it."""
    requests_per_s_per_host: float = Field(default=1.0, gt=0, le=100)
    """Most requests a second to one host; a robots.txt Crawl-delay may lower it."""
    max_crawl_delay_s: float = Field(default=30.0, ge=0, le=3600)
    """Longest Crawl-delay that is honoured; a host that asks for more is paced at this."""
    connect_timeout_s: float = Field(default=10.0, gt=0, le=300)
    """Seconds to connect, TLS included, and the longest silence while reading."""
    total_timeout_s: float = Field(default=60.0, gt=0, le=3600)
    """Seconds that one attempt at a URL may take, its redirects included, however slowly bytes come."""
    max_body_bytes: int = Field(default=64 * 2**20, ge=1024)
    """Largest page, before and after decompression."""
    max_compression_ratio: float = Field(default=200.0, ge=2)
    """Largest decompressed to compressed size, judged from 1 MiB on; text compresses 3 to 20 times, bombs 1,000."""
    max_upload_bytes: int = Field(default=2**30, ge=1024)
    """Largest upload or local file; 200,000 song lyrics make some 350 MB."""
    max_media_bytes: int = Field(default=512 * 2**20, ge=1024)
    """Largest media file."""
    max_collection_media_bytes: int = Field(default=64 * 2**30, ge=1024)
    """Most bytes of media that one collection may hold."""
    media_timeout_s: float = Field(default=900.0, gt=0, le=24 * 3600)
    """Seconds that one attempt at a media file may take, as `total_timeout_s` is for pages."""
    max_parsed_bytes: int = Field(default=32 * 2**20, ge=1024)
    """Largest HTML page or JSON array: these are parsed in memory, at several times their size."""
    max_field_chars: int = Field(default=131_072, ge=16, le=131_072)
    """Longest value of one field (a line may be 8 times as long). The csv module stops at 131,072."""
    max_records: int = Field(default=1_000_000, ge=1)
    """Most records that one collection may hold."""
    max_redirects: int = Field(default=5, ge=0, le=20)
    """Most redirects that are followed."""
    max_attempts: int = Field(default=4, ge=1, le=20)
    """Attempts at a URL that cannot be reached or answers 429 or 5xx."""
    backoff_s: float = Field(default=1.0, ge=0, le=60)
    """First wait between attempts; it doubles each time, up to half of it random."""
    max_retry_wait_s: float = Field(default=60.0, ge=0, le=3600)
    """Longest wait between attempts; a Retry-After beyond it gives up at once."""
    respect_robots: bool = True
    """Obey robots.txt, `X-Robots-Tag: noai` and `TDM-Reservation: 1`. Turn off only for sites of your own."""
    licence_allow: Annotated[frozenset[str], NoDecode] = OPEN_LICENCES
    """SPDX ids of licences that may be collected for training. A source that states any other licence is refused."""
    unknown_licence: Literal["allow", "refuse"] = "allow"
    """What to do with a source that states no licence: collect it and mark each record `unknown`, or refuse it."""
    watch_interval_s: float = Field(default=0.5, gt=0, le=3600)
    """Seconds between two looks at watched files and folders."""
    watch_settle_s: float = Field(default=1.0, ge=0, le=3600)
    """Seconds that a watched file must stand still before it is collected: it may still be being written."""
    musicbrainz_url: str = "https://musicbrainz.org"
    """Where `musicbrainz:` sources are served from."""

    listenbrainz_url: str = "https://api.listenbrainz.org"
    """Where playlists of listenbrainz.org are served from."""

    @field_validator("file_roots", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("file_roots")
    @classmethod
    def _absolute_paths(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for path in value:
            if not path.is_absolute():
                raise ValueError(f"{path} is not an absolute path; write for example /srv/tunesmith/lists")
        return value

    @field_validator("licence_allow", mode="before")
    @classmethod
    def _split_licences(cls, value: object) -> object:
        return frozenset(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("user_agent", "contact")
    @classmethod
    def _one_header_line(cls, value: str) -> str:
        if not value.isascii() or not value.isprintable():
            raise ValueError("must be one line of printable ASCII, since it is sent as an HTTP header")
        return value

    @field_validator("user_agent")
    @classmethod
    def _names_the_product(cls, value: str) -> str:
        if "tunesmith" not in value.lower():
            raise ValueError(f"{value!r} does not name tunesmith; site owners must be able to tell who is asking")
        return value

    @field_validator("musicbrainz_url", "listenbrainz_url")
    @classmethod
    def _no_trailing_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @property
    def user_agent_header(self) -> str:
        """`user_agent`, with the contact where one is set."""
        return f"{self.user_agent} (+{self.contact})" if self.contact else self.user_agent
