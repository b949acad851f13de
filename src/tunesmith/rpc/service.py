"""What a service hands to its host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tunesmith.jobs.consuming import ConsumerLoop
from tunesmith.jobs.reconciler import JobKind


@dataclass(frozen=True, slots=True)
class Mount:
    """One gRPC service to serve."""

    full_name: str
    """As reflection and health name it: `tunesmith_proto.scraper.v1.ScraperService`."""
    add_to_server: Callable[[Any], None]
    """Registers the servicer with a grpc.aio server."""


class Background(Protocol):
    """A loop in a thread of its own."""

    def start(self) -> None:
        """Start the thread."""
        ...

    def stop(self) -> None:
        """End it after the step it is at; returns when it has ended."""
        ...


async def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Service:
    """A service, ready to be hosted alone or beside others in one process."""

    name: str
    mounts: tuple[Mount, ...]
    topics: tuple[str, ...] = ()
    """Topics it publishes or reads, created at start."""
    kinds: Mapping[str, JobKind] = field(default_factory=dict)
    consumers: tuple[ConsumerLoop, ...] = ()
    background: tuple[Background, ...] = ()
    """Loops that run beside the consumers, as long as they do."""
    start: Callable[[], Awaitable[None]] = _nothing
    """Runs in the server's event loop before calls are accepted."""
    stop: Callable[[], Awaitable[None]] = _nothing
    """Runs in the server's event loop after the last call has ended."""
