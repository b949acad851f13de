"""Which of the processes that do one job together this one is."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tunesmith.domain.errors import InvalidSettings


@dataclass(frozen=True, slots=True)
class Rank:
    """A process among those of one attempt; they are numbered from 0 over all nodes."""

    number: int = 0
    of: int = 1
    """All processes of the attempt."""
    on_node: int = 0
    """Number among the processes of this node."""

    @property
    def leads(self) -> bool:
        """Whether this process speaks for the attempt: heartbeat, progress, checkpoints in the store, outcome."""
        return self.number == 0

    @property
    def is_first_of_node(self) -> bool:
        """Whether this process prepares what the node's others use."""
        return self.on_node == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.of == 1

    @staticmethod
    def of_this_process() -> Rank:
        """As torchrun tells it (RANK, WORLD_SIZE, LOCAL_RANK); alone without. InvalidSettings when they do not fit."""
        given = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        if not any(given.values()):
            return Rank()
        if all(value.isdigit() for value in given.values()):
            rank = Rank(int(given["RANK"]), int(given["WORLD_SIZE"]), int(given["LOCAL_RANK"]))
            if rank.on_node <= rank.number < rank.of:
                return rank
        told = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise InvalidSettings(f"{told} do not number a process: let torchrun set all three, or unset them")
