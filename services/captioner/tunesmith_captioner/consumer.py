"""Events -> handlers of the captioner: it reads none, because no recipe of this version has clips."""

from __future__ import annotations

from tunesmith.jobs.consuming import ConsumerLoop
from tunesmith.platform import Platform


def consumers(platform: Platform) -> tuple[ConsumerLoop, ...]:
    """The consumer loops to run."""
    return ()
