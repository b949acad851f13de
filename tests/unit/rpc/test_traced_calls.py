"""Each call is a span, in the caller's trace where the caller has one."""

from __future__ import annotations

import pytest

from tunesmith.telemetry import current_trace
from tunesmith_proto.captioner.v1 import captioner_pb2, captioner_pb2_grpc

CALLER = "00-" + "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("sent", [CALLER, "00-nonsense", ""])
async def test_a_call_goes_on_with_its_callers_trace(hosted, spans, sent):
    inside = []

    async def behaviour(request, context):
        inside.append(current_trace())
        return captioner_pb2.ListCaptionersResponse()

    async with hosted(behaviour) as (channel, *_):
        stub = captioner_pb2_grpc.CaptionerServiceStub(channel)
        await stub.ListCaptioners(captioner_pb2.ListCaptionersRequest(), metadata=[("traceparent", sent)])

    (span,) = spans.get_finished_spans()
    assert span.name == "/tunesmith_proto.captioner.v1.CaptionerService/ListCaptioners"
    assert f"{span.context.span_id:016x}" in inside[0]["traceparent"]
    assert (span.parent is not None) == (sent == CALLER)
    if sent == CALLER:
        assert f"00-{span.parent.trace_id:032x}-{span.parent.span_id:016x}-01" == CALLER
        assert span.context.trace_id == span.parent.trace_id
