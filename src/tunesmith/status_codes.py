"""The one table from exceptions to status codes, by name, so that workers need no gRPC."""

from __future__ import annotations

from tunesmith.domain import errors

CODE_NAMES: tuple[tuple[type[errors.TunesmithError], str], ...] = (
    (errors.InvalidInput, "INVALID_ARGUMENT"),
    (errors.NotFound, "NOT_FOUND"),
    (errors.AlreadyExists, "ALREADY_EXISTS"),
    (errors.Conflict, "ABORTED"),
    (errors.FailedPrecondition, "FAILED_PRECONDITION"),
    (errors.PermissionRefused, "PERMISSION_DENIED"),
    (errors.ResourceExhausted, "RESOURCE_EXHAUSTED"),
    (errors.Unavailable, "UNAVAILABLE"),
    (errors.DeadlineExceeded, "DEADLINE_EXCEEDED"),
    (errors.DataLoss, "DATA_LOSS"),
    (errors.Unsupported, "UNIMPLEMENTED"),
    (errors.InvalidSettings, "FAILED_PRECONDITION"),
    (errors.Interrupted, "UNAVAILABLE"),
)


def code_name_of(error: errors.TunesmithError) -> str:
    """Name of the gRPC status code for `error`."""
    return next((name for kind, name in CODE_NAMES if isinstance(error, kind)), "INTERNAL")
