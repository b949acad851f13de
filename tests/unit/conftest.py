"""Spans kept in memory, for the tests that look at them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tunesmith import telemetry
from tunesmith.adapters.otel_tracing import OtelTracing


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Tracing is on while the test runs; what ended is in `get_finished_spans()`."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.use_tracing(OtelTracing(provider))
    yield exporter
    telemetry.use_tracing(None)
    provider.shutdown()
