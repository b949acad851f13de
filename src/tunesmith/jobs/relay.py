"""The relay: publishes what jobs' outboxes hold, then takes it out."""

from __future__ import annotations

from tunesmith.domain.events import topic_of
from tunesmith.domain.jobs import Job
from tunesmith.jobs.state import JobStore
from tunesmith.ports.bus import EventBus


def publish_outbox(job: Job, *, jobs: JobStore, bus: EventBus) -> Job:
    """Publish `job`'s outbox and remove what was published; returns the job as stored.

    Dying between the two publishes again under the same event ids, which consumers drop.
    """
    if not job.outbox:
        return job
    bus.publish(topic_of(job.service), job.outbox)
    published = {event.id for event in job.outbox}

    def without_published(current: Job) -> Job | None:
        left = tuple(event for event in current.outbox if event.id not in published)
        return None if len(left) == len(current.outbox) else jobs.step(current, outbox=left)

    return jobs.change(job.id, without_published)
