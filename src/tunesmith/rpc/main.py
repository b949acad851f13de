"""The main of a service process: `serve`, and `work JOB_ID EPOCH` for the worker of one job (`rpc.health` asks one)."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from tunesmith.addresses import SERVICE_PORTS
from tunesmith.domain.errors import InvalidSettings, TunesmithError, Unavailable
from tunesmith.jobs.worker import EXIT_MISCONFIGURED, EXIT_UNAVAILABLE, Outcome, Work, WorkContext, run_worker
from tunesmith.platform import Platform
from tunesmith.recipes import check_code
from tunesmith.rpc.data_folder import held
from tunesmith.rpc.hosting import BuildService, host
from tunesmith.settings import Settings
from tunesmith.telemetry import configure_logging

log = logging.getLogger(__name__)

EXIT_USAGE = 2

BuildWorks = Callable[[Platform], Mapping[str, Work]]
"""A service's work by job kind."""


def main(argv: Sequence[str], *, name: str, build: BuildService, works: BuildWorks) -> int:
    """Run the process; returns its exit code.

    Wrong usage or settings print one line and return 2; a bus or store that does not answer, EXIT_UNAVAILABLE.
    """
    try:
        settings = Settings.read()
        configure_logging(level=settings.log_level, log_format=settings.log_format)
        match argv:
            case [] | ["serve"]:
                settings = _standing_alone(settings, name)
                with held(settings.data, name):
                    return asyncio.run(_serve(build, Platform.open(settings, process=f"tunesmith-{name}")))
            case ["work", job_id, epoch] if epoch.isdigit():
                platform = Platform.open(settings, process=f"tunesmith-{name}")
                work = works(platform)
                job = platform.jobs.get(job_id)
                return run_worker(
                    job_id, int(epoch), _checked(work[job.kind]), jobs=platform.jobs, clock=platform.clock
                )
            case _:
                print(f"usage: python -m tunesmith_{name} [serve | work JOB_ID EPOCH | health]", file=sys.stderr)  # noqa: T201
                return EXIT_USAGE
    except TunesmithError as error:
        log.error("%s", error.message)
        print(f"tunesmith_{name}: {error.message}", file=sys.stderr)  # noqa: T201
        if argv[:1] == ["work"] and isinstance(error, InvalidSettings):
            return EXIT_MISCONFIGURED
        return EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_USAGE


def _standing_alone(settings: Settings, name: str) -> Settings:
    """The settings with what follows from serving one service only, where they do not say otherwise.

    No generator is served on the data folder, so it is looked for at its own port.
    """
    generator = f"grpc://127.0.0.1:{SERVICE_PORTS['generator']}"
    defaults = {"listen": f"127.0.0.1:{SERVICE_PORTS[name]}", "llm": generator, "serving": generator}
    return settings.model_copy(update={k: v for k, v in defaults.items() if k not in settings.model_fields_set})


def _checked(work: Work) -> Work:
    """The work, refused where its recipe's code is no longer what the job was asked for with."""

    def checked(context: WorkContext) -> Outcome:
        check_code(context.job.request)
        return work(context)

    return checked


async def _serve(build: BuildService, platform: Platform) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await host([build], platform, on_ready=lambda address: log.info("ready at %s", address), stop=stop)
    finally:
        platform.close()
    return 0
