"""The health check of a container: asks a service over gRPC whether it serves. Imports nothing that is slow."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tunesmith.addresses import SERVICE_PORTS, reached_at

TIMEOUT_S = 5.0


def main(name: str, *addresses: str) -> int:
    """0 when the service `name` serves, 1 with one line on standard error when it does not.

    Asks where TUNESMITH_LISTEN says, or at `addresses`, whose first one it must be: with TLS the certificate must be
    valid for the name in the address, such as `trainer:50403`.
    """
    listen = os.environ.get("TUNESMITH_LISTEN") or f"127.0.0.1:{SERVICE_PORTS[name]}"
    address = addresses[0] if addresses else reached_at(listen)
    problem = ask(address)
    if problem:
        print(f"tunesmith_{name} at {address}: {problem}", file=sys.stderr)  # noqa: T201
    return 1 if problem else 0


def ask(address: str, *, timeout_s: float = TIMEOUT_S) -> str:
    """Why the server at `address` does not serve; empty when it does."""
    # gRPC's C core logs connection attempts to standard error, which belongs to our own message.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    options = [("grpc.enable_http_proxy", 0)]
    authority = os.environ.get("TUNESMITH_TLS_CA") or os.environ.get("TUNESMITH_TLS_CERT")
    if authority:
        try:
            credentials = grpc.ssl_channel_credentials(Path(authority).read_bytes())
        except OSError as error:
            return f"{authority} cannot be read: {error}"
        channel = grpc.secure_channel(address, credentials, options=options)
    else:
        channel = grpc.insecure_channel(address, options=options)
    with channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        try:
            reply = check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            return f"no answer ({error.code().name})" if isinstance(error, grpc.Call) else str(error)
    if reply.status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    return f"is {health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)}"
