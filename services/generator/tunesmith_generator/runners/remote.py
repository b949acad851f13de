"""The language model behind one or several servers that answer alike: health, choice, retries, adapters on all of them.

Free of PyTorch, and of what a server speaks: that is the clients' business (`tunesmith.adapters`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, cast

from tunesmith.domain.deadlines import remaining_s
from tunesmith.domain.errors import NotFound, ResourceExhausted, TunesmithError, Unavailable
from tunesmith.ports import parameters as limits
from tunesmith.ports.language_model import Adapter, Generation, GenerationParameters, LanguageModel, StreamChunk

logger = logging.getLogger(__name__)

T = TypeVar("T")

BUSY = "LLM_BUSY"
"""The server is well and has too much to do."""
WORTH_WAITING = frozenset({BUSY, "LLM_UNREACHABLE", "LLM_BROKE_OFF"})
"""Reasons that may pass: a full queue, a server that is starting anew."""


class Server(LanguageModel, Protocol):
    """The client of one server."""

    async def check(self) -> None:
        """Raise unless the server is ready. Forgets adapters that it has lost."""
        ...

    def has(self, name: str) -> bool:
        """Whether adapter `name` is ready there."""
        ...

    def forget(self) -> None:
        """Take the server for one that was started anew."""
        ...


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """How the servers are looked after. Seconds."""

    max_new_tokens_limit: int = 1024
    max_in_flight: int = 1024
    """Requests that may be under way or waiting; more are refused as overloaded."""
    check_interval_s: float = 2.0
    check_timeout_s: float = 5.0
    backoff_s: float = 0.1
    """First wait when no server takes a request; it doubles each time."""
    max_backoff_s: float = 2.0
    max_wait_s: float = 10.0
    """Longest time that a request waits for a server; less when its caller waits less."""


@dataclass(slots=True, eq=False)
class _Backend:
    """A server in the list, or one that has left it and is still answering."""

    url: str
    server: Server
    healthy: bool = False
    checked: bool = False
    num_in_flight: int = 0
    problem: TunesmithError | None = None
    attaching: asyncio.Lock = field(default_factory=asyncio.Lock)
    refusals: dict[str, str] = field(default_factory=dict)
    """By adapter, the reason why it is not ready there; said once."""
    num_chosen: int = 0
    """Orders backends that have equally much to do."""


@dataclass(slots=True)
class _Attempts:
    """Where one request stands on its way to a server."""

    adapter: str | None
    tried: set[str] = field(default_factory=set)
    """Servers of this round."""
    give_up_s: float | None = None
    """On the event loop's clock; set by the first pause."""
    pause_s: float = 0.0


class RemoteRunner:
    """Implements `tunesmith.ports.language_model.LanguageModel`. Use from one event loop.

    A request goes to the server with the fewest requests among those that are well and have its adapter. One that
    cannot be reached, breaks off or answers nonsense gets no requests until a check succeeds; its adapters are then
    made ready again, because it may have been started anew. Generating has no side effect, so a request that failed
    before its first token is sent again, to another server or after a pause, while its caller waits.

    The list of servers is read again at every check: a new one gets requests once it is well and has the adapters, one
    that has left gets no more and is closed when its last request ends.
    """

    def __init__(
        self,
        urls: Callable[[], Awaitable[Sequence[str]]],
        connect: Callable[[str], Server],
        settings: RemoteSettings | None = None,
    ) -> None:
        """`urls` gives the list as it is now; `connect` makes the client of one."""
        self._urls = urls
        self._connect = connect
        self._settings = settings or RemoteSettings()
        self._backends: dict[str, _Backend] = {}
        self._list_missing = False
        """The list could not be read when it was last tried, which was said."""
        self._leaving: set[_Backend] = set()
        """Left the list, and still answering."""
        self._wanted: dict[str, Adapter] = {}
        self._num_running: Counter[str] = Counter()
        self._idle: dict[str, asyncio.Event] = {}
        """Set when no request for an adapter that is to go runs any more."""
        self._num_in_flight = 0
        self._turns = itertools.count(1)
        self._looking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False

    def warm_up(self) -> None:
        """Nothing: the servers run already."""

    async def load(self, adapter: Adapter) -> None:
        """See the port: ready on every server that is well; at least one must take it."""
        self._start()
        if adapter.name in self._wanted and any(self._candidates(adapter.name)):
            return
        await self._look()
        well = [backend for backend in self._backends.values() if backend.healthy]
        if not well:
            raise self._none_answers()
        problems = await asyncio.gather(*(self._attach(backend, adapter) for backend in well))
        if all(problems):
            refusals = [problem for problem in problems if problem is not None]
            raise next((p for p in refusals if not isinstance(p, Unavailable)), refusals[0])
        self._wanted[adapter.name] = adapter
        self._idle.pop(adapter.name, None)

    async def unload(self, name: str) -> None:
        """See the port."""
        if self._wanted.pop(name, None) is None:
            return
        while self._num_running[name]:
            await self._idle.setdefault(name, asyncio.Event()).wait()
        self._idle.pop(name, None)
        if name not in self._wanted:
            await asyncio.gather(*(self._detach(backend, name) for backend in self._backends.values()))

    async def generate(self, prompt: str, parameters: GenerationParameters, *, adapter: str | None) -> Generation:
        """See the port."""
        self._check(prompt, parameters, adapter)
        attempts = _Attempts(adapter)
        with self._counted(adapter):
            while True:
                backend = self._best(attempts) or await self._another(attempts)
                with self._occupied(backend):
                    try:
                        return await backend.server.generate(prompt, parameters, adapter=adapter)
                    except (Unavailable, NotFound) as error:
                        self._failed(backend, error, adapter)

    async def stream(
        self, prompt: str, parameters: GenerationParameters, *, adapter: str | None
    ) -> AsyncIterator[StreamChunk]:
        """See the port. After its first token a stream is not tried again: half of it has been seen."""
        self._check(prompt, parameters, adapter)
        attempts = _Attempts(adapter)
        with self._counted(adapter):
            while True:
                backend = self._best(attempts) or await self._another(attempts)
                begun = False
                chunks = cast("AsyncGenerator[StreamChunk]", backend.server.stream(prompt, parameters, adapter=adapter))
                with self._occupied(backend):
                    try:
                        async with aclosing(chunks):
                            async for chunk in chunks:
                                begun = True
                                yield chunk
                        return
                    except (Unavailable, NotFound) as error:
                        self._failed(backend, error, adapter)
                        if begun:
                            raise

    async def close(self) -> None:
        """See the port."""
        if self._closed:
            return
        self._closed = True
        tasks = [task for task in (self._watching, self._looking, *self._background) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(backend.server.close() for backend in (*self._backends.values(), *self._leaving)))

    def _start(self) -> None:
        if self._closed:
            raise Unavailable("the language model was closed", reason="CLOSED")
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    def _check(self, prompt: str, parameters: GenerationParameters, adapter: str | None) -> None:
        limits.check_prompt(prompt)
        limits.check(parameters, max_new_tokens_limit=self._settings.max_new_tokens_limit)
        if adapter is not None and adapter not in self._wanted:
            raise NotFound(
                f"adapter {adapter} is not loaded; load it first",
                reason="ADAPTER_NOT_LOADED",
                metadata={"name": adapter},
            )
        if self._num_in_flight >= self._settings.max_in_flight:
            raise ResourceExhausted(
                f"overloaded: {self._num_in_flight} requests are running or waiting and the limit is "
                f"{self._settings.max_in_flight}; try again, or raise TUNESMITH_GENERATOR_QUEUE_LIMIT",
                reason="OVERLOADED",
                metadata={"limit": str(self._settings.max_in_flight)},
            )
        self._start()

    @contextlib.contextmanager
    def _counted(self, adapter: str | None) -> Iterator[None]:
        name = adapter or ""
        self._num_in_flight += 1
        self._num_running[name] += 1
        try:
            yield
        finally:
            self._num_in_flight -= 1
            self._num_running[name] -= 1
            if not self._num_running[name]:
                del self._num_running[name]
                if going := self._idle.get(name):
                    going.set()

    @contextlib.contextmanager
    def _occupied(self, backend: _Backend) -> Iterator[None]:
        backend.num_in_flight += 1
        backend.num_chosen = next(self._turns)
        try:
            yield
        finally:
            backend.num_in_flight -= 1

    def _candidates(self, adapter: str | None) -> list[_Backend]:
        return [
            backend
            for backend in self._backends.values()
            if backend.healthy and (adapter is None or backend.server.has(adapter))
        ]

    def _best(self, attempts: _Attempts) -> _Backend | None:
        """The server to try next; None when all that could take the request were tried in this round."""
        best = None
        for backend in self._backends.values():
            if not backend.healthy or backend.url in attempts.tried:
                continue
            if attempts.adapter is not None and not backend.server.has(attempts.adapter):
                continue
            if best is None or (backend.num_in_flight, backend.num_chosen) < (best.num_in_flight, best.num_chosen):
                best = backend
        if best is not None:
            attempts.tried.add(best.url)
        return best

    async def _another(self, attempts: _Attempts) -> _Backend:
        """Pause until a server may take the request; raises what went wrong last when that is not to be expected."""
        loop = asyncio.get_running_loop()
        longest_s = self._settings.max_wait_s
        caller_s = remaining_s()
        if attempts.give_up_s is None:
            attempts.give_up_s = loop.time() + (longest_s if caller_s is None else min(caller_s, longest_s))
            attempts.pause_s = self._settings.backoff_s
        while True:
            problems = [backend.problem for backend in self._backends.values() if backend.problem is not None]
            hopeless = bool(problems) and all(problem.reason not in WORTH_WAITING for problem in problems)
            hints_s = [float(problem.metadata.get("retry_after_s", 0)) for problem in problems]
            # Spread, so that parallel requests do not come back together.
            wait_s = max(attempts.pause_s * random.uniform(1.0, 1.5), min(hints_s, default=0.0))
            if (self._backends and hopeless) or loop.time() + wait_s >= attempts.give_up_s:
                raise self._none_answers()
            await asyncio.sleep(wait_s if self._backends else 0)
            attempts.pause_s = min(2 * attempts.pause_s, self._settings.max_backoff_s)
            attempts.tried.clear()
            if not self._candidates(attempts.adapter):
                await self._look()
            if backend := self._best(attempts):
                return backend

    def _failed(self, backend: _Backend, error: TunesmithError, adapter: str | None) -> None:
        """Note what an attempt came to; raise it when no other attempt can come to anything else."""
        if isinstance(error, NotFound):
            if adapter is None or adapter not in self._wanted or error.reason != "ADAPTER_NOT_LOADED":
                raise error
            # The server was started anew, or another generator had it unload: make it ready again.
            logger.warning("backend %s has lost adapter %s", backend.url, adapter)
            self._later(self._regain(backend, self._wanted[adapter]))
            return
        if error.reason == "LLM_FAILED":
            raise error
        if error.reason == BUSY:
            backend.problem = error
            return
        self._eject(backend, error)

    def _eject(self, backend: _Backend, error: TunesmithError) -> None:
        if backend.healthy:
            logger.warning("backend %s gets no requests for now: %s", backend.url, error)
        backend.healthy = False
        backend.problem = error

    def _none_answers(self) -> TunesmithError:
        problems = [backend.problem for backend in self._backends.values() if backend.problem is not None]
        if len(problems) == 1 and len(self._backends) == 1:
            (problem,) = problems
            return type(problem)(problem.message, reason=problem.reason, metadata=problem.metadata)
        said = "; ".join(
            f"{url}: {b.problem.message if b.problem else 'not ready'}" for url, b in self._backends.items()
        )
        return Unavailable(
            f"none of {len(self._backends)} backends takes the request ({said[:600] or 'the list is empty'}); start "
            "one, or correct TUNESMITH_GENERATOR_BACKEND",
            reason="NO_BACKEND",
        )

    async def _watch(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(self._settings.check_interval_s * random.uniform(0.9, 1.1))

    async def _look(self) -> None:
        """Read the list and check every server on it; whoever comes while one looks waits for the same look."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_now())
        await asyncio.shield(self._looking)

    async def _look_now(self) -> None:
        try:
            urls = list(dict.fromkeys(await self._urls()))
        except TunesmithError as error:
            if not self._list_missing:
                logger.warning("the list of backends cannot be read, the old one stays until it can: %s", error)
            self._list_missing = True
            urls = list(self._backends)
        else:
            self._list_missing = False
        for url in urls:
            if url not in self._backends:
                self._backends[url] = _Backend(url, self._connect(url))
        for url in [url for url in self._backends if url not in urls]:
            backend = self._backends.pop(url)
            self._leaving.add(backend)
            self._later(self._drain(backend))
        await asyncio.gather(*(self._look_at(backend) for backend in self._backends.values()))

    async def _look_at(self, backend: _Backend) -> None:
        try:
            if not backend.healthy:
                backend.server.forget()
            async with asyncio.timeout(self._settings.check_timeout_s):
                await backend.server.check()
        except TimeoutError:
            late = f"{backend.url} did not answer a check within {self._settings.check_timeout_s:g} s"
            self._eject(backend, Unavailable(late, reason="LLM_UNREACHABLE"))
            return
        except TunesmithError as error:
            self._eject(backend, error)
            return
        missing = [adapter for adapter in self._wanted.values() if not backend.server.has(adapter.name)]
        problems = await asyncio.gather(*(self._attach(backend, adapter) for adapter in missing))
        backend.problem = next((problem for problem in problems if problem is not None), None)
        if not backend.healthy:
            logger.info("backend %s gets requests", backend.url)
        backend.healthy = True

    async def _attach(self, backend: _Backend, adapter: Adapter) -> TunesmithError | None:
        """Make an adapter ready on one server; gives what went wrong instead of raising it."""
        async with backend.attaching:
            try:
                if not backend.server.has(adapter.name):
                    await backend.server.load(adapter)
            except TunesmithError as error:
                if backend.refusals.get(adapter.name) != error.reason:
                    logger.warning("backend %s does not answer with %s: %s", backend.url, adapter.name, error)
                backend.refusals[adapter.name] = error.reason
                return error
            backend.refusals.pop(adapter.name, None)
        return None

    async def _regain(self, backend: _Backend, adapter: Adapter) -> None:
        await self._attach(backend, adapter)

    async def _detach(self, backend: _Backend, name: str) -> None:
        try:
            await backend.server.unload(name)
        except TunesmithError as error:
            logger.warning("backend %s keeps adapter %s: %s", backend.url, name, error)

    async def _drain(self, backend: _Backend) -> None:
        """Let a server that has left the list end its requests, then close it."""
        logger.info("backend %s has left the list", backend.url)
        while backend.num_in_flight:
            await asyncio.sleep(self._settings.check_interval_s / 4)
        await backend.server.close()
        self._leaving.discard(backend)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
