"""protobuf <-> probes."""

from __future__ import annotations

from typing import Any

from tunesmith_generator import parity
from tunesmith_generator.handlers import Serving
from tunesmith_proto.generator.v1 import parity_pb2, parity_pb2_grpc


class ParityServicer(parity_pb2_grpc.ParityServiceServicer):
    """Answers probes with versions that may not be champion yet."""

    def __init__(self, serving: Serving, *, backend: str, number_format: str) -> None:
        """`number_format` is empty where the runner's backend does not say in what it computes."""
        self._serving = serving
        self._backend = backend
        self._number_format = number_format

    async def AnswerProbes(
        self, request: parity_pb2.AnswerProbesRequest, context: Any
    ) -> parity_pb2.AnswerProbesResponse:
        answered = await parity.answer_probes(
            request.recipe,
            request.version,
            list(request.prompts),
            max_new_tokens=request.max_new_tokens,
            stop=list(request.stop),
            serving=self._serving,
        )
        return parity_pb2.AnswerProbesResponse(
            answers=[
                parity_pb2.ProbeAnswer(
                    tokens=[
                        parity_pb2.ProbeAnswer.Token(
                            id=token.id if token.id >= 0 else None,
                            text="" if token.special else token.text,
                            logprob=token.logprob,
                        )
                        for token in tokens
                    ]
                )
                for tokens in answered.tokens
            ],
            adapter_hash=answered.adapter_hash,
            backend=self._backend,
            number_format=self._number_format,
        )
