"""Events -> handlers of the trainer."""

from __future__ import annotations

from tunesmith.domain.events import RUN_SUCCEEDED, Event, topic_of
from tunesmith.domain.ids import derived_uuid
from tunesmith.domain.jobs import PRIORITY_LIMIT
from tunesmith.jobs.consuming import ConsumerLoop
from tunesmith.platform import Platform
from tunesmith.rpc.jobs import JobBoard
from tunesmith_trainer.handlers import JudgeRequest


def judge_job_id(tune_job_id: str) -> str:
    """The job that judges what a tune job made. One for each, so that an event that comes twice starts nothing."""
    return derived_uuid("judge-after", tune_job_id)


def consumers(platform: Platform, board: JobBoard) -> tuple[ConsumerLoop, ...]:
    """The consumer loops to run."""

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
    )
