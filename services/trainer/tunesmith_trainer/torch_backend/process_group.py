"""Processes that train together, connected by torch.distributed: NCCL between GPUs, Gloo otherwise and for what is said
beside the training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import PartialState

from tunesmith.domain.errors import Interrupted, InvalidSettings, TunesmithError
from tunesmith.jobs.ranks import Rank
from tunesmith_trainer.peers import Peers

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: for one to build a base, or store a checkpoint. A process that dies is
noticed at once; this is for one that hangs, and for a network that is cut."""


@contextmanager
def connected(rank: Rank) -> Iterator[Peers]:
    """Join the other processes that torchrun has started; each has a GPU of its own where there are GPUs."""
    logging.getLogger("accelerate").setLevel(logging.WARNING)  # it tells four times an epoch that nothing is cut off
    on_gpu = torch.cuda.is_available()
    if on_gpu and torch.cuda.device_count() <= rank.on_node:
        raise InvalidSettings(
            f"process {rank.on_node} of this machine has no GPU: it shows {torch.cuda.device_count()}; set "
            "TUNESMITH_TRAINER_PROCESSES (on Kubernetes TUNESMITH_KUBERNETES_MODEL__PROCESSES) to no more than that"
        )
    try:
        # transformers makes the same call later and then finds this group.
        PartialState(cpu=not on_gpu, timeout=PATIENCE)
        peers = ConnectedPeers(rank, dist.new_group(backend="gloo", timeout=PATIENCE))
    except (RuntimeError, ValueError) as error:
        raise Interrupted(f"the other processes of this training did not come: {error}") from error
    yield peers
    dist.destroy_process_group()


class ConnectedPeers(Peers):
    """Peers in a process group; see `Peers`."""

    def __init__(self, rank: Rank, group: Any) -> None:  # Any: torch has no public type for a group
        self.rank = rank
        self._group = group

    def all_know(self, find: Callable[[], T]) -> T:
        told: list[tuple[T | None, TunesmithError | None]] = [_tried(find) if self.rank.leads else (None, None)]
        with _losses_told():
            dist.broadcast_object_list(told, src=0, group=self._group)
        found, error = told[0]
        if error is not None:
            raise error
        return cast(T, found)

    def once_a_node(self, work: Callable[[], None]) -> None:
        self.all_know(lambda: work())
        mine = self.rank.is_first_of_node and not self.rank.leads
        _, error = _tried(work) if mine else (None, None)
        errors: list[Any] = [None] * self.rank.of
        with _losses_told():
            dist.all_gather_object(errors, error, group=self._group)
        for told in errors:
            if told is not None:
                raise told

    def agree_to_stop(self, wanted: bool) -> bool:
        flags = torch.tensor([int(wanted)])
        with _losses_told():
            dist.all_reduce(flags, group=self._group)
        return super().agree_to_stop(bool(flags.item()))

    def wait(self) -> None:
        with _losses_told():
            dist.barrier(group=self._group)

    def is_lost(self, error: BaseException) -> bool:
        # Gloo's errors have no type of their own; NCCL's, sockets' and the rendezvous' do.
        return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


@contextmanager
def _losses_told() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise Interrupted(f"another process of this training is gone: {error}") from error


def _tried(work: Callable[[], T]) -> tuple[T | None, TunesmithError | None]:
    try:
        return work(), None
    except TunesmithError as error:
        return None, error
