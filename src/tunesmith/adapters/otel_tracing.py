"""Spans by OpenTelemetry, sent to a collector over OTLP (gRPC)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tunesmith import telemetry

SEND_TIMEOUT_S = 2.0
"""For a batch of spans, where OTEL_EXPORTER_OTLP_TIMEOUT says nothing: without a collector a worker ends that late."""

_W3C = TraceContextTextMapPropagator()
_KINDS: dict[telemetry.SpanKind, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "consumer": SpanKind.CONSUMER,
}


class OtelTracing:
    """Spans of one provider (telemetry.Tracing)."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("tunesmith")

    @classmethod
    def to_collector(cls, process: str) -> OtelTracing:
        """As the OTEL_ variables say; `process` is the service's name where OTEL_SERVICE_NAME gives none.

        Spans are sent by a thread, and the last ones when the interpreter ends; without a collector they are dropped.
        """
        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": process}))
        provider = TracerProvider(resource=resource)
        timeout_s = None if os.environ.get("OTEL_EXPORTER_OTLP_TIMEOUT") else SEND_TIMEOUT_S
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=timeout_s)))
        return cls(provider)

    def current(self) -> Mapping[str, str]:
        """The current span's trace context; empty outside of all spans."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return carrier

    def span(
        self, name: str, *, kind: telemetry.SpanKind, continues: Mapping[str, str], follows: Mapping[str, str]
    ) -> AbstractContextManager[Any]:
        """A span that is the current one during the block."""
        parent = _W3C.extract(continues, Context()) if continues else None
        followed = get_current_span(_W3C.extract(follows, Context())).get_span_context()
        links = [Link(followed)] if followed.is_valid else []
        return self._tracer.start_as_current_span(name, parent, _KINDS[kind], links=links)
