"""Making kafka-python's clients and taking them down without leaving threads or sockets behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from kafka import KafkaProducer, errors
from kafka.net.compat import KafkaNetClient

from tunesmith.adapters.kafka_connection import KafkaConnection
from tunesmith.adapters.kafka_errors import REFUSED, translated, unreachable

C = TypeVar("C")

_ABORT_TIMEOUT_S = 2.0
_HANG_UPS_OF_A_REFUSAL = 2
"""A broker that dies in the middle of a login does so once."""


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
        _end_at_refusal(opened[0]._manager)
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


def _end_at_refusal(manager: Any) -> None:
    """Let a new client's bootstrap fail when its credentials are refused.

    kafka-python tries them again until its time-out. Nor does it read a refusal that comes together with the end of the
    connection, as real brokers send it.
    """
    get_connection = manager.get_connection
    hang_ups: Counter[Any] = Counter()
    refusals: list[BaseException] = []

    def watched(node_id: Any, *args: Any, **options: Any) -> Any:
        if refusals:
            raise refusals[0]
        connection = get_connection(node_id, *args, **options)

        def note(error: BaseException) -> None:
            if isinstance(error, errors.KafkaConnectionError) and connection.broker_version_data is not None:
                hang_ups[node_id] += 1  # it had answered, so it was the login that it did not like
            if isinstance(error, REFUSED):
                refusals.append(error)
            elif hang_ups[node_id] == _HANG_UPS_OF_A_REFUSAL:
                refusals.append(errors.SaslAuthenticationFailedError("it hangs up during the login"))

        if connection.sasl_enabled and manager.cluster.is_bootstrap(node_id):
            connection.init_future.add_errback(note)
        return connection

    manager.get_connection = watched


def close_producer(producer: KafkaProducer, *, timeout_s: float) -> None:
    """Close it; what is not sent within `timeout_s` fails."""
    try:
        producer.close(timeout=timeout_s)
    except errors.KafkaError:
        # It gave up waiting for its records before it told its thread to end.
        producer._sender.force_close()
        producer._sender.join(_ABORT_TIMEOUT_S)
        producer.close(timeout=0)
