"""JSON over HTTP to a language-model server: capped, timed, tried again while the server is busy. All of our aiohttp.

The address is the operator's own setting; what comes back from it is not trusted.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import aiohttp
import orjson

from tunesmith.domain.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    PermissionRefused,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
)

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""

MAX_ERROR_CHARS = 300
"""Of a server's own words in a message."""

_EVENT = b"data:"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a server is waited for, and how much of it is read."""

    connect_timeout_s: float = 10.0
    total_timeout_s: float = 180.0
    """One attempt, however slowly bytes come."""
    max_reply_bytes: int = 1 << 20
    attempts: int = 5
    backoff_s: float = 0.5
    """First wait between attempts; it doubles each time, up to half of it random."""
    max_wait_s: float = 30.0
    """Longest wait; a Retry-After beyond it is cut to it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the messages tell people to correct."""

    address: str = "TUNESMITH_LLM"
    key: str = "TUNESMITH_LLM_API_KEY"


@dataclass(frozen=True, slots=True)
class Reply:
    """A good answer: its body as JSON, and its headers."""

    body: Any
    headers: Mapping[str, str]
    """Found whatever the case of the name."""


class HttpEndpoint:
    """One server. Usable from one event loop; proxies, cookies and `.netrc` of the environment are not used."""

    def __init__(
        self, base_url: str, *, api_key: str = "", limits: Limits | None = None, setting: Setting | None = None
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.setting = setting or Setting()
        self._limits = limits or Limits()
        self._headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str) -> Reply:
        """GET a JSON document; raises as `post` does."""
        return await self._retried("GET", path, None)

    async def ping(self, path: str) -> None:
        """GET `path`, once, for its status alone; raises as `post` does."""
        try:
            async with self._answer("GET", path, None) as response:
                await self._body(response)
        except Busy as busy:
            raise busy.error from None

    async def post(self, path: str, body: Mapping[str, Any]) -> Reply:
        """POST JSON and read the JSON answer.

        Raises Unavailable (cannot be reached, busy through all attempts, not JSON), DeadlineExceeded, PermissionRefused
        (the key), NotFound (no such path or model), InvalidInput (the server refuses the request), ResourceExhausted
        (an answer beyond the limit).
        """
        return await self._retried("POST", path, body)

    async def command(self, path: str, body: Mapping[str, Any]) -> None:
        """POST JSON, once, for the status alone; raises as `post` does."""
        try:
            async with self._answer("POST", path, body) as response:
                await self._body(response)
        except Busy as busy:
            raise busy.error from None

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Any]:
        """POST JSON and read the answer's server-sent events, each one's data as JSON, up to `[DONE]`. Tried once.

        Closing the iterator closes the connection, which is how these servers learn that nobody waits any more.
        """
        size_bytes = 0
        rest = b""
        try:
            async with self._answer("POST", path, body) as response:
                async for chunk in response.content.iter_any():
                    size_bytes += len(chunk)
                    self._check_size(size_bytes)
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if not line.startswith(_EVENT):
                            continue
                        data = line[len(_EVENT) :].strip()
                        if data == b"[DONE]":
                            return
                        if data:
                            yield self._json(data)
                if rest.strip().startswith(b"<"):
                    self._json(rest)
        except Busy as busy:
            raise busy.error from None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _retried(self, method: str, path: str, body: Mapping[str, Any] | None) -> Reply:
        limits = self._limits
        for attempt in range(1, limits.attempts + 1):
            try:
                return await self._once(method, path, body)
            except Busy as busy:
                if attempt == limits.attempts:
                    raise busy.error from None
                wait_s = max(limits.backoff_s * 2 ** (attempt - 1), busy.retry_after_s)
                # Spread, so that parallel requests do not come back together.
                await asyncio.sleep(min(wait_s, limits.max_wait_s) * random.uniform(1.0, 1.5))
        raise AssertionError("there is at least one attempt")

    async def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> Reply:
        # Not by `_answer`, whose context manager costs some hundredths of a millisecond a call.
        try:
            response = await self._sent(method, path, body)
            try:
                if response.status != 200:
                    await self._refuse(response)
                data = await self._body(response)
            finally:
                _let_go(response)
        except (aiohttp.ClientError, OSError) as error:
            self._failed(error)
        return Reply(self._json(data), response.headers)

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The head of a good answer, within the time that the whole of it may take."""
        try:
            response = await self._sent(method, path, body)
            try:
                if response.status != 200:
                    await self._refuse(response)
                yield response
            finally:
                _let_go(response)
        except (aiohttp.ClientError, OSError) as error:
            self._failed(error)

    async def _sent(self, method: str, path: str, body: Mapping[str, Any] | None) -> aiohttp.ClientResponse:
        data = None if body is None else orjson.dumps(body)
        return await self._open().request(
            method, self.base_url + path, data=data, headers=self._headers, allow_redirects=False
        )

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            limits = self._limits
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=limits.total_timeout_s, sock_connect=limits.connect_timeout_s),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        chunks, size_bytes = [], 0
        while chunk := await response.content.readany():
            chunks.append(chunk)
            size_bytes += len(chunk)
            self._check_size(size_bytes)
        return b"".join(chunks)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._limits.max_reply_bytes:
            raise ResourceExhausted(
                f"{self.base_url} answered with more than {self._limits.max_reply_bytes} bytes; ask for fewer tokens",
                reason="LLM_REPLY_TOO_LARGE",
                metadata={"limit": str(self._limits.max_reply_bytes)},
            )

    def _json(self, data: bytes) -> Any:
        try:
            return orjson.loads(data)
        except ValueError as error:
            raise Unavailable(
                f"{self.base_url} did not answer with JSON{_page(data)}; check that {self.setting.address} is the "
                "address of its interface (an OpenAI-compatible one usually ends with /v1)",
                reason="LLM_NOT_JSON",
            ) from error

    async def _refuse(self, response: aiohttp.ClientResponse) -> NoReturn:
        """Raise what a status other than 200 means."""
        body = await self._body(response)
        said, kind = _said(body)
        status, server = response.status, self.base_url
        detail = f": {said}" if said else _page(body)
        if status in BUSY:
            raise Busy(
                Unavailable(f"{server} is busy or failing (HTTP {status}){detail}; try again later", reason="LLM_BUSY"),
                _seconds(response.headers.get("retry-after", "")),
            )
        if status in (401, 403):
            raise PermissionRefused(
                f"{server} refuses the key (HTTP {status}){detail}; set {self.setting.key} to a valid one",
                reason="LLM_KEY_REFUSED",
            )
        if status in (404, 405):
            raise NotFound(
                f"{server} has no such path or model (HTTP {status}){detail}; check {self.setting.address}",
                reason="LLM_NOT_FOUND",
                metadata={"said": said} if said else {},
            )
        if status == 424:
            raise Unavailable(
                f"{server} failed to generate (HTTP 424){detail or ': it gave no reason'}; try again",
                reason="LLM_FAILED",
                metadata={"error_type": kind},
            )
        if 300 <= status < 400:
            raise NotFound(f"{server} redirects elsewhere (HTTP {status}); set its true address", reason="LLM_MOVED")
        raise InvalidInput(
            f"{server} refuses the request (HTTP {status}){detail}",
            reason="LLM_REFUSED",
            metadata={"error_type": kind} if kind else {},
        )

    def _failed(self, error: Exception) -> NoReturn:
        """Raise aiohttp's errors as those of the tree."""
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            raise Busy(
                Unavailable(
                    f"{self.base_url} cannot be reached ({_words(error)}); start it, or correct {self.setting.address}",
                    reason="LLM_UNREACHABLE",
                )
            ) from error
        if isinstance(error, TimeoutError):
            raise self._late() from None
        if isinstance(error, aiohttp.InvalidURL):
            raise InvalidInput(
                f"{self.base_url} is no address; correct {self.setting.address}", reason="LLM_BAD_ADDRESS"
            ) from error
        raise Busy(
            Unavailable(f"the answer of {self.base_url} broke off ({_words(error)}); try again", reason="LLM_BROKE_OFF")
        ) from error

    def _late(self) -> DeadlineExceeded:
        limit_s = self._limits.total_timeout_s
        return DeadlineExceeded(
            f"{self.base_url} did not end its answer within {limit_s:g} s; ask for fewer tokens, or a faster server",
            reason="LLM_TIMEOUT",
            metadata={"limit_s": f"{limit_s:g}"},
        )


def adapter_not_loaded(name: str, endpoint: HttpEndpoint, loaded: Collection[str]) -> NotFound:
    """The error for an adapter that the server at `endpoint` does not answer with; `loaded` are those it does."""
    others = f" and {', '.join(loaded)}" if loaded else " only"
    return NotFound(
        f"adapter {name!r} is not loaded: {endpoint.base_url} serves its base{others}",
        reason="ADAPTER_NOT_LOADED",
        metadata={"name": name},
    )


def _let_go(response: aiohttp.ClientResponse) -> None:
    # Read to its end the connection is used again; else it is cut, which stops the server's work.
    if response.content.is_eof():
        response.release()
    else:
        response.close()


class Busy(Unavailable):
    """Worth another attempt."""

    def __init__(self, error: TunesmithError, retry_after_s: float = 0.0) -> None:
        metadata = {**error.metadata, "retry_after_s": f"{retry_after_s:g}"} if retry_after_s else error.metadata
        super().__init__(error.message, reason=error.reason, metadata=metadata)
        self.error = Unavailable(error.message, reason=error.reason, metadata=metadata)
        self.retry_after_s = retry_after_s


def _said(body: bytes) -> tuple[str, str]:
    """The server's own words on an error, on one line, and the kind of error that it names."""
    text, kind = body.decode(errors="replace"), ""
    try:
        row = json.loads(text)
        error = row.get("error", row.get("message", "")) if isinstance(row, dict) else ""
        text = str(error.get("message", "") if isinstance(error, dict) else error)
        kind = str(row.get("error_type", ""))[:40] if isinstance(row, dict) else ""
    except (ValueError, RecursionError):
        if text.lstrip().startswith("<"):
            text = ""
    return " ".join(text.split())[:MAX_ERROR_CHARS], kind


def _page(body: bytes) -> str:
    """Says so where the body is a page for people, which comes from a proxy or from another program."""
    return " but with an HTML page" if body.lstrip().startswith(b"<") else ""


def _words(error: Exception) -> str:
    return str(error)[:MAX_ERROR_CHARS] or type(error).__name__


def _seconds(retry_after: str) -> float:
    """Seconds of a Retry-After header; 0 for a date or nothing."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        return 0.0
