"""Kafka's errors as the port's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import errors

from tunesmith.adapters.kafka_connection import KafkaConnection
from tunesmith.domain.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidInput,
    InvalidSettings,
    NotFound,
    PermissionRefused,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
)

REFUSED = (
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
_CLOSED = (errors.IllegalStateError,)
_CANNOT_WORK = (errors.InvalidTopicError, errors.InvalidPartitionsError, errors.InvalidReplicationFactorError)
_CORRUPT = (errors.CorruptRecordError, errors.UnsupportedCodecError)


@contextmanager
def failures(connection: KafkaConnection, doing: str) -> Iterator[None]:
    """Turn kafka-python's errors into the port's; `doing` completes "while"."""
    try:
        yield
    except errors.KafkaError as error:
        raise translated(error, connection, doing) from error


def translated(error: errors.KafkaError, connection: KafkaConnection, doing: str) -> TunesmithError:
    """The error that a caller understands, with the fix."""
    where = f"Kafka at {connection.address}"
    metadata = {"servers": connection.address, "kafka_error": type(error).__name__}
    if isinstance(error, REFUSED):
        return InvalidSettings(
            f"{where} refused the user {connection.user!r} ({connection.sasl_mechanism}): {error}; set "
            "TUNESMITH_KAFKA_USER, TUNESMITH_KAFKA_PASSWORD and TUNESMITH_KAFKA_SASL_MECHANISM to what it knows",
            reason="KAFKA_CREDENTIALS",
            metadata=metadata,
        )
    if isinstance(error, errors.AuthorizationError):
        return PermissionRefused(
            f"{where} does not allow {connection.user or 'this client'} what is needed while {doing} ({error}); give "
            "it READ, WRITE and DESCRIBE on the topics and READ on the groups",
            reason="KAFKA_NOT_AUTHORIZED",
            metadata=metadata,
        )
    if isinstance(error, errors.UnknownTopicOrPartitionError):
        return NotFound(f"{where} does not have the topic, while {doing}; run `tunesmith setup`", metadata=metadata)
    if isinstance(error, _TOO_LARGE):
        return InvalidInput(
            f"{where} refused a message for its size while {doing}: {error}",
            reason="EVENT_TOO_LARGE",
            metadata=metadata,
        )
    if isinstance(error, errors.KafkaStorageError):
        return ResourceExhausted(
            f"{where} cannot write to its disk while {doing}; free some space on the broker",
            reason="BROKER_DISK",
            metadata=metadata,
        )
    if isinstance(error, _CLOSED):
        return FailedPrecondition(f"the bus or the subscription is closed ({error})")
    if isinstance(error, _CANNOT_WORK):
        return InvalidSettings(f"{where} refused what was asked while {doing}: {error}", metadata=metadata)
    if isinstance(error, _CORRUPT):
        return DataLoss(f"{where} gave bytes that cannot be read while {doing}: {error}", metadata=metadata)
    return Unavailable(
        f"{where} did not do it while {doing} ({type(error).__name__}: {error}); is it up, with room on its disk?",
        reason="KAFKA_UNAVAILABLE",
        metadata=metadata,
    )


def unreachable(connection: KafkaConnection, why: str) -> Unavailable:
    """No broker answered a new client."""
    return Unavailable(
        f"no Kafka broker answers ({why}); start it, or correct "
        f"TUNESMITH_BUS=kafka://{connection.address} and TUNESMITH_KAFKA_SECURITY_PROTOCOL="
        f"{connection.security_protocol}",
        reason="KAFKA_UNREACHABLE",
        metadata={"servers": connection.address},
    )
