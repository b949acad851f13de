"""The generator service, asked whether it serves a model version as it was judged."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import grpc

from tunesmith.adapters.generator_language_model import ERRORS
from tunesmith.domain.errors import DataLoss, Unavailable, Unsupported
from tunesmith.domain.parity import Probes, ServedAnswers, ServedToken
from tunesmith_proto.generator.v1 import generator_pb2, generator_pb2_grpc, parity_pb2, parity_pb2_grpc

LOOK_TIMEOUT_S = 5.0
"""To be told what one process serves, which it knows."""

_ERRORS = {**ERRORS, grpc.StatusCode.DATA_LOSS: DataLoss, grpc.StatusCode.UNIMPLEMENTED: Unsupported}


class GeneratorServing:
    """Implements `ServingBackend` and `ServingUsers`.

    Each question opens a channel of its own, to where the generator is then.
    """

    def __init__(
        self, address: Callable[[], str], *, auth_token: str = "", root_certificates: bytes | None = None
    ) -> None:
        self._address = address
        self._metadata: Sequence[tuple[str, str]] = (("authorization", f"Bearer {auth_token}"),) if auth_token else ()
        self._root_certificates = root_certificates

    def answer_probes(self, recipe: str, version: str, probes: Probes, *, timeout_s: float) -> ServedAnswers:
        """See the port."""
        address = self._address()
        request = parity_pb2.AnswerProbesRequest(
            recipe=recipe,
            version=version,
            prompts=[probe.prompt for probe in probes.probes],
            max_new_tokens=probes.max_new_tokens,
            stop=probes.stop,
        )
        with self._channel(address) as channel:
            stub: Any = parity_pb2_grpc.ParityServiceStub(channel)  # type: ignore[no-untyped-call]
            try:
                reply = stub.AnswerProbes(request, timeout=timeout_s, metadata=self._metadata)
            except grpc.RpcError as error:
                _failed(address, error)
        return ServedAnswers(
            answers=tuple(
                tuple(
                    ServedToken(token.id if token.HasField("id") else None, token.text, token.logprob)
                    for token in answer.tokens
                )
                for answer in reply.answers
            ),
            adapter_hash=reply.adapter_hash,
            backend=f"{reply.backend} at {address}",
            number_format=reply.number_format,
        )

    def is_used(self, recipe: str, version: str) -> bool:
        """See the port: every address that the generator's name stands for is asked."""
        address = self._address()
        return any(self._serves(one, recipe, version, name=address) for one in _each(address))

    def _serves(self, address: str, recipe: str, version: str, *, name: str) -> bool:
        with self._channel(address, name=name) as channel:
            stub: Any = generator_pb2_grpc.GeneratorServiceStub(channel)  # type: ignore[no-untyped-call]
            try:
                reply = stub.ListServed(
                    generator_pb2.ListServedRequest(), timeout=LOOK_TIMEOUT_S, metadata=self._metadata
                )
            except grpc.RpcError as error:
                _failed(address, error)
        champion = any(m.recipe == recipe and m.model_version == version for m in reply.models)
        return champion or reply.num_running.get(version, 0) > 0

    def _channel(self, address: str, *, name: str = "") -> grpc.Channel:
        """To `address`, whose certificate is for the host of `name` where that is another."""
        options: list[tuple[str, Any]] = (
            [("grpc.enable_http_proxy", 0)] if address.startswith(("127.", "localhost:", "[::1]:")) else []
        )
        if name and name != address:
            options = [("grpc.enable_http_proxy", 0), ("grpc.ssl_target_name_override", name.rpartition(":")[0])]
        if self._root_certificates is None:
            return grpc.insecure_channel(address, options=options)
        credentials = grpc.ssl_channel_credentials(self._root_certificates)
        return grpc.secure_channel(address, credentials, options=options)


def _each(address: str) -> Sequence[str]:
    """The addresses that `host:port` stands for; Unavailable when it stands for none."""
    host, _, port = address.rpartition(":")
    if host == "localhost":
        return [address]  # stands for two, of which a server may listen on one
    try:
        rows = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"the generator's name {host} cannot be resolved ({error})") from error
    found = dict.fromkeys(str(row[4][0]) for row in rows)
    return [f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in sorted(found)]


def _failed(address: str, error: grpc.RpcError) -> NoReturn:
    assert isinstance(error, grpc.Call)
    kind = _ERRORS.get(error.code(), Unavailable)
    raise kind(f"the generator at {address}: {error.details()}", reason="SERVING_REFUSED") from error
