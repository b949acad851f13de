"""Exceptions to gRPC statuses with rich details (google.rpc.ErrorInfo, BadRequest, RetryInfo)."""

from __future__ import annotations

from typing import Any, NoReturn

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tunesmith.domain.errors import InvalidInput, TunesmithError, Unavailable
from tunesmith.domain.jobs import JobError
from tunesmith.status_codes import code_name_of

ERROR_DOMAIN = "tunesmith"
"""`domain` of every ErrorInfo."""

RETRY_AFTER_S = 1
"""What an UNAVAILABLE asks a client to wait."""


def status_of(error: TunesmithError) -> status_pb2.Status:
    """The rich status of an error."""
    return _status(
        code_name_of(error),
        error.reason,
        error.message,
        error.metadata,
        field=error.metadata.get("field", "") if isinstance(error, InvalidInput) else "",
        retry=isinstance(error, Unavailable),
    )


def status_of_job_error(error: JobError) -> status_pb2.Status:
    """The rich status of a job that ended without a result."""
    return _status(error.code, error.reason, error.message, dict(error.metadata))


def _status(
    code: str, reason: str, message: str, metadata: dict[str, str], *, field: str = "", retry: bool = False
) -> status_pb2.Status:
    details = [error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=metadata)]
    packed = [_pack(detail) for detail in details]
    if field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
        packed.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
    if retry:
        packed.append(_pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=RETRY_AFTER_S))))
    return status_pb2.Status(code=code_pb2.Code.Value(code), message=message, details=packed)


def _pack(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


async def abort(context: Any, status: status_pb2.Status) -> NoReturn:
    """End the call with a rich status. `context` is a grpc.aio.ServicerContext, whose stubs lack abort_with_status."""
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status raises")
