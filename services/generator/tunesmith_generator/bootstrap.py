"""Chooses the generator's adapters and puts the service together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Protocol

from tunesmith.domain import keys
from tunesmith.domain.errors import BaseModelUnavailable, TunesmithError
from tunesmith.domain.events import topic_of
from tunesmith.jobs.worker import Work
from tunesmith.platform import Platform
from tunesmith.ports.language_model import LanguageModel
from tunesmith.ports.store import Store
from tunesmith.recipes import all_recipes
from tunesmith.rpc.hosting import mount
from tunesmith.rpc.jobs import JobBoard
from tunesmith.rpc.service import Service
from tunesmith.settings import PATIENT_THREADS, read_settings
from tunesmith_generator.backends import BackendList, read_backend
from tunesmith_generator.consumer import consumers
from tunesmith_generator.handlers import Serving
from tunesmith_generator.known import KnownAnswers
from tunesmith_generator.parity_servicer import ParityServicer
from tunesmith_generator.reload import ModelTable
from tunesmith_generator.runners.embedded import EmbeddedRunner
from tunesmith_generator.runners.exchange import EngineSettings
from tunesmith_generator.servicer import GeneratorServicer
from tunesmith_generator.settings import GeneratorSettings
from tunesmith_generator.structured import StructuredLanguageModel
from tunesmith_proto.generator.v1 import generator_pb2, generator_pb2_grpc, parity_pb2, parity_pb2_grpc

log = logging.getLogger(__name__)


class Runner(LanguageModel, Protocol):
    """A language model that can be told to get ready."""

    def warm_up(self) -> None:
        """A first `load` is likely soon. Returns at once; from any thread."""
        ...


BUILTIN_PREFIX = "builtin:"
"""Bases of this name are made by the trainer, which leaves them in the store."""


def build(platform: Platform, board: JobBoard) -> Service:
    """The service, ready to be hosted."""
    settings = read_settings(GeneratorSettings)
    runner = _runner(platform, settings)
    language_model = StructuredLanguageModel(runner)
    table = ModelTable(
        platform.store,
        language_model,
        platform.clock,
        recipes=tuple(all_recipes()),
        max_loaded_adapters=settings.max_loaded_adapters,
        serve_rejected=settings.serve_rejected,
    )
    serving = Serving(
        models=table,
        language_model=language_model,
        known=KnownAnswers(platform.store),
        max_new_tokens_limit=settings.max_new_tokens_limit,
        concurrency=settings.max_batch_size,
    )
    watch = _ChampionWatch(table, settings.refresh_interval_s)
    kind = read_backend(settings.backend).kind

    async def stop() -> None:
        await watch.stop()
        await table.close()
        await runner.close()

    return Service(
        name="generator",
        mounts=(
            mount(
                generator_pb2,
                "GeneratorService",
                generator_pb2_grpc.add_GeneratorServiceServicer_to_server,
                GeneratorServicer(serving, tuple(all_recipes())),
            ),
            mount(
                parity_pb2,
                "ParityService",
                parity_pb2_grpc.add_ParityServiceServicer_to_server,
                ParityServicer(serving, backend=kind, number_format=settings.dtype if kind == "embedded" else ""),
            ),
        ),
        topics=(topic_of("trainer"),),
        consumers=consumers(platform, look_at_champions=watch.look, warm_up=runner.warm_up),
        start=watch.start,
        stop=stop,
    )


def _runner(platform: Platform, settings: GeneratorSettings) -> Runner:
    cache = platform.settings.data / "cache" / "generator"
    backend = read_backend(settings.backend)
    if backend.kind == "embedded":
        for name, value in PATIENT_THREADS.items():
            os.environ.setdefault(name, value)  # read when the engine thread loads PyTorch
        return EmbeddedRunner(
            platform.store,
            resolve_base=lambda name, fingerprint: resolve_base(platform.store, cache / "bases", name, fingerprint),
            cache_dir=cache / "adapters",
            settings=_engine_settings(settings),
        )
    # Imported here, so that an embedded server does not wait for an HTTP client.
    from tunesmith_generator.runners.remote import RemoteRunner, RemoteSettings
    from tunesmith_generator.servers import connector

    return RemoteRunner(
        BackendList(backend),
        connector(backend, store=platform.store, cache_dir=cache, api_key=settings.backend_api_key.get_secret_value()),
        RemoteSettings(
            max_new_tokens_limit=settings.max_new_tokens_limit,
            max_in_flight=settings.max_batch_size + settings.queue_limit,
        ),
    )


def works(platform: Platform) -> Mapping[str, Work]:
    """What its workers do, by job kind: it has no jobs."""
    return {}


def resolve_base(store: Store, folder: Path, base_model: str, fingerprint: str) -> Path | str:
    """What transformers can load: a base that the trainer made is fetched from the store, others keep their name."""
    if not base_model.startswith(BUILTIN_PREFIX):
        local = Path(base_model).expanduser()
        return local if local.is_dir() else base_model
    target = folder / fingerprint
    if (target / "config.json").is_file():
        return target
    prefix = keys.base_model(fingerprint)
    names = sorted((info.key for info in store.list(prefix)), key=lambda key: key.endswith("/config.json"))
    if not names or not names[-1].endswith("/config.json"):
        raise BaseModelUnavailable(
            f"base model {base_model!r} ({fingerprint[:16]}) is not in the store; train a model on it first",
            metadata={"base_model": base_model},
        )
    target.mkdir(parents=True, exist_ok=True)
    for key in names:
        store.get_file(key, target / key.removeprefix(prefix))
    return target


def _engine_settings(settings: GeneratorSettings) -> EngineSettings:
    values = settings.model_dump()
    return EngineSettings(**{field.name: values[field.name] for field in fields(EngineSettings)})


class _ChampionWatch:
    """Looks at the champion aliases every now and then, and when told that one moved."""

    def __init__(self, table: ModelTable, interval_s: float) -> None:
        self._table = table
        self._interval_s = interval_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def look(self) -> None:
        """From any thread: look now."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._moved.set)

    async def _run(self) -> None:
        while True:
            self._moved.clear()
            try:
                await self._table.poll_once()
            except TunesmithError as error:
                log.warning("champions cannot be looked at: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), self._interval_s)
