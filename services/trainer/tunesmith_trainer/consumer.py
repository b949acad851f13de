"""Events -> handlers of the trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tunesmith.domain.events import (
    CLIPS_CAPTIONED,
    DATASET_BUILT,
    JOB_FAILED,
    MODEL_JUDGED,
    MODEL_PROMOTED,
    MODEL_REJECTED,
    PAIRS_WRITTEN,
    RECORDS_COLLECTED,
    RUN_SUCCEEDED,
    Event,
    topic_of,
)
from tunesmith.domain.ids import derived_uuid
from tunesmith.domain.jobs import PRIORITY_LIMIT
from tunesmith.jobs.consuming import ConsumerLoop, EventHandler
from tunesmith.platform import Platform
from tunesmith.recipes import recipe_named
from tunesmith.rpc.jobs import JobBoard
from tunesmith_trainer.handlers import JudgeRequest
from tunesmith_trainer.retraining import Policies

DERIVED = (CLIPS_CAPTIONED, PAIRS_WRITTEN)
"""Events that tell of a derived collection."""

TOPICS = tuple(topic_of(service) for service in ("scraper", "captioner", "trainer"))
"""What the policies hear of."""


def judge_job_id(tune_job_id: str) -> str:
    """The job that judges what a tune job made. One for each, so that an event that comes twice starts nothing."""
    return derived_uuid("judge-after", tune_job_id)


def consumers(
    platform: Platform, board: JobBoard, policies: Policies, look: Callable[[], None]
) -> tuple[ConsumerLoop, ...]:
    """The consumer loops to run. `look` has the policies looked at soon."""

    def on_run_succeeded(event: Event) -> None:
        data = event.data
        if data["follow_up"] not in ("judge", "promote"):
            return
        tuned = platform.jobs.find(data["job_id"])
        request = JudgeRequest(data["recipe"], data["run_id"], promote=data["follow_up"] == "promote")
        job, created = platform.jobs.submit(
            job_id=judge_job_id(data["job_id"]),
            kind="judge",
            service="trainer",
            request=request.to_json(),
            consumed_event=event.id,
            # A run that was made is judged before runs of its priority that wait to begin.
            priority=min(PRIORITY_LIMIT, tuned.priority + 1) if tuned else 0,
        )
        board.submitted(job, created=created)

    return (
        ConsumerLoop(
            bus=platform.bus,
            clock=platform.clock,
            group="trainer",
            topics=(topic_of("trainer"),),
            handlers={RUN_SUCCEEDED: on_run_succeeded},
        ),
        ConsumerLoop(
            bus=platform.bus,
            clock=platform.clock,
            group="trainer-policies",
            topics=TOPICS,
            handlers=policy_handlers(policies, look),
        ),
    )


def policy_handlers(policies: Policies, look: Callable[[], None]) -> Mapping[str, EventHandler]:
    """What policies do with events. An event only says where to look: a late or repeated one starts nothing.

    `look` has the policies looked at soon.
    """

    def on_collection(event: Event) -> None:
        recipe = event.data["recipe"]
        if policies.enabled(recipe) and (event.type in DERIVED or not recipe_named(recipe).needs):
            policies.curate(recipe, cause=event.data["collection_id"])
            look()

    def on_dataset_built(event: Event) -> None:
        if policies.enabled(event.data["recipe"]):
            policies.note_dataset(event.data["recipe"], event.data["dataset_id"], event.data["job_id"])
            policies.curation_ended(event.data["job_id"])
            look()

    def on_job_failed(event: Event) -> None:
        policies.curation_ended(event.data["job_id"])
        look()

    def on_end_of_job(_: Event) -> None:
        look()

    return {
        RECORDS_COLLECTED: on_collection,
        **dict.fromkeys(DERIVED, on_collection),
        DATASET_BUILT: on_dataset_built,
        JOB_FAILED: on_job_failed,
        **dict.fromkeys((RUN_SUCCEEDED, MODEL_JUDGED, MODEL_PROMOTED, MODEL_REJECTED), on_end_of_job),
    }
