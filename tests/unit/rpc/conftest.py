"""A real gRPC server on a free port, hosting one small service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tunesmith.platform import Platform
from tunesmith.rpc.hosting import host, mount
from tunesmith.rpc.service import Service
from tunesmith.settings import Settings
from tunesmith_proto.captioner.v1 import captioner_pb2, captioner_pb2_grpc

Behaviour = Callable[[Any, Any], Awaitable[Any]]


class ScriptedServicer(captioner_pb2_grpc.CaptionerServiceServicer):
    """A service whose ListCaptioners does what the test says."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    async def ListCaptioners(self, request: Any, context: Any) -> Any:
        return await self._behaviour(request, context)


@pytest.fixture
def hosted(tmp_path: Path):
    """`async with hosted(behaviour, setting=...) as (channel, address, stop, platform)`."""

    @asynccontextmanager
    async def run(behaviour: Behaviour, **settings: Any) -> AsyncIterator[tuple[Any, str, asyncio.Event, Platform]]:
        platform = Platform.open(Settings.read(data=tmp_path, **{"listen": "127.0.0.1:0", "drain_s": 5, **settings}))
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()

        def build(_: Platform, board: Any) -> Service:
            board.register("tune", lambda _: captioner_pb2.ListCaptionersResponse())
            servicer = ScriptedServicer(behaviour)
            add = captioner_pb2_grpc.add_CaptionerServiceServicer_to_server
            return Service("captioner", (mount(captioner_pb2, "CaptionerService", add, servicer),))

        server = asyncio.create_task(host([build], platform, on_ready=ready.set_result, stop=stop))
        await asyncio.wait([ready, server], return_when=asyncio.FIRST_COMPLETED)
        if server.done():
            platform.close()
            await server
        try:
            async with grpc.aio.insecure_channel(ready.result()) as channel:
                yield channel, ready.result(), stop, platform
        finally:
            stop.set()
            await server
            platform.close()

    return run
