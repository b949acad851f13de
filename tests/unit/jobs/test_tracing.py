"""One trace from the request to the consumer, over processes that know of each other by state and events only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunesmith.domain.events import RUN_SUCCEEDED, Event, checked_trace
from tunesmith.domain.jobs import Job
from tunesmith.jobs.consuming import ConsumerLoop
from tunesmith.jobs.worker import Outcome, run_worker
from tunesmith.telemetry import current_trace, span, use_tracing

TOPIC = "tunesmith.trainer"
PARENT = "00-" + "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE = {"traceparent": PARENT, "tracestate": "vendor=1"}
EVENT = Event("e1", RUN_SUCCEEDED, "/tunesmith/trainer", "j1", "2026-01-01T00:00:00.000000Z", {"n": 1}, TRACE)


def consume(workshop, handler) -> None:
    loop = ConsumerLoop(
        bus=workshop.bus, clock=workshop.clock, group="g", topics=(TOPIC,), handlers={RUN_SUCCEEDED: handler}
    )
    subscription = workshop.bus.subscribe("g", [TOPIC])
    try:
        assert loop.handle_batch(subscription, timeout_s=workshop.place.join_s) == 1
    finally:
        subscription.close()


def test_work_goes_on_with_the_trace_of_its_request_and_the_consumer_links_to_it(workshop, spans):
    with span("request"):
        workshop.jobs.submit(job_id="j1", kind="tune", service="trainer", request={})
    workshop.jobs.change("j1", lambda current: workshop.jobs.step(current, phase="running", epoch=1))
    outcome = Outcome({}, [(RUN_SUCCEEDED, "j1", {"n": 1})])
    assert run_worker("j1", 1, lambda _: outcome, jobs=workshop.jobs, clock=workshop.clock) == 0
    workshop.reconciler.tick()  # publishes outside of all spans
    consume(workshop, lambda _: None)

    request, work, processed = spans.get_finished_spans()
    assert (request.name, work.name, processed.name) == ("request", "work tune", f"process {RUN_SUCCEEDED}")
    assert work.parent.span_id == request.context.span_id
    assert processed.parent is None
    (link,) = processed.links
    assert (link.context.trace_id, link.context.span_id) == (work.context.trace_id, work.context.span_id)
    assert processed.context.trace_id != work.context.trace_id


def test_what_a_handler_asks_for_goes_on_with_the_handlers_trace(workshop, spans):
    workshop.bus.publish(TOPIC, [EVENT])
    seen = []
    consume(workshop, lambda _: seen.append(current_trace()))

    (processed,) = spans.get_finished_spans()
    assert f"{processed.context.trace_id:032x}-{processed.context.span_id:016x}" in seen[0]["traceparent"]


def test_a_failing_handler_shows_in_its_span(workshop, spans):
    workshop.bus.publish(TOPIC, [replace(EVENT, trace={})])

    def failing(_: Event) -> None:
        raise RuntimeError("no room")

    with pytest.raises(AssertionError):
        consume(workshop, failing)

    (processed,) = spans.get_finished_spans()
    assert not processed.status.is_ok
    assert processed.links == ()


def test_a_job_whose_request_was_traced_says_so_in_events_made_outside_of_all_spans(workshop, spans):
    with span("request"):
        asked_in = current_trace()
        job, _ = workshop.jobs.submit(job_id="j1", kind="tune", service="trainer", request={})
    use_tracing(None)

    changed = workshop.jobs.step(job, events=[(RUN_SUCCEEDED, "j1", {})])

    assert changed.outbox[0].trace == job.trace == asked_in != {}


def test_a_trace_survives_the_state_object_and_old_objects_have_none(workshop):
    job, _ = workshop.jobs.submit(job_id="j1", kind="tune", service="trainer", request={})
    traced = replace(job, trace=TRACE, outbox=(EVENT,))

    row = traced.to_json()
    assert Job.from_json(row, key="k") == traced

    del row["trace"], row["outbox"][0]["trace"]
    assert Job.from_json(row, key="k") == replace(traced, trace={}, outbox=(replace(EVENT, trace={}),))
    assert "trace" not in job.to_json()


@pytest.mark.parametrize(
    "broken",
    [
        None,
        7,
        [],
        {},
        {"traceparent": 7},
        {"traceparent": f"{PARENT} "},
        {"traceparent": PARENT.upper()},
        {"traceparent": PARENT.replace("00-4", "ff-4")},
        {"traceparent": PARENT.replace("00f067aa0ba902b7", "0" * 16)},
        {"traceparent": PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32)},
        {"tracestate": "vendor=1"},
    ],
)
def test_a_malformed_trace_is_none(broken):
    assert checked_trace(broken) == {}


@pytest.mark.parametrize("state", ["", "ü=1", "a=" + "1" * 511, "a=1\n", 7])
def test_a_malformed_tracestate_costs_itself_only(state):
    assert checked_trace({"traceparent": PARENT, "tracestate": state}) == {"traceparent": PARENT}
