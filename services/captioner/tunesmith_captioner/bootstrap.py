"""Chooses the captioner's adapters and puts the service together."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping

from tunesmith.domain.events import CLIPS_CAPTIONED, topic_of
from tunesmith.domain.keys import collection as collection_key
from tunesmith.jobs.reconciler import JobKind
from tunesmith.jobs.worker import Outcome, Work, WorkContext
from tunesmith.platform import Platform
from tunesmith.rpc.hosting import mount
from tunesmith.rpc.jobs import JobBoard
from tunesmith.rpc.service import Service
from tunesmith.settings import read_settings
from tunesmith_captioner.consumer import consumers
from tunesmith_captioner.handlers import CaptionedCollection, CaptionRequest, caption
from tunesmith_captioner.servicer import CaptionerServicer, captioned_message
from tunesmith_captioner.settings import CaptionerSettings
from tunesmith_proto.captioner.v1 import captioner_pb2, captioner_pb2_grpc

MAX_PARALLEL_CAPTIONINGS = 1
"""One at a time: each already uses as many processes as the settings allow."""


def build(platform: Platform, board: JobBoard) -> Service:
    """The service, ready to be hosted."""
    settings = read_settings(CaptionerSettings)
    board.register("caption", lambda result: captioned_message(CaptionedCollection.from_json(result)))
    return Service(
        name="captioner",
        mounts=(
            mount(
                captioner_pb2,
                "CaptionerService",
                captioner_pb2_grpc.add_CaptionerServiceServicer_to_server,
                CaptionerServicer(platform, board, settings),
            ),
        ),
        topics=(topic_of("captioner"), topic_of("scraper")),
        kinds={
            "caption": JobKind(
                (sys.executable, "-m", "tunesmith_captioner", "work"),
                slot="caption",
                max_parallel=MAX_PARALLEL_CAPTIONINGS,
            )
        },
        consumers=consumers(platform, board, settings),
    )


def works(platform: Platform) -> Mapping[str, Work]:
    """What its workers do, by job kind."""
    return {"caption": lambda context: _caption(platform, context)}


def _caption(platform: Platform, context: WorkContext) -> Outcome:
    settings = read_settings(CaptionerSettings)
    request = CaptionRequest.from_json(context.job.request)
    # Named after the job, so that an attempt clears away what a killed one left.
    scratch = platform.settings.data / "scratch" / f"caption-{context.job.id}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    made = caption(
        request,
        store=platform.store,
        clock=platform.clock,
        limits=settings.limits(clip_s=request.clip_s),
        num_decoders=settings.decoders,
        batch_size=settings.batch_size,
        report=context.report,
        should_stop=context.should_stop,
        scratch=scratch,
    )
    scratch.rmdir()
    collection = made.collection
    data = {
        "job_id": context.job.id,
        "recipe": collection.recipe,
        "collection_id": collection.id,
        "derived_from": collection.derived_from,
        "num_records": collection.num_records,
        "num_failed": made.num_failed,
        "manifest_key": collection_key(collection.recipe, collection.id),
        "reused": made.reused,
    }
    return Outcome(made.to_json(), [(CLIPS_CAPTIONED, context.job.id, data)])
