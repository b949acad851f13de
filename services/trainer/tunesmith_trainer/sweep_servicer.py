"""protobuf <-> sweeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from google.longrunning import operations_pb2
from google.protobuf import json_format

from tunesmith.domain import keys
from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.ids import check_name
from tunesmith.domain.jobs import checked_priority
from tunesmith.platform import Platform
from tunesmith.recipes import recipe_named, with_code
from tunesmith.rpc.convert import checked_request_id, from_struct, page, page_size
from tunesmith.rpc.jobs import JobBoard
from tunesmith_proto.trainer.v1 import sweeps_pb2, sweeps_pb2_grpc
from tunesmith_trainer import sweeps
from tunesmith_trainer.messages import sweep_message
from tunesmith_trainer.servicer import PAGE_CHUNK_BYTES


class SweepServicer(sweeps_pb2_grpc.SweepServiceServicer):
    """Accepts sweeps as jobs, and shows what came of them."""

    def __init__(self, platform: Platform, board: JobBoard) -> None:
        self._store = platform.store
        self._board = board

    async def StartSweep(self, request: sweeps_pb2.StartSweepRequest, context: Any) -> operations_pb2.Operation:
        return await asyncio.to_thread(self._start, request)

    def _start(self, request: sweeps_pb2.StartSweepRequest) -> operations_pb2.Operation:
        if request.dataset_id:
            check_name(request.dataset_id, what="dataset_id")
        plan = sweeps.plan_sweep(
            self._store,
            request.recipe,
            request.dataset_id,
            request.base_model,
            from_struct(request.settings),
            [(axis.name, [_value(axis.name, value) for value in axis.values]) for axis in request.axes],
            metric=request.metric,
            num_samples=request.num_samples,
        )
        job, created = self._board.jobs.submit_by_content(
            kind="sweep",
            service="trainer",
            request=with_code(plan.to_json()),
            request_id=checked_request_id(request.request_id),
            priority=checked_priority(request.priority),
        )
        return self._board.submitted(job, created=created)

    async def GetSweep(self, request: sweeps_pb2.GetSweepRequest, context: Any) -> sweeps_pb2.GetSweepResponse:
        recipe, sweep_id = recipe_named(request.recipe), check_name(request.sweep_id, what="sweep_id")
        sweep = await asyncio.to_thread(sweeps.get_sweep, self._store, recipe.name, sweep_id)
        return sweeps_pb2.GetSweepResponse(sweep=sweep_message(sweep))

    async def ListSweeps(self, request: sweeps_pb2.ListSweepsRequest, context: Any) -> sweeps_pb2.ListSweepsResponse:
        recipe, size = recipe_named(request.recipe), page_size(request.page_size)
        found = await asyncio.to_thread(sweeps.list_sweeps, self._store, recipe.name)
        shown, token = page(found, token=request.page_token, size=size)
        bare = [replace(s, prompts=(), cells=tuple(replace(c, samples=()) for c in s.cells)) for s in shown]
        return sweeps_pb2.ListSweepsResponse(sweeps=[sweep_message(sweep) for sweep in bare], next_page_token=token)

    async def GetSweepPage(
        self, request: sweeps_pb2.GetSweepPageRequest, context: Any
    ) -> AsyncIterator[sweeps_pb2.GetSweepPageResponse]:
        recipe, sweep_id = recipe_named(request.recipe), check_name(request.sweep_id, what="sweep_id")
        stored = await asyncio.to_thread(self._store.get, keys.sweep_page(recipe.name, sweep_id))
        for start in range(0, len(stored.data), PAGE_CHUNK_BYTES):
            yield sweeps_pb2.GetSweepPageResponse(chunk=stored.data[start : start + PAGE_CHUNK_BYTES])


def _value(name: str, value: Any) -> Any:
    found = json_format.MessageToDict(value) if value.WhichOneof("kind") else None
    if isinstance(found, float) and found.is_integer():
        return int(found)
    if not isinstance(found, bool | int | float | str):
        raise InvalidInput(
            f"axis {name[:60]!r} has the value {str(found)[:60]!r}; send numbers, true or false, or text",
            metadata={"field": "axes", "value": str(found)[:60]},
        )
    return found
