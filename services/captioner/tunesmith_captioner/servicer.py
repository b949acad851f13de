"""protobuf <-> handlers of the captioner."""

from __future__ import annotations

import asyncio
from typing import Any

from google.longrunning import operations_pb2

from tunesmith.domain.ids import check_name
from tunesmith.platform import Platform
from tunesmith.rpc.convert import checked_request_id, to_timestamp
from tunesmith.rpc.jobs import JobBoard
from tunesmith_captioner.captioners import installed_captioners
from tunesmith_captioner.handlers import CaptionedCollection, plan_captions
from tunesmith_captioner.settings import CaptionerSettings
from tunesmith_proto.captioner.v1 import captioner_pb2, captioner_pb2_grpc

_MEDIA_KINDS = {"audio": captioner_pb2.MEDIA_KIND_AUDIO, "video": captioner_pb2.MEDIA_KIND_VIDEO}


def captioned_message(made: CaptionedCollection) -> captioner_pb2.CaptionedCollection:
    """A captioned collection as clients see it."""
    collection = made.collection
    return captioner_pb2.CaptionedCollection(
        id=collection.id,
        recipe=collection.recipe,
        derived_from=collection.derived_from,
        derived_by=collection.derived_by,
        num_records=collection.num_records,
        num_failed=made.num_failed,
        failures=dict(made.failures),
        create_time=to_timestamp(collection.created_at),
        reused=made.reused,
    )


class CaptionerServicer(captioner_pb2_grpc.CaptionerServiceServicer):
    """Tells what can be captioned here, and accepts captionings as jobs."""

    def __init__(self, platform: Platform, board: JobBoard, settings: CaptionerSettings) -> None:
        self._platform = platform
        self._board = board
        self._settings = settings

    async def ListCaptioners(
        self, request: captioner_pb2.ListCaptionersRequest, context: Any
    ) -> captioner_pb2.ListCaptionersResponse:
        return captioner_pb2.ListCaptionersResponse(
            captioners=[
                captioner_pb2.Captioner(name=one.name, version=one.version, media_kinds=[_MEDIA_KINDS[one.media_kind]])
                for one in installed_captioners()
            ]
        )

    async def CaptionClips(self, request: captioner_pb2.CaptionClipsRequest, context: Any) -> operations_pb2.Operation:
        return await asyncio.to_thread(self._caption_clips, request)

    def _caption_clips(self, request: captioner_pb2.CaptionClipsRequest) -> operations_pb2.Operation:
        plan = plan_captions(
            self._platform.store,
            request.recipe,
            check_name(request.collection_id, what="collection_id"),
            [*request.captioners] or self._settings.captioners,
            clip_s=self._settings.clip_s,
        )
        job, created = self._board.jobs.submit_by_content(
            kind="caption",
            service="captioner",
            request=plan.to_json(),
            request_id=checked_request_id(request.request_id),
        )
        return self._board.submitted(job, created=created)
