"""The language model in this process: transformers and PEFT in a thread of their own.

Neither importing this module nor constructing the runner imports PyTorch; `warm_up` or the first `load` does, in the
engine thread.

Why an own decode loop, and not `model.generate(adapter_names=...)`: `generate` has one set of sampling parameters and
one random stream for the whole batch, lets nobody join or leave before the slowest row ends, and streams one row only.
The loop here (`torch_engine/batch.py`) takes requests in between two steps and lets each row sample, stop, stream and
be cancelled alone; its greedy output equals `generate`'s.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from tunesmith.domain.errors import ResourceExhausted, TunesmithError, Unavailable, Unsupported
from tunesmith.ports import json_schemas
from tunesmith.ports import parameters as limits
from tunesmith.ports.language_model import Adapter, Generation, GenerationParameters, StreamChunk
from tunesmith.ports.store import Store
from tunesmith_generator.runners.exchange import EngineSettings, ResolveBase, Ticket

if TYPE_CHECKING:
    from tunesmith_generator.runners.torch_engine.engine import Engine, Inbox
    from tunesmith_generator.runners.torch_engine.grammar import Grammar

logger = logging.getLogger(__name__)


class EmbeddedRunner:
    """Implements `tunesmith.ports.language_model.LanguageModel`. Use from one event loop.

    Requests of any adapter are decoded together, at most `max_batch_size` at once. An `Adapter` with empty `key` and
    `hash` is the bare base under a name of its own; `adapter=None` asks the base only while exactly one is loaded.

    Beyond the port's promises: results do not depend on batch mates (each row has its own parameters, random stream and
    positions; in float32 what is left is rounding in the last bits), `Generation.seed` is None when nothing was drawn,
    and the token texts of a stream, special ones left out, concatenate to the text.
    """

    def __init__(
        self, store: Store, *, resolve_base: ResolveBase, cache_dir: Path, settings: EngineSettings | None = None
    ) -> None:
        self._store = store
        self._resolve_base = resolve_base
        self._cache_dir = cache_dir
        self._settings = settings or EngineSettings()
        self._inbox: Inbox = SimpleQueue()
        self._engine: Future[Engine] = Future()
        self._thread: threading.Thread | None = None
        # One thread, so that bases are loaded one after the other and room for each is made before.
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tunesmith-loader")
        self._compiler = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tunesmith-grammar")
        self._num_in_flight = 0
        self._closed = False

    def warm_up(self) -> None:
        """Begin to import PyTorch, which takes seconds, because a first `load` is likely soon. Returns at once."""
        if not self._closed:
            self._start()

    async def load(self, adapter: Adapter) -> None:
        self._start()
        await asyncio.get_running_loop().run_in_executor(self._loader, self._load, adapter)

    async def unload(self, name: str) -> None:
        if self._closed or self._thread is None:
            return
        engine = await asyncio.wrap_future(self._engine)
        if not self._closed:
            await asyncio.wrap_future(engine.unload(name))

    async def generate(self, prompt: str, parameters: GenerationParameters, *, adapter: str | None) -> Generation:
        async with aclosing(self._chunks(prompt, parameters, adapter, every_token=False)) as chunks:
            async for chunk in chunks:
                if chunk.generation is not None:
                    return chunk.generation
        raise AssertionError("the last chunk carries the generation")

    def stream(
        self, prompt: str, parameters: GenerationParameters, *, adapter: str | None
    ) -> AsyncGenerator[StreamChunk, None]:
        return self._chunks(prompt, parameters, adapter, every_token=True)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        # The loader first: a load that has begun needs the engine to end.
        await asyncio.to_thread(self._loader.shutdown, cancel_futures=True)
        await asyncio.to_thread(self._compiler.shutdown, cancel_futures=True)
        self._inbox.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    async def _chunks(
        self, prompt: str, parameters: GenerationParameters, adapter: str | None, *, every_token: bool
    ) -> AsyncGenerator[StreamChunk, None]:
        limits.check_prompt(prompt)
        limits.check(parameters, max_new_tokens_limit=self._settings.max_new_tokens_limit)
        capacity = self._settings.max_batch_size + self._settings.queue_limit
        if self._num_in_flight >= capacity:
            raise ResourceExhausted(
                f"overloaded: {self._num_in_flight} requests are running or waiting and the limit is {capacity}; "
                "try again, or raise TUNESMITH_GENERATOR_QUEUE_LIMIT",
                reason="OVERLOADED",
                metadata={"limit": str(capacity)},
            )
        self._start()
        loop = asyncio.get_running_loop()
        ticket = Ticket(prompt, parameters, adapter, every_token, loop)
        self._num_in_flight += 1
        try:
            if parameters.json_schema is not None:
                json_schemas.checked(parameters.json_schema)
                # In a thread of its own, so that a schema that is slow to compile holds up no answer.
                ticket.grammar = await loop.run_in_executor(
                    self._compiler, self._grammar, adapter, parameters.json_schema
                )
            self._inbox.put(ticket)
            while True:
                item = await ticket.mailbox.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if item.generation is not None:
                    return
        finally:
            ticket.cancelled = True
            self._num_in_flight -= 1

    def _start(self) -> None:
        if self._closed:
            raise Unavailable("the language model was closed", reason="CLOSED")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tunesmith-engine", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        """The engine thread."""
        try:
            from tunesmith_generator.runners.torch_engine.engine import Engine
        except ImportError as error:
            missing = Unsupported(
                f"the embedded language model needs PyTorch, transformers and PEFT ({error}): "
                "pip install 'tunesmith[generator]'"
            )
            self._engine.set_exception(missing)
            self._refuse_all(missing)
            return
        engine = Engine(
            self._inbox,
            store=self._store,
            resolve_base=self._resolve_base,
            cache_dir=self._cache_dir,
            settings=self._settings,
        )
        self._engine.set_result(engine)
        try:
            engine.run()
        except Exception:  # the main of a thread: whoever waits must hear of it
            logger.exception("the engine thread died")
            engine.shut_down()
            self._refuse_all(Unavailable("the language model has died; restart the generator", reason="ENGINE_DIED"))

    def _refuse_all(self, error: TunesmithError) -> None:
        """Answer whatever comes with `error`, until the runner is closed."""
        while (item := self._inbox.get()) is not None:
            if isinstance(item, Ticket):
                item.deliver(error)
            else:
                item()

    def _grammar(self, adapter: str | None, schema: str) -> Grammar:
        """Runs in the compiler thread."""
        return self._engine.result().grammar(adapter, schema)

    def _load(self, adapter: Adapter) -> None:
        """Runs in the loader thread."""
        self._engine.result().load(adapter)
