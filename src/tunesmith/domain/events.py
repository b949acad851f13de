"""Events: facts in the past tense, each a CloudEvent 1.0."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EventType = Literal[
    "tunesmith.RecordsCollected.v1",
    "tunesmith.ClipsCaptioned.v1",
    "tunesmith.PairsWritten.v1",
    "tunesmith.DatasetBuilt.v1",
    "tunesmith.RunSucceeded.v1",
    "tunesmith.ModelJudged.v1",
    "tunesmith.ModelPromoted.v1",
    "tunesmith.ModelRejected.v1",
    "tunesmith.JobFailed.v1",
]
"""Every type that is published; `proto/tunesmith_proto/events/v1` gives the shape of each one's data."""

RECORDS_COLLECTED: EventType = "tunesmith.RecordsCollected.v1"
CLIPS_CAPTIONED: EventType = "tunesmith.ClipsCaptioned.v1"
PAIRS_WRITTEN: EventType = "tunesmith.PairsWritten.v1"
DATASET_BUILT: EventType = "tunesmith.DatasetBuilt.v1"
RUN_SUCCEEDED: EventType = "tunesmith.RunSucceeded.v1"
MODEL_JUDGED: EventType = "tunesmith.ModelJudged.v1"
MODEL_PROMOTED: EventType = "tunesmith.ModelPromoted.v1"
MODEL_REJECTED: EventType = "tunesmith.ModelRejected.v1"
JOB_FAILED: EventType = "tunesmith.JobFailed.v1"


_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")


def checked_trace(found: Any) -> dict[str, str]:
    """The W3C trace context (`traceparent`, `tracestate`) among `found`; empty for one that is not well-formed.

    It is an aid to people, so that nothing is refused for its sake.
    """
    if not isinstance(found, Mapping):
        return {}
    parent, state = found.get("traceparent"), found.get("tracestate")
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        return {}
    if isinstance(state, str) and _TRACESTATE.fullmatch(state):
        return {"traceparent": parent, "tracestate": state}
    return {"traceparent": parent}


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. `subject` is the aggregate's id and the partition key; `data` holds keys, counts and hashes only."""

    id: str
    type: str
    source: str
    """The producing service, as a URI reference: `/tunesmith/trainer`."""
    subject: str
    time: str
    """RFC 3339 in UTC."""
    data: Mapping[str, Any]
    trace: Mapping[str, str] = field(default_factory=dict)
    """The W3C trace context in which it was made: `traceparent`, and `tracestate` where there is one."""

    def to_json(self) -> dict[str, Any]:
        """The event as it is kept in an outbox."""
        return {
            "id": self.id,
            "type": self.type,
            "source": self.source,
            "subject": self.subject,
            "time": self.time,
            "data": dict(self.data),
            **({"trace": dict(self.trace)} if self.trace else {}),
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Event:
        """The inverse of `to_json`."""
        trace = checked_trace(row.get("trace"))
        return Event(row["id"], row["type"], row["source"], row["subject"], row["time"], dict(row["data"]), trace)


def topic_of(service: str) -> str:
    """The topic that a service publishes to; consumers tell events apart by type."""
    return f"tunesmith.{service}"


TOPICS = tuple(topic_of(service) for service in ("scraper", "captioner", "trainer"))
"""The topics of all services: each that has jobs publishes how they end."""
