"""Events on the wire: the bytes are frozen, the SDK reads them, and nothing hostile gets through."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from hypothesis import given
from hypothesis import strategies as st

from contract.bus_contract import HEADERS
from tunesmith.adapters.cloud_events import (
    MAX_EVENT_BYTES,
    EncodedEvent,
    _encoded_by_sdk,
    decode,
    encode,
    read_dead_letter,
    try_decode,
    with_origin,
)
from tunesmith.domain.errors import DataLoss, InvalidInput, Unsupported
from tunesmith.domain.events import DATASET_BUILT, RECORDS_COLLECTED, Event
from tunesmith.ports.bus import Message
from tunesmith.ports.clock import rfc3339

EVENT = Event(
    "6f1c", RECORDS_COLLECTED, "/tunesmith/scraper", "col-1/ü", "2026-11-21T10:00:00.120000Z", {"n": 1, "name": "Æ 🎵"}
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
TIMES = st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)


def test_the_bytes_are_frozen() -> None:
    assert encode(EVENT) == EncodedEvent(
        headers=[
            ("ce_specversion", b"1.0"),
            ("ce_id", b"6f1c"),
            ("ce_type", b"tunesmith.RecordsCollected.v1"),
            ("ce_source", b"/tunesmith/scraper"),
            ("ce_subject", "col-1/ü".encode()),
            ("ce_time", b"2026-11-21T10:00:00.120000Z"),
            ("content-type", b"application/json"),
        ],
        key="col-1/ü".encode(),
        value='{"n":1,"name":"Æ 🎵"}'.encode(),
    )


def test_the_sdk_reads_what_is_written() -> None:
    encoded = encode(EVENT)

    read = from_binary_event(KafkaMessage(dict(encoded.headers), encoded.key, encoded.value))

    assert (read.get_id(), read.get_type(), read.get_source()) == (EVENT.id, EVENT.type, EVENT.source)
    assert (read.get_subject(), read.get_data()) == (EVENT.subject, EVENT.data)


@given(id=TEXTS, source=TEXTS, subject=TEXTS, data=st.dictionaries(TEXTS, JSON, max_size=5), time=TIMES)
def test_every_event_survives_the_way(
    id: str, source: str, subject: str, data: dict[str, object], time: datetime
) -> None:
    event = Event(id, DATASET_BUILT, source, subject, rfc3339(time), data)
    before = copy.deepcopy(data)

    encoded = encode(event)

    assert decode(encoded.headers, encoded.key, encoded.value) == event
    assert data == before
    # What is written in a hurry is what the SDK writes (but for zeros in a time), and the SDK reads the same.
    slow = _encoded_by_sdk(event)
    assert (encoded.headers[:5], encoded.key, encoded.value) == (slow.headers[:5], slow.key, slow.value)
    assert decode(slow.headers, slow.key, slow.value) == event
    by_sdk = [*encoded.headers, ("ce_other", b"x")]  # an extension: nothing for the quick reader
    assert decode(by_sdk, encoded.key, encoded.value) == event


@pytest.mark.parametrize(
    ("time", "normal"),
    [
        ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00.000000Z"),
        ("2026-11-21T10:00:00.5+02:00", "2026-11-21T08:00:00.500000Z"),
    ],
)
def test_times_are_normalised_to_utc_with_six_digits(time: str, normal: str) -> None:
    encoded = encode(Event("1", DATASET_BUILT, "/s", "s", time, {}))

    assert decode(encoded.headers, encoded.key, encoded.value).time == normal


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Event("", DATASET_BUILT, "/s", "s", EVENT.time, {}), "id"),
        (Event("1", DATASET_BUILT, "", "s", EVENT.time, {}), "source"),
        (Event("1", DATASET_BUILT, "/s", "", EVENT.time, {}), "subject"),
        (Event("1", DATASET_BUILT, "/s", "s", "yesterday", {}), "yesterday"),
        (Event("1", DATASET_BUILT, "/s", "s", "2026-11-21T10:00:00", {}), "timezone"),
        (Event("1", "tunesmith.Unheard.v1", "/s", "s", EVENT.time, {}), "known types"),
        (Event("1", DATASET_BUILT, "/s", "s", EVENT.time, {"a": float("inf")}), "JSON"),
        (Event("1", DATASET_BUILT, "/s", "s", EVENT.time, {"a": object()}), "serializable"),
        (Event("1", DATASET_BUILT, "/s", "s", EVENT.time, {"a": "\ud800"}), "surrogates"),
        (Event("1", DATASET_BUILT, "/s", "\ud800", EVENT.time, {}), "surrogates"),
        (Event("1", DATASET_BUILT, "/s", "s", EVENT.time, {"a": "x" * MAX_EVENT_BYTES}), "the limit is"),
    ],
)
def test_an_event_that_nobody_could_read_is_not_written(event: Event, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        encode(event)


def _headers_with(name: str, value: bytes | None) -> list[tuple[str, bytes | None]]:
    return [(n, value if n == name else v) for n, v in HEADERS]


@pytest.mark.parametrize(
    ("headers", "key", "value", "error_class", "words"),
    [
        (HEADERS, b"s", None, DataLoss, "not a JSON object"),
        (HEADERS, b"another", b"{}", DataLoss, "is not the subject"),
        (HEADERS, b"\xff", b"{}", DataLoss, "is not the subject"),
        (HEADERS, b"s", b'{"a":1e999}', DataLoss, "JSON compliant"),
        (HEADERS, b"s", b'{"a":"\\ud800"}', DataLoss, "surrogates"),
        (HEADERS, b"s", b'{"a":' * 100_000, DataLoss, "recursion"),
        (HEADERS, b"s", b'{"a":' + b"9" * 5000 + b"}", DataLoss, "not a JSON object"),
        (HEADERS, b"s", b" " * MAX_EVENT_BYTES, DataLoss, "the limit is"),
        (_headers_with("ce_id", None), b"s", b"{}", DataLoss, "'ce_id' is null"),
        (_headers_with("ce_id", b""), b"s", b"{}", DataLoss, "ce_id are missing"),
        (_headers_with("ce_id", b"\xff"), b"s", b"{}", DataLoss, "not UTF-8"),
        (_headers_with("ce_time", b"soon"), b"s", b"{}", DataLoss, "not an event"),
        (_headers_with("ce_time", b"2026-01-01"), b"s", b"{}", DataLoss, "timezone"),
        (_headers_with("ce_time", b"0001-01-01T00:00:00+10:00"), b"s", b"{}", DataLoss, "out of range"),
        (_headers_with("content-type", b"text/plain"), b"s", b"{}", DataLoss, "not a JSON object"),
        ([*HEADERS, ("CE_ID", b"2")], b"s", b"{}", DataLoss, "twice"),
        ([*HEADERS, ("ce_", b"2")], b"s", b"{}", DataLoss, "Extension"),
        (_headers_with("ce_specversion", b"0.3"), b"s", b"{}", Unsupported, "'0.3'"),
        (_headers_with("ce_type", b"tunesmith.Unheard.v1"), b"s", b"{}", Unsupported, "Unheard"),
        ([("content-type", b"application/cloudevents+json")], None, b"{}", DataLoss, "missing"),
    ],
)
def test_what_is_not_an_event_is_refused_with_the_reason(
    headers: Sequence[tuple[str, bytes | None]],
    key: bytes | None,
    value: bytes | None,
    error_class: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error_class, match=words):
        decode(headers, key, value)


def test_what_does_not_matter_is_let_through() -> None:
    headers = [*HEADERS, ("traceparent", b"\xff"), ("other", None), ("ce_extension", b"x")]

    event = decode([(name.upper(), value) for name, value in headers], None, b"{}")

    assert (event.id, event.subject, event.data) == ("1", "s", {})


@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([name for name, _ in HEADERS]) | st.text(max_size=10),
            st.none() | st.binary(max_size=20) | st.sampled_from([value for _, value in HEADERS]),
        ),
        max_size=9,
    ),
    base=st.sampled_from([[], HEADERS]),
    key=st.none() | st.binary(max_size=10) | st.just(b"s"),
    value=st.none() | st.binary(max_size=40) | st.sampled_from([b"{}", b"[]", b'"x"', b"null", b'{"a":NaN}']),
)
def test_whatever_the_bytes_are_they_are_an_event_or_a_reason(
    headers: list[tuple[str, bytes | None]],
    base: list[tuple[str, bytes]],
    key: bytes | None,
    value: bytes | None,
) -> None:
    event, error = try_decode([*base, *headers], key, value)

    assert (event is None) == bool(error)
    if event is not None:
        encoded = encode(event)
        assert decode(encoded.headers, encoded.key, encoded.value) == event


def test_a_dead_letter_of_a_dead_letter_tells_of_the_last_time() -> None:
    encoded = encode(EVENT)
    once = Message("t", 1, 5, EVENT.subject, EVENT, 3)
    again = Message("t", 2, 9, EVENT.subject, EVENT, 1)

    headers = with_origin(with_origin(encoded.headers, once, group="a", error="x"), again, group="b", error="y" * 9999)
    letter = read_dead_letter("t", headers, encoded.key, encoded.value, position=7)

    assert (letter.partition, letter.offset, letter.group, letter.attempt) == (2, 9, "b", 1)
    assert letter.error == "y" * 2000
    assert letter.message == again


@pytest.mark.parametrize("origin", [[], [("origin_partition", b"x")], [("origin_partition", None)]])
def test_a_dead_letter_without_an_origin_is_shown_all_the_same(origin: list[tuple[str, bytes | None]]) -> None:
    encoded = encode(EVENT)

    letter = read_dead_letter("t", [*encoded.headers, *origin], encoded.key, encoded.value, position=7)

    assert (letter.topic, letter.partition, letter.offset) == ("t", -1, -1)
    assert "origin" in letter.error
    assert letter.message.event == EVENT


TRACE = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "vendor=1"}
UNKNOWN_HEADER = ("x-other", b"has the SDK read the message")


@pytest.mark.parametrize("trace", [TRACE, {"traceparent": TRACE["traceparent"]}])
@pytest.mark.parametrize("write", [encode, _encoded_by_sdk])
@pytest.mark.parametrize("others", [[], [UNKNOWN_HEADER]])
def test_the_trace_context_goes_along_as_the_extension_attribute(trace, write, others) -> None:
    event = dataclasses.replace(EVENT, trace=trace)

    encoded = write(event)

    assert {f"ce_{name}": value.encode() for name, value in trace.items()}.items() <= dict(encoded.headers).items()
    assert decode([*encoded.headers, *others], encoded.key, encoded.value) == event


@pytest.mark.parametrize(
    "hostile",
    [
        [("ce_traceparent", b"00-nonsense")],
        [("ce_traceparent", b"\xff\xfe")],
        [("ce_traceparent", None)],
        [("ce_traceparent", TRACE["traceparent"].encode())] * 2,
        [("ce_traceparent", TRACE["traceparent"].encode()), ("CE_TraceParent", b"")],
        [("ce_tracestate", b"a=1")],
        [("ce_traceparent", b"0" * 10_000)],
    ],
)
@pytest.mark.parametrize("others", [[], [UNKNOWN_HEADER]])
def test_a_malformed_trace_context_never_spoils_an_event(hostile, others) -> None:
    encoded = encode(EVENT)

    assert decode([*encoded.headers, *hostile, *others], encoded.key, encoded.value) == EVENT


def test_a_malformed_trace_context_is_not_published() -> None:
    assert encode(dataclasses.replace(EVENT, trace={"traceparent": "x\r\n"})) == encode(EVENT)
