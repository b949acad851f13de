"""All four services in one process on one port, over one data folder."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tunesmith.domain.models import MetricInfo
from tunesmith.platform import SERVER_FILE, Platform
from tunesmith.rpc.data_folder import announce, held
from tunesmith.rpc.hosting import BuildService, host
from tunesmith.settings import Settings


def serve(data: Path, listen: str, on_ready: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT, then drain; `on_ready` gets the address. Returns the exit code.

    FailedPrecondition when the data folder is served already, Unavailable when the port is in use, InvalidSettings.
    """
    settings = Settings.read(data=data, listen=listen)
    with held(settings.data), contextlib.closing(Platform.open(settings)) as platform:
        asyncio.run(_serve_until_signal(platform, on_ready))
    return 0


async def _serve_until_signal(platform: Platform, on_ready: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await _host(platform, on_ready, stop)


@contextlib.contextmanager
def session(data: Path, listen: str = "127.0.0.1:0") -> Iterator[str]:
    """Serve in a thread of this process while the block runs; gives the address. Drains on the way out.

    Raises what `serve` raises, before the block is entered.
    """
    settings = Settings.read(data=data, listen=listen)
    with held(settings.data), contextlib.closing(Platform.open(settings)) as platform:
        started: list[str] = []
        failed: list[BaseException] = []
        ready = threading.Event()
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()

        def on_ready(address: str) -> None:
            started.append(address)
            ready.set()

        def run() -> None:
            try:
                loop.run_until_complete(_host(platform, on_ready, stop))
            except BaseException as error:  # noqa: BLE001  # carried over to the thread that waits
                failed.append(error)
            finally:
                ready.set()
                loop.close()

        thread = threading.Thread(target=run, name="tunesmith-server", daemon=True)
        thread.start()
        ready.wait()
        if failed:
            raise failed[0]
        try:
            yield started[0]
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed when the server ended by itself
                loop.call_soon_threadsafe(stop.set)
            thread.join()
        if failed:
            raise failed[0]


async def _host(platform: Platform, on_ready: Callable[[str], None], stop: asyncio.Event) -> None:
    data = platform.settings.data

    def ready(address: str) -> None:
        announce(data, address)
        on_ready(address)

    try:
        await host(_builders(), platform, on_ready=ready, stop=stop)
    finally:
        (data / SERVER_FILE).unlink(missing_ok=True)


def _builders() -> list[BuildService]:
    from tunesmith_captioner.bootstrap import build as build_captioner
    from tunesmith_generator.bootstrap import build as build_generator
    from tunesmith_scraper.bootstrap import build as build_scraper
    from tunesmith_trainer.bootstrap import build as build_trainer

    return [build_scraper, build_captioner, build_trainer, build_generator]


def shared_metrics() -> Mapping[str, MetricInfo]:
    """The metrics that every recipe's reports have, by name."""
    from tunesmith_trainer.evaluation.metrics import METRIC_DESCRIPTIONS

    return METRIC_DESCRIPTIONS
