"""JSON over HTTP to a language-model server: capped, timed, tried again while the server is busy. All of our httpx.

The address is the operator's own setting; what comes back from it is not trusted.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx

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
class Reply:
    """A good answer: its body as JSON, and its headers with lower-case names."""

    body: Any
    headers: Mapping[str, str]


class HttpEndpoint:
    """One server. Usable from one event loop; proxies and `.netrc` of the environment are not used."""

    def __init__(self, base_url: str, *, api_key: str = "", limits: Limits | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._limits = limits or Limits()
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(self._limits.total_timeout_s, connect=self._limits.connect_timeout_s),
            trust_env=False,
            follow_redirects=False,
        )

    async def get(self, path: str) -> Reply:
        """GET a JSON document; raises as `post` does."""
        return await self._retried("GET", path, None)

    async def post(self, path: str, body: Mapping[str, Any]) -> Reply:
        """POST JSON and read the JSON answer.

        Raises Unavailable (cannot be reached, busy through all attempts, not JSON), DeadlineExceeded, PermissionRefused
        (the key), NotFound (no such path or model), InvalidInput (the server refuses the request), ResourceExhausted
        (an answer beyond the limit).
        """
        return await self._retried("POST", path, body)

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Any]:
        """POST JSON and read the answer's server-sent events, each one's data as JSON, up to `[DONE]`. Tried once."""
        size_bytes = 0
        async with self._answer("POST", path, body) as response:
            async for line in response.aiter_lines():
                size_bytes += len(line) + 1
                self._check_size(size_bytes)
                data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                if data == "[DONE]":
                    return
                if data:
                    yield self._json(data.encode())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _retried(self, method: str, path: str, body: Mapping[str, Any] | None) -> Reply:
        limits = self._limits
        for attempt in range(1, limits.attempts + 1):
            try:
                return await self._once(method, path, body)
            except _Busy as busy:
                if attempt == limits.attempts:
                    raise busy.error from None
                wait_s = max(limits.backoff_s * 2 ** (attempt - 1), busy.retry_after_s)
                # Spread, so that parallel requests do not come back together.
                await asyncio.sleep(min(wait_s, limits.max_wait_s) * random.uniform(1.0, 1.5))
        raise AssertionError("there is at least one attempt")

    async def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> Reply:
        async with self._answer(method, path, body) as response:
            data = await self._body(response)
        return Reply(self._json(data), dict(response.headers))

    @asynccontextmanager
    async def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> AsyncIterator[httpx.Response]:
        """The head of a good answer, within the time that the whole of it may take."""
        async with (
            self._errors(),
            asyncio.timeout(self._limits.total_timeout_s),
            self._client.stream(method, self.base_url + path, json=body) as response,
        ):
            if response.status_code != 200:
                await self._refuse(response)
            yield response

    async def _body(self, response: httpx.Response) -> bytes:
        data = bytearray()
        async for chunk in response.aiter_bytes():
            data += chunk
            self._check_size(len(data))
        return bytes(data)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._limits.max_reply_bytes:
            raise ResourceExhausted(
                f"{self.base_url} answered with more than {self._limits.max_reply_bytes} bytes; ask for fewer tokens",
                reason="LLM_REPLY_TOO_LARGE",
                metadata={"limit": str(self._limits.max_reply_bytes)},
            )

    def _json(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Unavailable(
                f"{self.base_url} did not answer with JSON; check that the address is that of its interface "
                "(an OpenAI-compatible one usually ends with /v1)",
                reason="LLM_NOT_JSON",
            ) from error

    async def _refuse(self, response: httpx.Response) -> NoReturn:
        """Raise what a status other than 200 means."""
        said = _said(await self._body(response))
        status, server = response.status_code, self.base_url
        detail = f": {said}" if said else ""
        if status in BUSY:
            raise _Busy(
                Unavailable(f"{server} is busy or failing (HTTP {status}){detail}; try again later", reason="LLM_BUSY"),
                _seconds(response.headers.get("retry-after", "")),
            )
        if status in (401, 403):
            raise PermissionRefused(
                f"{server} refuses the key (HTTP {status}){detail}; set TUNESMITH_LLM_API_KEY to a valid one",
                reason="LLM_KEY_REFUSED",
            )
        if status == 404:
            raise NotFound(
                f"{server} has no such path or model (HTTP 404){detail}; check TUNESMITH_LLM", reason="LLM_NOT_FOUND"
            )
        if 300 <= status < 400:
            raise NotFound(f"{server} redirects elsewhere (HTTP {status}); set its true address", reason="LLM_MOVED")
        raise InvalidInput(f"{server} refuses the request (HTTP {status}){detail}", reason="LLM_REFUSED")

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        """httpx' errors as those of the tree."""
        try:
            yield
        except TimeoutError:
            raise self._late() from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _Busy(
                Unavailable(
                    f"{self.base_url} cannot be reached ({_words(error)}); start it, or correct TUNESMITH_LLM",
                    reason="LLM_UNREACHABLE",
                )
            ) from error
        except httpx.TimeoutException:
            raise self._late() from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _Busy(
                Unavailable(
                    f"the answer of {self.base_url} broke off ({_words(error)}); try again", reason="LLM_BROKE_OFF"
                )
            ) from error

    def _late(self) -> DeadlineExceeded:
        limit_s = self._limits.total_timeout_s
        return DeadlineExceeded(
            f"{self.base_url} did not end its answer within {limit_s:g} s; ask for fewer tokens, or a faster server",
            reason="LLM_TIMEOUT",
            metadata={"limit_s": f"{limit_s:g}"},
        )


class _Busy(Unavailable):
    """Worth another attempt."""

    def __init__(self, error: TunesmithError, retry_after_s: float = 0.0) -> None:
        super().__init__(error.message, reason=error.reason, metadata=error.metadata)
        self.error = error
        self.retry_after_s = retry_after_s


def _said(body: bytes) -> str:
    """The server's own words on an error, on one line."""
    text = body.decode(errors="replace")
    try:
        row = json.loads(text)
        error = row.get("error", row.get("message", "")) if isinstance(row, dict) else ""
        text = str(error.get("message", "") if isinstance(error, dict) else error)
    except (ValueError, RecursionError):
        pass
    return " ".join(text.split())[:MAX_ERROR_CHARS]


def _words(error: Exception) -> str:
    return str(error)[:MAX_ERROR_CHARS] or type(error).__name__


def _seconds(retry_after: str) -> float:
    """Seconds of a Retry-After header; 0 for a date or nothing."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        return 0.0
