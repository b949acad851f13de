"""Events -> handlers of the captioner: what was collected for a recipe that needs captions is captioned."""

from __future__ import annotations

import logging

from tunesmith.domain.errors import FailedPrecondition, UnknownRecipe
from tunesmith.domain.events import RECORDS_COLLECTED, Event, topic_of
from tunesmith.domain.ids import derived_uuid
from tunesmith.jobs.consuming import ConsumerLoop
from tunesmith.platform import Platform
from tunesmith.recipes import recipe_named
from tunesmith.rpc.jobs import JobBoard
from tunesmith_captioner.handlers import plan_captions
from tunesmith_captioner.settings import CaptionerSettings

log = logging.getLogger(__name__)


def consumers(platform: Platform, board: JobBoard, settings: CaptionerSettings) -> tuple[ConsumerLoop, ...]:
    """The consumer loops to run."""

    def on_records_collected(event: Event) -> None:
        recipe, collection_id = str(event.data["recipe"]), str(event.data["collection_id"])
        try:
            if recipe_named(recipe).needs != "captions":
                return
            plan = plan_captions(platform.store, recipe, collection_id, settings.captioners, clip_s=settings.clip_s)
        except (UnknownRecipe, FailedPrecondition) as error:
            # A recipe of another server, or a machine without captioners: no retry helps, and CaptionClips can be sent.
            log.warning("collection %s is not captioned here: %s", collection_id, error)
            return
        # One request id for each collection: an event that comes again joins even a captioning that failed.
        job, created = platform.jobs.submit_by_content(
            kind="caption",
            service="captioner",
            request=plan.to_json(),
            request_id=derived_uuid("caption-after", recipe, collection_id),
        )
        board.submitted(job, created=created)

    return (
        ConsumerLoop(
            bus=platform.bus,
            clock=platform.clock,
            group="captioner",
            topics=(topic_of("scraper"),),
            handlers={RECORDS_COLLECTED: on_records_collected},
        ),
    )
