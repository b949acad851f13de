"""One training in several processes: started by torchrun's own agent, ended together, summed up in one exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterable, Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tunesmith.jobs.worker import (
    EXIT_FAILED,
    EXIT_FENCED,
    EXIT_INTERRUPTED,
    EXIT_MISCONFIGURED,
    EXIT_OUT_OF_MEMORY,
    EXIT_UNAVAILABLE,
)
from tunesmith_trainer.settings import TrainerSettings
from tunesmith_trainer.torch_backend.process_group import PATIENCE

log = logging.getLogger(__name__)

_TELLING = (EXIT_MISCONFIGURED, EXIT_OUT_OF_MEMORY)
_OF_OTHERS = (EXIT_UNAVAILABLE, EXIT_FENCED, EXIT_INTERRUPTED)
"""Codes of a process that ends because of something outside of it, or because another one ended."""


def run_several(argv: Sequence[str], settings: TrainerSettings) -> int:
    """Run `python -m tunesmith_trainer ARGV` in `settings.processes` processes here and wait: the exit code for all.

    The first that ends otherwise than well ends the others, with time to save what they have. SIGTERM is passed on.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the server, which decides about its workers
    # Without it each process takes a thread for every core.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // settings.processes)))
    alone = settings.nodes == 1
    config = LaunchConfig(
        min_nodes=settings.nodes,
        max_nodes=settings.nodes,
        nproc_per_node=settings.processes,
        run_id="-".join(argv),
        rdzv_backend="c10d" if alone else "static",
        rdzv_endpoint="127.0.0.1:0" if alone else settings.rendezvous,
        rdzv_configs={"timeout": int(PATIENCE.total_seconds())} | ({} if alone else {"rank": settings.node}),
        local_addr="127.0.0.1" if alone else None,
        max_restarts=0,
        signals_to_handle="SIGTERM",
    )
    try:
        elastic_launch(config, sys.executable)("-m", "tunesmith_trainer", *argv)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        log.error("processes of this training ended with %s", codes)
        return summed_up(codes.values())
    except SignalException:
        return EXIT_INTERRUPTED
    except (RuntimeError, TimeoutError) as error:
        log.error("the processes of this training did not meet: %s", error)
        return EXIT_UNAVAILABLE
    return 0


def summed_up(codes: Iterable[int]) -> int:
    """The exit code that tells most about how several processes ended, of which the others followed one.

    A death by signal counts as being interrupted, as it does for a worker that is alone.
    """
    failed = [code for code in codes if code > 0]
    own = [code for code in failed if code not in _OF_OTHERS]
    for code in (*_TELLING, EXIT_FAILED, *own, *_OF_OTHERS):
        if code in failed:
            return code
    return EXIT_INTERRUPTED
