"""The generator service, asked whether it serves a model version as it was judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import grpc

from tunesmith.adapters.generator_language_model import ERRORS
from tunesmith.domain.errors import DataLoss, Unavailable, Unsupported
from tunesmith.domain.parity import Probes, ServedAnswers, ServedToken
from tunesmith_proto.generator.v1 import parity_pb2, parity_pb2_grpc

_ERRORS = {**ERRORS, grpc.StatusCode.DATA_LOSS: DataLoss, grpc.StatusCode.UNIMPLEMENTED: Unsupported}


class GeneratorServing:
    """Implements `ServingBackend`. Each question opens a channel of its own, to where the generator is then."""

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

    def _channel(self, address: str) -> grpc.Channel:
        options = [("grpc.enable_http_proxy", 0)] if address.startswith(("127.", "localhost:", "[::1]:")) else []
        if self._root_certificates is None:
            return grpc.insecure_channel(address, options=options)
        credentials = grpc.ssl_channel_credentials(self._root_certificates)
        return grpc.secure_channel(address, credentials, options=options)


def _failed(address: str, error: grpc.RpcError) -> NoReturn:
    assert isinstance(error, grpc.Call)
    kind = _ERRORS.get(error.code(), Unavailable)
    raise kind(f"the generator at {address}: {error.details()}", reason="SERVING_REFUSED") from error
