"""The captioner as a service: captions follow from what was collected, once, whatever the events do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from captioner_media import Workshop
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import json_format

from contract.deadline import eventually
from fixtures_places import Place, variables
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain.events import CLIPS_CAPTIONED, RECORDS_COLLECTED, Event, topic_of
from tunesmith.embedded import session
from tunesmith_proto.captioner.v1 import captioner_pb2, captioner_pb2_grpc
from tunesmith_proto.common.v1 import jobs_pb2, jobs_pb2_grpc
from tunesmith_proto.events.v1 import events_pb2


class Client:
    """Stubs of one server, its store and its bus."""

    def __init__(self, address: str, data: Path, workshop: Workshop) -> None:
        channel = grpc.insecure_channel(address)
        self.captioner = captioner_pb2_grpc.CaptionerServiceStub(channel)
        self.jobs = jobs_pb2_grpc.JobServiceStub(channel)
        self.operations = operations_pb2_grpc.OperationsStub(channel)
        self.bus = workshop.place.bus(data, clock=SystemClock())
        self.workshop = workshop
        self.readers = 0
        workshop.store = workshop.place.store(data)

    def caption(self, collection_id: str, **request: Any) -> captioner_pb2.CaptionedCollection:
        message = captioner_pb2.CaptionClipsRequest(recipe="video_tags", collection_id=collection_id, **request)
        operation = self.captioner.CaptionClips(message)
        while not operation.done:
            operation = self.operations.WaitOperation(operations_pb2.WaitOperationRequest(name=operation.name))
        found = captioner_pb2.CaptionedCollection()
        assert operation.response.Unpack(found), operation.error
        return found

    def caption_jobs(self) -> list[jobs_pb2.Job]:
        return list(self.jobs.ListJobs(jobs_pb2.ListJobsRequest(kind="caption")).jobs)

    def captioned_events(self) -> list[Event]:
        self.readers += 1
        events = self.workshop.place.events(self.bus, [topic_of("captioner")], group=f"test-{self.readers}")
        return [event for event in events if event.type == CLIPS_CAPTIONED]


@pytest.fixture
def client(place: Place, tmp_path: Path) -> Iterator[Client]:
    data = tmp_path / "data"
    place.store(data)
    with variables(place.environment(data)), session(data) as address:
        client = Client(address, data, Workshop(tmp_path / "workshop", place))
        yield client
        client.bus.close()


def collected(collection_id: str, *, event_id: str, recipe: str = "video_tags") -> Event:
    data = {"job_id": "j", "recipe": recipe, "collection_id": collection_id, "num_records": 1, "reused": False}
    return Event(event_id, RECORDS_COLLECTED, "/tunesmith/scraper", "j", "2026-11-21T10:00:00Z", data)


def test_what_was_collected_is_captioned_once_however_often_it_is_said(client: Client, music_video: Path) -> None:
    collection = client.workshop.collection(client.workshop.add_media(music_video))

    for event_id in ("e1", "e1", "e2"):
        client.bus.publish(topic_of("scraper"), [collected(collection.id, event_id=event_id)])
    eventually(lambda: client.captioned_events())
    [job] = client.caption_jobs()
    again = client.caption(collection.id)

    assert [one.id for one in client.caption_jobs()] == [job.id]
    assert (again.derived_from, again.num_records, again.num_failed) == (collection.id, 1, 0)


def test_an_event_that_comes_again_after_a_failure_starts_nothing(client: Client, music_video: Path) -> None:
    collection = client.workshop.collection(client.workshop.add_media(music_video))
    client.workshop.store.put(collection.shards[0], b"torn")

    client.bus.publish(topic_of("scraper"), [collected(collection.id, event_id="e1")])
    eventually(lambda: [job for job in client.caption_jobs() if job.phase == jobs_pb2.JOB_PHASE_FAILED])
    other = client.workshop.collection(client.workshop.add_media(music_video), name="col-other")
    for event in (collected(collection.id, event_id="e2"), collected(other.id, event_id="e3")):
        client.bus.publish(topic_of("scraper"), [event])
    eventually(lambda: client.captioned_events())

    assert sorted(job.request["collection_id"] for job in client.caption_jobs()) == ["col-media", "col-other"]


def test_the_event_tells_of_the_derived_collection(client: Client, music_video: Path) -> None:
    collection = client.workshop.collection(client.workshop.add_media(music_video), "0" * 64)

    made = client.caption(collection.id)
    [event] = eventually(lambda: client.captioned_events())

    told = json_format.ParseDict(dict(event.data), events_pb2.ClipsCaptioned())
    assert (told.collection_id, told.derived_from) == (made.id, collection.id)
    assert (told.num_records, told.num_failed, dict(made.failures)) == (2, 1, {"no_media": 1})
    assert told.manifest_key in {info.key for info in client.workshop.store.list("collections/")}


def test_text_collections_and_recipes_nobody_knows_start_nothing(client: Client, music_video: Path) -> None:
    collection = client.workshop.collection(client.workshop.add_media(music_video))

    for number, recipe in enumerate(("micro_genre", "no_such_recipe", "video_tags")):
        client.bus.publish(topic_of("scraper"), [collected(collection.id, event_id=f"e{number}", recipe=recipe)])
    eventually(lambda: client.captioned_events())

    assert [job.request["recipe"] for job in client.caption_jobs()] == ["video_tags"]
    assert client.bus.dead_letters(topic_of("scraper")) == []


def test_captions_of_one_kind_can_be_asked_for(client: Client, music_video: Path) -> None:
    collection = client.workshop.collection(client.workshop.add_media(music_video))

    assert client.caption(collection.id, captioners=["signal-video"]).derived_by == "signal-video 1"
    with pytest.raises(grpc.RpcError) as refused:
        client.captioner.CaptionClips(captioner_pb2.CaptionClipsRequest(recipe="video_tags", collection_id="col-none"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
