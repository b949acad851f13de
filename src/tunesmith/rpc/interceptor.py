"""What happens around every call: identity, deadline, log context, and exceptions turned into statuses."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tunesmith.domain.deadlines import set_deadline
from tunesmith.domain.errors import TunesmithError, Unavailable
from tunesmith.domain.events import checked_trace
from tunesmith.rpc.errors import ERROR_DOMAIN, abort, status_of
from tunesmith.telemetry import add_log_context, is_tracing, span

log = logging.getLogger(__name__)

DEFAULT_UNARY_DEADLINE_S = 60.0
"""For callers who set none: without one a stuck call would hold its slot for ever."""
DEFAULT_STREAM_DEADLINE_S = 6 * 3600.0
MAX_DEADLINE_S = 24 * 3600.0
"""However late a caller's own deadline is."""

if TYPE_CHECKING:
    _ServerInterceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    _ServerInterceptor = grpc.aio.ServerInterceptor

_OPEN_METHODS = ("/grpc.health.", "/grpc.reflection.")


class CallInterceptor(_ServerInterceptor):
    """Wraps every method except health and reflection. `auth_token` empty: callers need none.

    Before `open` every call is answered UNAVAILABLE.
    """

    def __init__(self, *, auth_token: str = "") -> None:
        self._auth_token = auth_token
        self._is_open = False
        self._wrapped: dict[str, Any] = {}
        """By method, so that a call does not wait for its handler to be found and wrapped anew."""

    def open(self) -> None:
        """Let calls through from now on."""
        self._is_open = True

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Called by gRPC for each incoming call."""
        method: str = handler_call_details.method
        if (wrapped := self._wrapped.get(method)) is not None:
            return wrapped
        handler: Any = await continuation(handler_call_details)
        if handler is None or method.startswith(_OPEN_METHODS):
            return handler
        return self._wrapped.setdefault(method, self._wrap(handler, method))

    def _wrap(self, handler: Any, method: str) -> Any:
        if handler.response_streaming:
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
            call: Any = self._stream(behaviour, method)
        else:
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            behaviour = handler.stream_unary if handler.request_streaming else handler.unary_unary
            call = self._unary(behaviour, method)
        return make(
            call,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, behaviour: Any, method: str) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            add_log_context(rpc=method)
            try:
                trace = self._admit(context)
                with span(method, kind="server", continues=trace):
                    async with asyncio.timeout(_deadline_s(context, DEFAULT_UNARY_DEADLINE_S)):
                        return await behaviour(request, context)
            except Exception as error:  # noqa: BLE001  # the RPC boundary: nothing but a status leaves the process
                await _fail(context, error, method)

        return call

    def _stream(self, behaviour: Any, method: str) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            add_log_context(rpc=method)
            try:
                trace = self._admit(context)
                with span(method, kind="server", continues=trace):
                    async with asyncio.timeout(_deadline_s(context, DEFAULT_STREAM_DEADLINE_S)):
                        async for message in behaviour(request, context):
                            yield message
            except Exception as error:  # noqa: BLE001  # the RPC boundary
                await _fail(context, error, method)

        return call

    def _admit(self, context: Any) -> Mapping[str, str]:
        """The call's trace context; raises unless the caller may call, and calls are let through."""
        metadata: Mapping[str, Any] = {}
        if self._auth_token or is_tracing():
            metadata = dict(context.invocation_metadata() or ())
        if self._auth_token and not self._is_token(str(metadata.get("authorization", ""))):
            raise _Unauthenticated
        if not self._is_open:
            raise Unavailable("this server is still starting: its store or bus does not answer yet", reason="STARTING")
        return checked_trace(metadata) if is_tracing() else {}

    def _is_token(self, authorization: str) -> bool:
        return hmac.compare_digest(authorization.encode(), f"Bearer {self._auth_token}".encode())


class _Unauthenticated(Exception):
    """The call's token is missing or wrong."""


def _deadline_s(context: Any, default_s: float) -> float:
    remaining: float | None = context.time_remaining()
    deadline_s = default_s if remaining is None else min(remaining, MAX_DEADLINE_S)
    set_deadline(deadline_s)
    return deadline_s


async def _fail(context: Any, error: Exception, method: str) -> None:
    if isinstance(error, TunesmithError):
        log.info("%s answered %s: %s", method, error.reason, error.message)
        await abort(context, status_of(error))
    if isinstance(error, _Unauthenticated):
        await abort(
            context,
            status_pb2.Status(
                code=code_pb2.UNAUTHENTICATED,
                message="send `authorization: Bearer TOKEN` with the server's TUNESMITH_AUTH_TOKEN",
            ),
        )
    if isinstance(error, TimeoutError):
        await abort(
            context, status_pb2.Status(code=code_pb2.DEADLINE_EXCEEDED, message=f"{method} ran out of its time")
        )
    if isinstance(error, grpc.aio.AbortError | grpc.RpcError):
        raise error
    # The caller gets an id to quote; the text of an unexpected exception may hold secrets.
    error_id = secrets.token_hex(6)
    log.exception("unexpected error %s in %s", error_id, method)
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=ERROR_DOMAIN, metadata={"error_id": error_id})
    status = status_pb2.Status(
        code=code_pb2.INTERNAL, message=f"unexpected error {error_id}; the server's log has its traceback"
    )
    status.details.add().Pack(info)
    await abort(context, status)
