"""Chooses the captioner's adapters and puts the service together."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.jobs.worker import Work
from tunesmith.platform import Platform
from tunesmith.rpc.hosting import mount
from tunesmith.rpc.jobs import JobBoard
from tunesmith.rpc.service import Service
from tunesmith.settings import read_settings
from tunesmith_captioner.consumer import consumers
from tunesmith_captioner.servicer import CaptionerServicer
from tunesmith_captioner.settings import CaptionerSettings
from tunesmith_proto.captioner.v1 import captioner_pb2, captioner_pb2_grpc


def build(platform: Platform, board: JobBoard) -> Service:
    """The service, ready to be hosted."""
    servicer = CaptionerServicer(read_settings(CaptionerSettings))
    return Service(
        name="captioner",
        mounts=(
            mount(
                captioner_pb2,
                "CaptionerService",
                captioner_pb2_grpc.add_CaptionerServiceServicer_to_server,
                servicer,
            ),
        ),
        consumers=consumers(platform),
    )


def works(platform: Platform) -> Mapping[str, Work]:
    """What its workers do, by job kind."""
    return {}
