"""Fetches URLs that strangers chose: addresses judged, every redirect checked, bytes, ratio and time capped."""

from __future__ import annotations

import codecs
import hashlib
import logging
import math
import random
import re
import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import BinaryIO

import httpcore
import httpx

from tunesmith.domain.errors import (
    InvalidInput,
    NotFound,
    PermissionRefused,
    ResourceExhausted,
    SourceUnusable,
    TunesmithError,
    Unavailable,
)
from tunesmith.ports.clock import Clock
from tunesmith_scraper.network import Deadline, PinnedBackend, Resolver, system_resolver
from tunesmith_scraper.settings import ScraperSettings, environment_name

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 64 * 2**10
_RATIO_JUDGED_FROM_BYTES = 2**20
_MAX_URL_CHARS = 4096
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FORBIDDEN = frozenset({401, 403, 407, 451})
_NETWORK_ERRORS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)
_CHARSETS = re.compile(
    r"utf-(8|16|16-le|16-be|32|32-le|32-be)|ascii|iso8859-\d+|cp125\d|koi8-[ru]|big5|gb18030|gbk"
    r"|gb2312|shift_jis|euc_jp|euc_kr"
)
"""Names (as Python normalises them) of charsets a header may give; other codecs of Python do more than decode text."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one URL may give, and the settings that say so."""

    max_bytes: int
    total_timeout_s: float
    """Seconds of one attempt."""
    bytes_setting: str
    timeout_setting: str

    @staticmethod
    def of_pages(settings: ScraperSettings) -> Limits:
        """For pages and lists."""
        return Limits(settings.max_body_bytes, settings.total_timeout_s, "max_body_bytes", "total_timeout_s")

    @staticmethod
    def of_media(settings: ScraperSettings) -> Limits:
        """For media files."""
        return Limits(settings.max_media_bytes, settings.media_timeout_s, "max_media_bytes", "media_timeout_s")


@dataclass(frozen=True, slots=True)
class Page:
    """What a fetch gave. The body is in the sink; size and hash are those of the decompressed body."""

    url: str
    final_url: str
    headers: Mapping[str, str]
    """Lower-case names; repeated headers joined by `, `."""
    content_type: str
    """Lower-case media type without parameters; empty when the server gave none."""
    charset: str
    """As Python names it; empty when the server gave none."""
    content_hash: str = ""
    size_bytes: int = 0


def _ignore(_: object) -> None:
    return None


class Fetcher:
    """Fetches one URL at a time into a sink. Thread-safe; every fetch has connections of its own.

    Proxy variables of the environment are not used: a proxy would resolve the host again, out of our sight.
    """

    def __init__(
        self,
        settings: ScraperSettings,
        *,
        clock: Clock,
        resolver: Resolver = system_resolver,
        ssl_context: ssl.SSLContext | None = None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._resolver = resolver
        self._ssl_context = ssl_context or httpx.create_ssl_context(trust_env=False)
        self._uniform = uniform

    def fetch(
        self,
        url: str,
        sink: BinaryIO,
        *,
        limits: Limits | None = None,
        before_request: Callable[[str], None] = _ignore,
        accept: Callable[[Page], None] = _ignore,
    ) -> Page:
        """Write the body of `url` into `sink`, an empty seekable file, and return what was fetched.

        `before_request` is called with the URL of every request, redirects and retries included; `accept` with the
        headers of a good answer before its body is read. Either may raise to stop. `limits` are those of pages by
        default.

        Raises InvalidInput (URL that may not be fetched), PermissionRefused (private address; 401, 403, 451),
        NotFound (404, 410), SourceUnusable (other 4xx, bad certificate, too many redirects), ResourceExhausted (too
        large, a bomb), DeadlineExceeded (too slow), Unavailable (no answer, 429 or 5xx after all attempts).
        """
        checked = checked_url(url)
        limits = limits or Limits.of_pages(self._settings)
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._attempt(checked, sink, limits, before_request, accept)
            except _Again as error:
                wait_s = self._wait_s(error, attempt)
                if wait_s is None:
                    raise self._given_up(url, error, attempt) from error.__cause__
                logger.warning(
                    "%s: %s; attempt %d of %d in %.1f s",
                    url,
                    error,
                    attempt + 1,
                    self._settings.max_attempts,
                    wait_s,
                )
                sink.seek(0)
                sink.truncate()
                self._clock.sleep(wait_s)

    def _attempt(
        self,
        url: httpx.URL,
        sink: BinaryIO,
        limits: Limits,
        before_request: Callable[[str], None],
        accept: Callable[[Page], None],
    ) -> Page:
        settings = self._settings
        first = url
        num_redirects = 0
        before_request(str(url))
        deadline = Deadline(self._clock, limits.total_timeout_s, setting=environment_name(limits.timeout_setting))
        backend = PinnedBackend(self._resolver, allow_private=settings.allow_private_addresses, deadline=deadline)
        with httpx.Client(
            transport=_Transport(backend, self._ssl_context),
            trust_env=False,
            follow_redirects=False,
            timeout=settings.connect_timeout_s,
            headers={"user-agent": settings.user_agent_header, "accept": "*/*", "accept-encoding": "gzip"},
        ) as client:
            while True:
                try:
                    with client.stream("GET", url) as response:
                        target = _redirect_target(response)
                        if target is None:
                            return self._read(first, response, sink, limits, accept)
                except _NETWORK_ERRORS as error:
                    raise _network_failure(error, deadline) from error
                num_redirects += 1
                if num_redirects > settings.max_redirects:
                    raise SourceUnusable(
                        f"{first} redirects more than {settings.max_redirects} times, at last to {target}; "
                        f"give the final address, or raise {environment_name('max_redirects')}",
                        reason="TOO_MANY_REDIRECTS",
                        metadata={"url": str(first), "limit": str(settings.max_redirects)},
                    )
                url = checked_url(target)
                with deadline.paused():
                    before_request(str(url))

    def _read(
        self,
        first: httpx.URL,
        response: httpx.Response,
        sink: BinaryIO,
        limits: Limits,
        accept: Callable[[Page], None],
    ) -> Page:
        """Judge the status, then copy the body within its limits."""
        url = str(response.url)
        _raise_for_status(response, self._clock)
        page = _page_of_headers(first, response)
        accept(page)
        declared = response.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and len(declared) < 20 and int(declared) > limits.max_bytes:
            raise _too_large(url, f"{declared} bytes large", limits)
        digest = hashlib.sha256()
        size_bytes = 0
        for chunk in self._decompressed(response, limits):
            size_bytes += len(chunk)
            if size_bytes > limits.max_bytes:
                raise _too_large(url, "larger after decompression" if _is_gzip(response) else "larger", limits)
            ratio = size_bytes / max(1, response.num_bytes_downloaded)
            if size_bytes > _RATIO_JUDGED_FROM_BYTES and ratio > self._settings.max_compression_ratio:
                raise ResourceExhausted(
                    f"{url} decompresses to more than {self._settings.max_compression_ratio:g} times its size, as a "
                    f"decompression bomb does; if you trust it, raise {environment_name('max_compression_ratio')}",
                    reason="DECOMPRESSION_BOMB",
                    metadata={"url": url, "setting": environment_name("max_compression_ratio")},
                )
            digest.update(chunk)
            sink.write(chunk)
        return Page(
            url=page.url,
            final_url=page.final_url,
            headers=page.headers,
            content_type=page.content_type,
            charset=page.charset,
            content_hash=digest.hexdigest(),
            size_bytes=size_bytes,
        )

    def _decompressed(self, response: httpx.Response, limits: Limits) -> Iterator[bytes]:
        """The body in pieces of at most 64 KiB, so that no single piece can be a bomb."""
        url = str(response.url)
        gzip = _is_gzip(response)
        decoder = zlib.decompressobj(wbits=47)  # gzip or zlib, told by the header
        for raw in response.iter_raw(_CHUNK_BYTES):
            if response.num_bytes_downloaded > limits.max_bytes:
                raise _too_large(url, "larger", limits)
            if not gzip:
                yield raw
                continue
            data = raw
            while data:
                if decoder.eof:  # gzip members may follow each other
                    decoder = zlib.decompressobj(wbits=47)
                try:
                    piece = decoder.decompress(data, _CHUNK_BYTES)
                except zlib.error as error:
                    raise _Again(f"its gzip data is damaged ({error})") from error
                if piece:
                    yield piece
                data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
        if gzip and not decoder.eof:
            raise _Again("its gzip data is cut off")

    def _wait_s(self, error: _Again, attempt: int) -> float | None:
        """Seconds until the next attempt; None to give up."""
        if attempt >= self._settings.max_attempts:
            return None
        if error.retry_after_s is not None:
            return error.retry_after_s if error.retry_after_s <= self._settings.max_retry_wait_s else None
        longest_s = min(self._settings.backoff_s * math.ldexp(1.0, attempt - 1), self._settings.max_retry_wait_s)
        return longest_s * (0.5 + 0.5 * self._uniform())

    def _given_up(self, url: str, error: _Again, attempt: int) -> Unavailable:
        asked = f" and asks to wait {error.retry_after_s:g} s" if error.retry_after_s is not None else ""
        times = "1 attempt" if attempt == 1 else f"{attempt} attempts"
        return Unavailable(
            f"{url} is unavailable after {times}: {error}{asked}; try again later",
            reason="SOURCE_UNAVAILABLE",
            metadata={"url": url, "attempts": str(attempt)} | ({"status": str(error.status)} if error.status else {}),
        )


class _Again(Exception):
    """An attempt failed in a way that another attempt may mend."""

    def __init__(self, message: str, *, status: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class _Transport(httpx.BaseTransport):
    """httpx over httpcore with our network backend, which httpx's own transport has no parameter for."""

    def __init__(self, backend: httpcore.NetworkBackend, ssl_context: ssl.SSLContext) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context, network_backend=backend, max_keepalive_connections=0, http1=True, http2=False
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        response = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    """An httpcore response's stream as httpx wants it."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


def _network_failure(error: Exception, deadline: Deadline) -> Exception:
    """What a network error means: a passed deadline is final, all else may be tried again."""
    if isinstance(error, httpcore.TimeoutException) and deadline.passed():
        return deadline.exceeded()
    what = str(error) or type(error).__name__
    return _Again(f"no answer in time ({what})" if isinstance(error, httpcore.TimeoutException) else what)


def checked_url(text: str) -> httpx.URL:
    """`text` as an http(s) URL that may be fetched, without its fragment; InvalidInput says what is wrong with it."""
    shown = text[:200]
    try:
        url = httpx.URL(text)
        port = url.port
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise _refused_url(shown, f"it is not a URL ({error})") from error
    if len(text) > _MAX_URL_CHARS:
        raise _refused_url(shown, f"it is longer than {_MAX_URL_CHARS} characters")
    if url.scheme not in ("http", "https"):
        raise _refused_url(shown, f"its scheme is {url.scheme!r}; use http or https")
    if not url.host:
        raise _refused_url(shown, "it names no host")
    if url.userinfo:
        raise _refused_url(url.copy_with(username=None, password=None), "it carries a user name or password; remove it")
    if port is not None and port > 65535:
        raise _refused_url(shown, f"port {port} does not exist")
    if port is not None and port not in (80, 443) and port < 1024:
        raise _refused_url(shown, f"port {port} is another service's; use 80, 443 or one from 1024")
    return url.copy_with(fragment=None)


def _refused_url(url: object, why: str) -> InvalidInput:
    return InvalidInput(f"{url} cannot be fetched: {why}", reason="URL_REFUSED", metadata={"url": str(url)})


def _redirect_target(response: httpx.Response) -> str | None:
    """Where a redirect leads; None when the response is not one."""
    if response.status_code not in _REDIRECTS:
        return None
    location = response.headers.get("location")
    if not location:
        raise SourceUnusable(
            f"{response.url} answered {response.status_code} without saying where to go; give the final address",
            reason="BAD_REDIRECT",
            metadata={"url": str(response.url), "status": str(response.status_code)},
        )
    try:
        return str(response.url.join(location))
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise _refused_url(location[:200], f"it is not a URL ({error})") from error


def _raise_for_status(response: httpx.Response, clock: Clock) -> None:
    status = response.status_code
    url = str(response.url)
    metadata = {"url": url, "status": str(status)}
    if status == 429 or status >= 500:
        raise _Again(f"HTTP {status}", status=status, retry_after_s=_retry_after_s(response, clock))
    if status in (200, 203):
        return
    error: TunesmithError
    if status in (404, 410):
        error = NotFound(f"{url} does not exist (HTTP {status}); check the address", metadata=metadata)
    elif status in _FORBIDDEN:
        error = PermissionRefused(
            f"{url} refuses access (HTTP {status}); if you may use it, download it yourself and upload it",
            reason="SOURCE_FORBIDDEN",
            metadata=metadata,
        )
    else:
        error = SourceUnusable(
            f"{url} answered HTTP {status} instead of a page; check the address",
            reason="HTTP_STATUS",
            metadata=metadata,
        )
    raise error


def _retry_after_s(response: httpx.Response, clock: Clock) -> float | None:
    """The wait that the server asks for, in seconds; None when it asks for none that can be read."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        left: timedelta = parsedate_to_datetime(value) - clock.now()
        return max(0.0, left.total_seconds())
    except (ValueError, TypeError):
        return None


def _page_of_headers(first: httpx.URL, response: httpx.Response) -> Page:
    encodings = response.headers.get("content-encoding", "").strip().lower()
    if encodings not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise SourceUnusable(
            f"{response.url} is compressed as {encodings[:40]!r} although only gzip was asked for; "
            "download it yourself and upload it",
            reason="UNKNOWN_COMPRESSION",
            metadata={"url": str(response.url), "encoding": encodings[:40]},
        )
    content = Message()
    content["content-type"] = response.headers.get("content-type", "")
    media_type = content.get_content_type() if response.headers.get("content-type") else ""
    return Page(
        url=str(first),
        final_url=str(response.url),
        headers={name.lower(): value for name, value in response.headers.items()},
        content_type=media_type,
        charset=_known_charset(content.get_content_charset() or "", str(response.url)),
    )


def _known_charset(name: str, url: str) -> str:
    if not name:
        return ""
    try:
        known = codecs.lookup(name).name
    except (LookupError, ValueError):
        known = ""
    if not _CHARSETS.fullmatch(known):
        raise SourceUnusable(
            f"{url} says that its charset is {name[:40]!r}, which is not known; convert it to UTF-8 and upload it",
            reason="UNKNOWN_CHARSET",
            metadata={"url": url, "charset": name[:40]},
        )
    return known


def _is_gzip(response: httpx.Response) -> bool:
    return response.headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip", "deflate")


def _too_large(url: str, size: str, limits: Limits) -> ResourceExhausted:
    setting = environment_name(limits.bytes_setting)
    return ResourceExhausted(
        f"{url} is {size}, the limit is {limits.max_bytes} bytes; collect a smaller one, or raise {setting}",
        reason="BODY_TOO_LARGE",
        metadata={"url": url, "size": size, "limit": str(limits.max_bytes), "setting": setting},
    )
