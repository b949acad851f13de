"""Events -> handlers of the scraper: it starts the chain and reads none."""

from __future__ import annotations

from tunesmith.jobs.consuming import ConsumerLoop
from tunesmith.platform import Platform


def consumers(platform: Platform) -> tuple[ConsumerLoop, ...]:
    """The consumer loops to run."""
    return ()
