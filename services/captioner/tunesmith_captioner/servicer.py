"""protobuf <-> handlers of the captioner."""

from __future__ import annotations

from typing import Any

from tunesmith_captioner import handlers
from tunesmith_captioner.settings import CaptionerSettings
from tunesmith_proto.captioner.v1 import captioner_pb2, captioner_pb2_grpc

_MEDIA_KINDS = {"audio": captioner_pb2.MEDIA_KIND_AUDIO, "video": captioner_pb2.MEDIA_KIND_VIDEO}


class CaptionerServicer(captioner_pb2_grpc.CaptionerServiceServicer):
    """Tells what can be captioned here."""

    def __init__(self, settings: CaptionerSettings) -> None:
        self._settings = settings

    async def ListCaptioners(
        self, request: captioner_pb2.ListCaptionersRequest, context: Any
    ) -> captioner_pb2.ListCaptionersResponse:
        return captioner_pb2.ListCaptionersResponse(
            captioners=[
                captioner_pb2.Captioner(
                    name=captioner.name,
                    version=captioner.version,
                    media_kinds=[_MEDIA_KINDS[kind] for kind in captioner.media_kinds],
                )
                for captioner in handlers.installed_captioners()
            ]
        )

    async def CaptionClips(self, request: captioner_pb2.CaptionClipsRequest, context: Any) -> Any:
        handlers.caption_clips(request.recipe, ", ".join(request.captioners) or self._settings.default_captioner)
