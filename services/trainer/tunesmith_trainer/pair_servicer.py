"""protobuf <-> writing pairs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from google.longrunning import operations_pb2

from tunesmith.domain.addresses import is_loopback
from tunesmith.domain.errors import InvalidInput, PermissionRefused
from tunesmith.domain.ids import check_name
from tunesmith.platform import Platform, check_language_model_url
from tunesmith.rpc.convert import checked_request_id, to_timestamp
from tunesmith.rpc.jobs import JobBoard
from tunesmith_proto.trainer.v1 import pairs_pb2, pairs_pb2_grpc
from tunesmith_trainer.pair_writing import Written, plan_writing
from tunesmith_trainer.settings import TrainerSettings

_INVENT = {
    pairs_pb2.WRITE_MODE_UNSPECIFIED: False,
    pairs_pb2.WRITE_MODE_REWRITE: False,
    pairs_pb2.WRITE_MODE_INVENT: True,
}


class PairServicer(pairs_pb2_grpc.PairServiceServicer):
    """Accepts writings as jobs."""

    def __init__(self, platform: Platform, board: JobBoard, settings: TrainerSettings) -> None:
        self._platform = platform
        self._board = board
        self._on_loopback = is_loopback(platform.settings.listen.rpartition(":")[0])
        allowed = settings.llm_from_requests
        self._llm_from_requests = self._on_loopback if allowed is None else allowed

    async def WritePairs(self, request: pairs_pb2.WritePairsRequest, context: Any) -> operations_pb2.Operation:
        return await asyncio.to_thread(self._write_pairs, request)

    def _write_pairs(self, request: pairs_pb2.WritePairsRequest) -> operations_pb2.Operation:
        if request.mode not in _INVENT:
            raise InvalidInput(f"mode={request.mode} is unknown; known: 0 to 2", metadata={"field": "mode"})
        if request.collection_id:
            check_name(request.collection_id, what="collection_id")
        llm, with_key = self._language_model(request.llm)
        plan = plan_writing(
            self._platform.store,
            request.recipe,
            request.collection_id,
            invent=_INVENT[request.mode],
            num_pairs=request.num_pairs,
            seed=request.seed,
            llm=llm,
            key=with_key,
        )
        job, created = self._board.jobs.submit_by_content(
            kind="write",
            service="trainer",
            request=plan.to_json(),
            request_id=checked_request_id(request.request_id),
        )
        return self._board.submitted(job, created=created)

    def _language_model(self, asked: str) -> tuple[str, bool]:
        """The address to use, and whether the key of the settings goes there."""
        own = self._platform.settings.llm
        if not asked or asked == own:
            return own, True
        if not self._llm_from_requests:
            raise PermissionRefused(
                "this server takes no language model from requests; leave llm out to use its own, or set "
                "TUNESMITH_TRAINER_LLM_FROM_REQUESTS=true there",
                reason="LLM_FROM_REQUEST",
                metadata={"setting": "TUNESMITH_TRAINER_LLM_FROM_REQUESTS"},
            )
        check_language_model_url(asked)
        return asked, self._on_loopback


def pairs_message(written: Written) -> pairs_pb2.WrittenPairs:
    """An outcome as clients see it."""
    collection = written.collection
    return pairs_pb2.WrittenPairs(
        id=collection.id,
        recipe=collection.recipe,
        derived_from=collection.derived_from,
        derived_by=collection.derived_by,
        num_records=collection.num_records,
        num_written=written.num_written,
        bad=dict(written.bad),
        bad_replies=[pairs_pb2.BadReply(reason=reason, text=text) for reason, text in written.bad_replies],
        create_time=to_timestamp(collection.created_at),
        reused=written.reused,
    )


def pairs_result(result: Mapping[str, Any]) -> pairs_pb2.WrittenPairs:
    """A write job's result."""
    return pairs_message(Written.from_json(result))
