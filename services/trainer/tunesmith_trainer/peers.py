"""The processes that share one training, as each of them sees the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tunesmith.jobs.ranks import Rank

T = TypeVar("T")


class Peers:
    """A process without others. `torch_backend.process_group` has the one with; all of them call the same methods in
    the same order, and each call waits for all. Every method raises Interrupted when one of the others is gone.
    """

    rank = Rank()
    is_stopping = False
    """Whether all have agreed to save and stop."""

    def all_know(self, find: Callable[[], T]) -> T:
        """What `find` gives in the first process, which alone calls it; its TunesmithError is raised in all."""
        return find()

    def once_a_node(self, work: Callable[[], None]) -> None:
        """Do `work` in the first process of all, then in the first of each other node. A TunesmithError of one is
        raised in all."""
        work()

    def agree_to_stop(self, wanted: bool) -> bool:
        """Whether any process wants to stop; then all do (`is_stopping`)."""
        self.is_stopping = self.is_stopping or wanted
        return self.is_stopping

    def wait(self) -> None:
        """Wait until all are here."""

    def is_lost(self, error: BaseException) -> bool:  # noqa: ARG002
        """Whether an error of a training step says that another process is gone."""
        return False


@contextmanager
def joined(rank: Rank) -> Iterator[Peers]:
    """The peers of a process, connected. InvalidSettings when there are fewer GPUs than processes, Interrupted when the
    others do not come."""
    if rank.is_alone:
        yield Peers()
        return
    from tunesmith_trainer.torch_backend.process_group import connected

    with connected(rank) as peers:
        yield peers
