"""Making kafka-python's clients and taking them down without leaving threads or sockets behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kafka import KafkaProducer, errors
from kafka.net.compat import KafkaNetClient

from tunesmith.adapters.kafka_connection import KafkaConnection
from tunesmith.adapters.kafka_errors import translated, unreachable

C = TypeVar("C")

_ABORT_TIMEOUT_S = 2.0


def open_client(kind: Callable[..., C], connection: KafkaConnection, **options: Any) -> C:
    """A client that has reached a broker.

    Unavailable when none answers, InvalidSettings when the credentials are refused.
    """
    options |= connection.client_options()
    # kafka-python would try for the whole time-out, and leave a socket behind for every attempt.
    if why := connection.knock():
        raise unreachable(connection, why)
    opened: list[Any] = []

    def network(**configs: Any) -> Any:
        opened.append(KafkaNetClient(**configs))
        return opened[0]

    try:
        # Its constructor starts a thread, which would live on when the constructor fails.
        return kind(**options, kafka_client=network)
    except errors.KafkaError as error:
        for client in opened:
            client.close()
        if isinstance(error, errors.KafkaTimeoutError):
            raise unreachable(connection, connection.diagnosis()) from error
        raise translated(error, connection, "connecting") from error


def close_producer(producer: KafkaProducer, *, timeout_s: float) -> None:
    """Close it; what is not sent within `timeout_s` fails."""
    try:
        producer.close(timeout=timeout_s)
    except errors.KafkaError:
        # It gave up waiting for its records before it told its thread to end.
        producer._sender.force_close()
        producer._sender.join(_ABORT_TIMEOUT_S)
        producer.close(timeout=0)
