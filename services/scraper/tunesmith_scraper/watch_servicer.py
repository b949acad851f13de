"""protobuf <-> the use cases of watches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tunesmith.recipes import recipe_named
from tunesmith.rpc.convert import to_timestamp
from tunesmith_proto.scraper.v1 import scraper_pb2, watches_pb2, watches_pb2_grpc
from tunesmith_scraper.servicer import collect_request, source_message
from tunesmith_scraper.watches import Watch, Watches


class WatchServicer(watches_pb2_grpc.WatchServiceServicer):
    """Puts, lists and removes watches; `look` has them looked at soon."""

    def __init__(self, watches: Watches, look: Callable[[], None]) -> None:
        self._watches = watches
        self._look = look

    async def PutWatch(self, request: watches_pb2.PutWatchRequest, context: Any) -> watches_pb2.PutWatchResponse:
        asked = collect_request(scraper_pb2.CollectRequest(recipe=request.recipe, source=request.source))
        watch = await asyncio.to_thread(self._watches.put, asked.recipe, asked.source, request.every_s)
        self._look()
        return watches_pb2.PutWatchResponse(watch=watch_message(watch))

    async def ListWatches(
        self, request: watches_pb2.ListWatchesRequest, context: Any
    ) -> watches_pb2.ListWatchesResponse:
        if request.recipe:
            recipe_named(request.recipe)
        found = await asyncio.to_thread(self._watches.all)
        return watches_pb2.ListWatchesResponse(
            watches=[watch_message(watch) for watch in found if request.recipe in ("", watch.recipe)]
        )

    async def DeleteWatch(
        self, request: watches_pb2.DeleteWatchRequest, context: Any
    ) -> watches_pb2.DeleteWatchResponse:
        await asyncio.to_thread(self._watches.delete, request.watch_id)
        return watches_pb2.DeleteWatchResponse()


def watch_message(watch: Watch) -> watches_pb2.Watch:
    """A watch as clients see it."""
    message = watches_pb2.Watch(
        id=watch.id,
        recipe=watch.recipe,
        source=source_message(watch.source),
        every_s=watch.every_s,
        create_time=to_timestamp(watch.created_at),
        seen=[
            watches_pb2.SeenSource(name=name, job_id=seen.job_id, problem=seen.problem)
            for name, seen in sorted(watch.seen.items())
        ],
        problem=watch.problem,
    )
    if watch.every_s:
        message.next_time.CopyFrom(to_timestamp(watch.due_at))
    return message
