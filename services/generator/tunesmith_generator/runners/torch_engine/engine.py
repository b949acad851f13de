"""The engine thread: takes requests from an inbox, decodes them in micro-batches, and loads adapters between steps."""

from __future__ import annotations

import logging
import os
import queue
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from transformers.utils.logging import disable_progress_bar

from tunesmith.domain.errors import (
    FailedPrecondition,
    InvalidInput,
    NotFound,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
)
from tunesmith.ports import parameters as limits
from tunesmith.ports.language_model import Adapter
from tunesmith.ports.store import Store
from tunesmith_generator.runners.adapter_files import fetched
from tunesmith_generator.runners.exchange import EngineSettings, ResolveBase, Ticket
from tunesmith_generator.runners.text import TextStream
from tunesmith_generator.runners.torch_engine.bases import BARE, Base
from tunesmith_generator.runners.torch_engine.batch import Batch, Row
from tunesmith_generator.runners.torch_engine.sampling import Sampler

if TYPE_CHECKING:
    from tunesmith_generator.runners.torch_engine.grammar import Grammar

logger = logging.getLogger(__name__)

T = TypeVar("T")

STOP = None
"""Ends the engine when it comes out of the inbox."""

Inbox = queue.SimpleQueue[Ticket | Callable[[], None] | None]


@dataclass(slots=True, eq=False)
class _Host:
    """A base in memory with its batch."""

    base: Base
    batch: Batch


@dataclass(slots=True, eq=False)
class _Loaded:
    """An adapter that can answer, or the bare base under a name."""

    adapter: Adapter
    host: _Host
    internal_name: str
    unloading: list[Future[None]] = field(default_factory=list)
    """Whoever waits until it is gone; new requests are refused from then on."""


class Engine:
    """Owns every tensor. `run` is the engine thread; `load` is called by one other thread at a time."""

    def __init__(
        self, inbox: Inbox, *, store: Store, resolve_base: ResolveBase, cache_dir: Path, settings: EngineSettings
    ) -> None:
        self._inbox = inbox
        self._store = store
        self._resolve_base = resolve_base
        self._cache_dir = cache_dir
        self._settings = settings
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        """By base fingerprint, the least recently loaded onto first."""
        self._loaded: dict[str, _Loaded] = {}
        self._waiting: deque[tuple[_Host, Row]] = deque()
        disable_progress_bar()  # type: ignore[no-untyped-call]
        self._use_threads()

    def run(self) -> None:
        """Work until STOP comes; then fail whatever is unfinished."""
        while True:
            busy = bool(self._waiting) or any(host.batch.rows for host in self._hosts.values())
            for item in self._received(block=not busy):
                if item is STOP:
                    self.shut_down()
                    return
                if isinstance(item, Ticket):
                    self._accept(item)
                else:
                    item()
            self._admit()
            for host in self._hosts.values():
                if host.batch.rows:
                    self._guarded(host.batch.step, tickets=partial(_cleared, host.batch))
            self._finish_unloading()

    def load(self, adapter: Adapter) -> None:
        """Make `adapter` ready. Slow reading happens in the calling thread; only attaching stops the decoding."""
        self._use_threads()
        if self._call(lambda: self._keep(adapter)):
            return
        host = self._call(lambda: self._host_or_room(adapter.base_fingerprint))
        with ExitStack() as files:
            folder = None
            if adapter.key:
                folder = files.enter_context(fetched(adapter, store=self._store, cache_dir=self._cache_dir))
            if host is None:
                source = self._resolve_base(adapter.base_model, adapter.base_fingerprint)
                base = Base.load(source, base_model=adapter.base_model, settings=self._settings)
                host = _Host(base, Batch(base))
            ready = host
            self._call(lambda: self._attach(adapter, host=ready, folder=folder))

    def grammar(self, adapter: str | None, schema: str) -> Grammar:
        """Where an answer of `adapter` in the form of `schema` begins. Compiles in the calling thread, one at once."""
        host, _ = self._call(lambda: self._answering(adapter))
        return host.base.grammar(schema)

    def unload(self, name: str) -> Future[None]:
        """Refuse new requests for `name` from now on; the future ends when its running requests have."""
        future: Future[None] = Future()

        def begin() -> None:
            loaded = self._loaded.get(name)
            if loaded is None:
                future.set_result(None)
            else:
                loaded.unloading.append(future)

        self._inbox.put(begin)
        return future

    def _use_threads(self) -> None:
        """Bound PyTorch's threads; OpenMP keeps the number apart for each thread that calls it."""
        torch.set_num_threads(self._settings.num_threads or max(1, (os.cpu_count() or 1) // 2))

    def _call(self, function: Callable[[], T]) -> T:
        """Run `function` in the engine thread between two steps and give back what it returns or raises."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 - it is raised again where the call was made
                future.set_exception(error)

        self._inbox.put(run)
        return future.result()

    def _received(self, *, block: bool) -> Iterable[Ticket | Callable[[], None] | None]:
        """What lies in the inbox; waits for a first item when there is nothing else to do."""
        try:
            yield self._inbox.get(block=block)
            while True:
                yield self._inbox.get_nowait()
        except queue.Empty:
            return

    def _keep(self, adapter: Adapter) -> bool:
        """Whether `adapter` is loaded; a pending unload is called off."""
        loaded = self._loaded.get(adapter.name)
        if loaded is None:
            return False
        for future in loaded.unloading:
            future.set_result(None)
        loaded.unloading.clear()
        return True

    def _host_or_room(self, fingerprint: str) -> _Host | None:
        """The base's host if it is in memory; else None, with room for it: idle bases go, the oldest first."""
        if fingerprint in self._hosts:
            self._hosts.move_to_end(fingerprint)
            return self._hosts[fingerprint]
        used = {id(loaded.host) for loaded in self._loaded.values()} | {id(host) for host, _ in self._waiting}
        for other in [f for f, host in self._hosts.items() if not host.batch.rows and id(host) not in used]:
            if len(self._hosts) < self._settings.max_loaded_bases:
                break
            del self._hosts[other]
        if len(self._hosts) >= self._settings.max_loaded_bases:
            raise ResourceExhausted(
                f"{len(self._hosts)} base models are in use and the limit is {self._settings.max_loaded_bases}; unload "
                "models of other bases, or raise TUNESMITH_GENERATOR_MAX_LOADED_BASES",
                reason="TOO_MANY_BASES",
                metadata={"limit": str(self._settings.max_loaded_bases)},
            )
        return None

    def _attach(self, adapter: Adapter, *, host: _Host, folder: Path | None) -> None:
        internal_name = host.base.attach(folder, adapter=adapter.name) if folder else BARE
        self._hosts[adapter.base_fingerprint] = host
        self._loaded[adapter.name] = _Loaded(adapter, host, internal_name)
        logger.info("loaded %s on base %s", adapter.name, adapter.base_fingerprint)

    def _finish_unloading(self) -> None:
        """Forget adapters that are to go and whose last request has ended."""
        for name, loaded in [(n, lo) for n, lo in self._loaded.items() if lo.unloading]:
            waiting = (row for host, row in self._waiting if host is loaded.host)
            if any(row.ticket.adapter == name for row in (*loaded.host.batch.rows, *waiting)):
                continue
            del self._loaded[name]
            if loaded.internal_name != BARE:
                self._guarded(partial(loaded.host.base.detach, loaded.internal_name), tickets=list)
            for future in loaded.unloading:
                future.set_result(None)
            logger.info("unloaded %s", name)

    def _accept(self, ticket: Ticket) -> None:
        """Queue a request, or tell it at once why not. From here on its adapter stays, unloaded or not."""

        def prepare() -> None:
            try:
                self._waiting.append(self._row(ticket))
            except TunesmithError as error:
                ticket.deliver(error)

        self._guarded(prepare, tickets=lambda: [ticket])

    def _admit(self) -> None:
        """Let waiting requests join, in order, while there is room."""
        self._waiting = deque(entry for entry in self._waiting if not entry[1].ticket.cancelled)
        num_rows = sum(len(host.batch.rows) for host in self._hosts.values())
        joining: dict[int, tuple[_Host, list[Row]]] = {}
        while self._waiting and num_rows < self._settings.max_batch_size:
            host, row = self._waiting.popleft()
            joining.setdefault(id(host), (host, []))[1].append(row)
            num_rows += 1
        for host, rows in joining.values():
            self._guarded(partial(host.batch.join, rows), tickets=partial(_tickets, rows))

    def _row(self, ticket: Ticket) -> tuple[_Host, Row]:
        host, internal_name = self._answering(ticket.adapter)
        base, parameters = host.base, ticket.parameters
        prompt_ids = base.prompt_ids(ticket.prompt)[-(parameters.truncate or 0) :]
        if not prompt_ids:
            raise InvalidInput("prompt has no tokens; send text", metadata={"parameter": "prompt"})
        room = min(
            self._settings.max_prompt_tokens,
            (base.max_positions or 2**62) - parameters.max_new_tokens,
        )
        if len(prompt_ids) > room:
            raise InvalidInput(
                f"prompt of {len(prompt_ids)} tokens is too long: with max_new_tokens={parameters.max_new_tokens} "
                f"at most {room} fit; shorten it, or set truncate",
                reason="PROMPT_TOO_LONG",
                metadata={"parameter": "prompt", "value": str(len(prompt_ids)), "limit": str(room)},
            )
        seed = parameters.seed if parameters.seed is not None else secrets.randbits(63)
        drawn = seed if limits.samples(parameters) else None
        text = TextStream(base.decode, prompt_ids=prompt_ids, stop=parameters.stop)
        row = Row(ticket, internal_name, prompt_ids, drawn, Sampler(parameters, seed=drawn), text, ticket.grammar)
        return host, row

    def _answering(self, name: str | None) -> tuple[_Host, str]:
        if name is not None:
            loaded = self._loaded.get(name)
            if loaded is None or loaded.unloading:
                raise NotFound(
                    f"adapter {name} is not loaded; load it first", reason="ADAPTER_NOT_LOADED", metadata={"name": name}
                )
            return loaded.host, loaded.internal_name
        if len(self._hosts) != 1:
            raise FailedPrecondition(
                f"{len(self._hosts)} base models are loaded, so that it is not clear which one to ask; load the base "
                "under a name: an Adapter with empty key and hash",
                reason="NO_SINGLE_BASE",
            )
        (host,) = self._hosts.values()
        return host, BARE

    def _guarded(self, work: Callable[[], None], *, tickets: Callable[[], list[Ticket]]) -> None:
        """Do `work`; if it fails, only `tickets` fail with it and the engine goes on."""
        try:
            work()
        except torch.OutOfMemoryError as error:
            logger.exception("out of memory")
            _fail(tickets(), ResourceExhausted(f"out of memory: {error}; send fewer or shorter requests"))
            torch.cuda.empty_cache()
        except Exception as error:  # the main loop of a thread, which must outlive any one batch
            logger.exception("generation failed")
            message = f"generation failed: {type(error).__name__}: {error}; try again, and look at the generator's log"
            _fail(tickets(), Unavailable(message, reason="GENERATION_FAILED"))

    def shut_down(self) -> None:
        """Fail whatever is unfinished and free the memory."""
        error = Unavailable("the language model was closed", reason="CLOSED")
        for host in self._hosts.values():
            _fail(_cleared(host.batch), error)
        _fail(_tickets(row for _, row in self._waiting), error)
        for item in self._received(block=False):
            if isinstance(item, Ticket):
                item.deliver(error)
            elif item is not None:
                item()
        for loaded in self._loaded.values():
            for future in loaded.unloading:
                future.set_result(None)
        self._hosts.clear()
        self._loaded.clear()


def _tickets(rows: Iterable[Row]) -> list[Ticket]:
    return [row.ticket for row in rows]


def _cleared(batch: Batch) -> list[Ticket]:
    return _tickets(batch.clear())


def _fail(tickets: Iterable[Ticket], error: TunesmithError) -> None:
    for ticket in tickets:
        ticket.deliver(error)
