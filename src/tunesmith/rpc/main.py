"""The main of a service process: `serve`, and `work JOB_ID EPOCH` for the worker of one job (`rpc.health` asks one)."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from tunesmith.addresses import SERVICE_PORTS
from tunesmith.domain.errors import InvalidSettings, TunesmithError, Unavailable
from tunesmith.jobs.ranks import Rank
from tunesmith.jobs.worker import (
    EXIT_MISCONFIGURED,
    EXIT_UNAVAILABLE,
    HandOver,
    Outcome,
    Together,
    Work,
    WorkContext,
    end_with_launcher,
    run_helper,
    run_worker,
)
from tunesmith.platform import Platform
from tunesmith.recipes import check_code
from tunesmith.rpc.data_folder import held
from tunesmith.rpc.hosting import BuildService, host
from tunesmith.settings import Settings
from tunesmith.telemetry import configure_logging

log = logging.getLogger(__name__)

EXIT_USAGE = 2

BuildWorks = Callable[[Platform], Mapping[str, Work]]
"""A service's work by job kind, and by stage."""

BuildTogether = Callable[[Platform], Mapping[str, Together]]
"""What of it several processes can do together, by job kind."""


def main(
    argv: Sequence[str],
    *,
    name: str,
    build: BuildService,
    works: BuildWorks,
    together: BuildTogether | None = None,
) -> int:
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
            case ["work", _, epoch] if epoch.isdigit():
                platform = Platform.open(settings, process=f"tunesmith-{name}")
                return _work(argv, platform, works(platform), together(platform) if together else {})
            case _:
                print(f"usage: python -m tunesmith_{name} [serve | work JOB_ID EPOCH | health]", file=sys.stderr)  # noqa: T201
                return EXIT_USAGE
    except TunesmithError as error:
        log.error("%s", error.message)
        print(f"tunesmith_{name}: {error.message}", file=sys.stderr)  # noqa: T201
        if argv[:1] == ["work"] and isinstance(error, InvalidSettings):
            return EXIT_MISCONFIGURED
        return EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_USAGE


def _work(argv: Sequence[str], platform: Platform, works: Mapping[str, Work], together: Mapping[str, Together]) -> int:
    """Do this process's part of a job: all of it, or as one of several, or starting those."""
    _, job_id, epoch = argv
    work = platform.jobs.get(job_id).work
    several, rank = together.get(work), Rank.of_this_process()
    if several is None and not rank.is_alone:
        raise InvalidSettings(f"WORLD_SIZE={rank.of}, but a {work} job is one process's work: start it alone")
    if several is not None and rank.is_alone:
        code = several.start(argv)
        if code is not None:
            return code
    if not rank.is_alone:
        end_with_launcher()
    jobs, clock = platform.jobs, platform.clock
    if several is not None and not rank.leads:
        return run_helper(job_id, int(epoch), several.help_along, jobs=jobs, clock=clock, rank=rank)
    return run_worker(job_id, int(epoch), _checked(works[work]), jobs=jobs, clock=clock, rank=rank)


def _standing_alone(settings: Settings, name: str) -> Settings:
    """The settings with what follows from serving one service only, where they do not say otherwise.

    No generator is served on the data folder, so it is looked for at its own port.
    """
    generator = f"grpc://127.0.0.1:{SERVICE_PORTS['generator']}"
    defaults = {"listen": f"127.0.0.1:{SERVICE_PORTS[name]}", "llm": generator, "serving": generator}
    return settings.model_copy(update={k: v for k, v in defaults.items() if k not in settings.model_fields_set})


def _checked(work: Work) -> Work:
    """The work, refused where its recipe's code is no longer what the job was asked for with."""

    def checked(context: WorkContext) -> Outcome | HandOver:
        check_code(context.job.request)
        return work(context)

    return checked


async def _serve(build: BuildService, platform: Platform) -> int:
    def on_ready(address: str) -> None:
        # What the imports made lives as long as the process: walking through it over and over would hold up calls.
        gc.freeze()
        log.info("ready at %s", address)

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await host([build], platform, on_ready=on_ready, stop=stop)
    finally:
        platform.close()
    return 0
