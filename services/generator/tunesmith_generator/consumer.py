"""Events -> handlers of the generator: a promotion is prepared for, and looked at as soon as it is known."""

from __future__ import annotations

import socket
from collections.abc import Callable

from tunesmith.domain.events import MODEL_PROMOTED, RUN_SUCCEEDED, Event, topic_of
from tunesmith.jobs.consuming import ConsumerLoop
from tunesmith.platform import Platform


def consumers(
    platform: Platform, *, look_at_champions: Callable[[], None], warm_up: Callable[[], None]
) -> tuple[ConsumerLoop, ...]:
    """The consumer loops to run. Both callables return at once and may be called from any thread."""
    # The launcher's scope is a replica's own name, and the same after a restart; pods have names of their own.
    replica = platform.launcher.scope or socket.gethostname()

    def on_model_promoted(_: Event) -> None:
        # The alias in the store says what to serve; an event that is late or out of order only makes us look again.
        look_at_champions()

    def on_run_succeeded(event: Event) -> None:
        if event.data.get("follow_up") == "promote":
            warm_up()

    return (
        ConsumerLoop(
            bus=platform.bus,
            clock=platform.clock,
            # Every replica must hear of every promotion, so each is a group of its own.
            group=f"generator-{replica}",
            topics=(topic_of("trainer"),),
            handlers={RUN_SUCCEEDED: on_run_succeeded, MODEL_PROMOTED: on_model_promoted},
        ),
    )
