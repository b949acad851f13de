"""Events as CloudEvents 1.0 in Kafka's binary mode: attributes in headers, JSON data in the value, subject as key."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from tunesmith.domain.errors import DataLoss, InvalidInput, NotFound, TunesmithError, Unsupported
from tunesmith.domain.events import Event, EventType, checked_trace
from tunesmith.domain.ids import canonical_json
from tunesmith.ports.bus import DeadLetter, Message
from tunesmith.ports.clock import rfc3339

MAX_EVENT_BYTES = 1_000_000
"""Headers, key and value together; a Kafka producer's `max_request_size` is 1 MiB by default."""

_TYPES = frozenset(get_args(EventType))
_REQUIRED = ("id", "type", "source", "specversion", "subject", "time")
_MAX_ERROR_CHARS = 2000
_ORIGIN = "origin_"

_PLAIN_ORDER = ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_subject", "ce_time", "content-type")
_PLAIN_HEADERS = frozenset(_PLAIN_ORDER)
_TRACE_HEADERS = ("ce_traceparent", "ce_tracestate")
"""CloudEvents' extension for distributed tracing."""
_NORMAL_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_SURROGATE = re.compile(rb"\\u[dD]")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number


def _refused(text: str) -> float:
    raise ValueError(text)


_STRICT_JSON = json.JSONDecoder(parse_float=_finite, parse_constant=_refused)
"""Without the infinite numbers that Python reads and JSON cannot hold."""

Headers = Sequence[tuple[str, bytes | None]]
"""Header names and values as Kafka clients give them; a value may be null."""


@dataclass(frozen=True, slots=True)
class EncodedEvent:
    """What goes over the wire. Of an event neither key nor value is None."""

    headers: list[tuple[str, bytes]]
    key: bytes | None
    value: bytes | None


def encode(event: Event) -> EncodedEvent:
    """The event's bytes; InvalidInput for one that `decode` would refuse. Its time is normalised to UTC."""
    if event.type not in _TYPES:
        raise InvalidInput(f"event type {event.type!r} is unknown; known types: {', '.join(sorted(_TYPES))}")
    encoded = _plainly_encoded(event) or _encoded_by_sdk(event)
    size_bytes = _size_bytes(encoded.headers, encoded.key or b"", encoded.value or b"")
    if size_bytes > MAX_EVENT_BYTES:
        raise InvalidInput(
            f"event {event.id} has {size_bytes} bytes, the limit is {MAX_EVENT_BYTES}; "
            "put the data into the store and its key into the event",
            reason="EVENT_TOO_LARGE",
            metadata={"size_bytes": str(size_bytes), "limit": str(MAX_EVENT_BYTES)},
        )
    return encoded


def _plainly_encoded(event: Event) -> EncodedEvent | None:
    """What the SDK makes of an event in which nothing is wrong, in a third of its time; else None."""
    try:
        if not (event.id and event.source and event.subject and _is_normal_time(event.time)):
            return None
        key = event.subject.encode()
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", event.id.encode()),
            ("ce_type", event.type.encode()),
            ("ce_source", event.source.encode()),
            ("ce_subject", key),
            ("ce_time", event.time.encode()),
            ("content-type", b"application/json"),
        ]
        if event.trace:
            headers += [(f"ce_{name}", value.encode()) for name, value in checked_trace(event.trace).items()]
        return EncodedEvent(headers, key, canonical_json(dict(event.data)))
    except (AttributeError, ValueError, TypeError, OverflowError, RecursionError):
        return None


def _encoded_by_sdk(event: Event) -> EncodedEvent:
    # Here and in `decode`: the SDK takes a moment to import, and a server that has just started has no events yet.
    from cloudevents.core.bindings.kafka import to_binary
    from cloudevents.core.exceptions import BaseCloudEventException
    from cloudevents.core.formats.json import JSONFormat
    from cloudevents.core.v1.event import CloudEvent

    try:
        attributes = {
            "specversion": "1.0",
            "id": event.id,
            "type": event.type,
            "source": event.source,
            "subject": event.subject,
            "time": datetime.fromisoformat(event.time),
            "datacontenttype": "application/json",
            **checked_trace(event.trace),
        }
        # As bytes, because the SDK would write NaN and escape every letter that is not ASCII.
        message = to_binary(CloudEvent(attributes, canonical_json(dict(event.data))), JSONFormat())
        return EncodedEvent([*message.headers.items()], event.subject.encode(), message.value)
    except (BaseCloudEventException, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"event {event.id!r} cannot be published: {error}", reason="INVALID_EVENT") from error


def decode(headers: Headers, key: bytes | None, value: bytes | None) -> Event:
    """The event that a message carries.

    DataLoss when the bytes are not an event, whatever they are; Unsupported when they are one of a CloudEvents
    version or of a type that this build cannot read.
    """
    size_bytes = _size_bytes(headers, key or b"", value or b"")
    if size_bytes > MAX_EVENT_BYTES:
        raise _undecodable(f"it has {size_bytes} bytes, the limit is {MAX_EVENT_BYTES}")
    if (event := _plainly_decoded(headers, key, value)) is not None:
        return event
    attributes = _attribute_headers(headers)
    missing = [name for name in _REQUIRED if not attributes.get(f"ce_{name}")]
    # The SDK would make up an id and a time, and read an unknown version as 1.0.
    if missing:
        raise _undecodable(f"the headers {', '.join(f'ce_{name}' for name in missing)} are missing or empty")
    _check_readable(attributes)
    from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
    from cloudevents.core.exceptions import BaseCloudEventException
    from cloudevents.core.formats.json import JSONFormat

    try:
        read = from_binary(KafkaMessage(attributes, None, value or b""), JSONFormat())
        data = read.get_data()
        if not isinstance(data, dict):
            raise ValueError("the value is not a JSON object")
        canonical_json(data)  # what JSON cannot hold (NaN, lone surrogates) must not get any further
        subject, time = read.get_subject(), read.get_time()
        assert subject is not None
        assert time is not None
        if key is not None and key != subject.encode():
            raise ValueError(f"the key {key[:100]!r} is not the subject {subject[:100]!r}")
        trace = _trace_in(headers)
        return Event(read.get_id(), read.get_type(), read.get_source(), subject, rfc3339(time), data, trace)
    except (BaseCloudEventException, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _undecodable(str(error)) from error


def _plainly_decoded(headers: Headers, key: bytes | None, value: bytes | None) -> Event | None:
    """The event that `_plainly_encoded` wrote, in a fifth of the SDK's time; None for all that must be looked at."""
    found = dict(headers)
    if len(found) != len(headers) or value is None or _SURROGATE.search(value):
        return None
    trace: dict[str, str] = {}
    if found.keys() != _PLAIN_HEADERS:
        if found.keys() - _TRACE_HEADERS != _PLAIN_HEADERS:
            return None
        trace = _trace_in(headers)
    try:
        texts = [(found[name] or b"").decode() for name in _PLAIN_ORDER]
        version, id_, type_, source, subject, time, content_type = texts
        is_plain = version == "1.0" and content_type == "application/json" and type_ in _TYPES and _is_normal_time(time)
        data = _STRICT_JSON.decode(value.decode())
    except (ValueError, RecursionError):
        return None
    if not (is_plain and id_ and source and subject and isinstance(data, dict)):
        return None
    if key is not None and key != found["ce_subject"]:
        return None
    return Event(id_, type_, source, subject, time, data, trace)


def _trace_in(headers: Headers) -> dict[str, str]:
    """The trace context that came with a message; empty where there is none, or none that can be trusted."""
    values: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in _TRACE_HEADERS:
            if lower in values:
                return {}
            values[lower] = (value or b"").decode(errors="replace")
    return checked_trace({name.removeprefix("ce_"): value for name, value in values.items()})


def _is_normal_time(text: str) -> bool:
    """Whether `rfc3339` would give the same text."""
    if not _NORMAL_TIME.fullmatch(text):
        return False
    datetime.fromisoformat(text)  # ValueError for the 31st of February
    return True


def try_decode(headers: Headers, key: bytes | None, value: bytes | None) -> tuple[Event | None, str]:
    """The event and an empty string, or None and why the message cannot be decoded."""
    try:
        return decode(headers, key, value), ""
    except TunesmithError as error:
        return None, error.message


def key_text(key: bytes | None) -> str:
    """A message key to look at, whatever its bytes are."""
    return (key or b"").decode(errors="backslashreplace")


def dead_letter_topic(topic: str) -> str:
    """Where a topic's given-up messages go."""
    return f"{topic}.dead-letter"


def with_origin(headers: Headers, message: Message, *, group: str, error: str) -> list[tuple[str, bytes | None]]:
    """The headers of a dead letter: those the message came with, and where it stood and why it was given up."""
    origin = {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "group": group,
        "attempt": message.attempt,
        "error": error[:_MAX_ERROR_CHARS],
    }
    return [*headers, *((f"{_ORIGIN}{name}", str(value).encode(errors="replace")) for name, value in origin.items())]


def without_origin(headers: Headers) -> list[tuple[str, bytes | None]]:
    """The headers that a dead letter's message came with."""
    return [(name, value) for name, value in headers if not name.startswith(_ORIGIN)]


def read_dead_letter(
    topic: str, headers: Headers, key: bytes | None, value: bytes | None, *, position: int
) -> DeadLetter:
    """The inverse of `with_origin`. One that somebody wrote without an origin says so, with partition and offset -1."""
    # The last ones count: a message may have been a dead letter before.
    origin = {name: value for name, value in headers if name.startswith(_ORIGIN)}
    event, decode_error = try_decode(without_origin(headers), key, value)
    try:
        texts = {name.removeprefix(_ORIGIN): (value or b"").decode() for name, value in origin.items()}
        partition, offset, attempt = int(texts["partition"]), int(texts["offset"]), int(texts["attempt"])
        topic, group, error = texts["topic"], texts["group"], texts["error"]
    except (KeyError, ValueError):
        partition, offset, attempt, group, error = -1, -1, 0, "", "its origin headers are missing or unreadable"
    message = Message(topic, partition, offset, key_text(key), event, attempt, decode_error)
    return DeadLetter(topic, partition, offset, group, attempt, error, message, position)


def no_dead_letters(topic: str, positions: Sequence[int]) -> NotFound:
    """The error for positions at which no dead letter waits."""
    shown = ", ".join(map(str, positions[:10]))
    return NotFound(
        f"no dead letter of {topic} waits at {shown}; `tunesmith dead-letters list {topic}` shows those that do",
        metadata={"topic": topic, "positions": shown},
    )


def _attribute_headers(headers: Headers) -> dict[str, bytes]:
    """The headers that decide about an event. Others may be anything, and so may its trace context."""
    attributes: dict[str, bytes] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in _TRACE_HEADERS or (not lower.startswith("ce_") and lower != "content-type"):
            continue
        if value is None:
            raise _undecodable(f"the header {name[:100]!r} is null")
        if lower in attributes:
            raise _undecodable(f"the header {name[:100]!r} is there twice")
        try:
            value.decode()
        except UnicodeDecodeError as error:
            raise _undecodable(f"the header {name[:100]!r} is not UTF-8") from error
        attributes[lower] = value
    return attributes


def _check_readable(attributes: dict[str, bytes]) -> None:
    version, kind = attributes["ce_specversion"].decode(), attributes["ce_type"].decode()
    if version != "1.0":
        raise Unsupported(
            f"CloudEvents version {version[:20]!r} cannot be read, only '1.0'; upgrade this service or the producer",
            reason="UNKNOWN_SPECVERSION",
        )
    if kind not in _TYPES:
        raise Unsupported(
            f"event type {kind[:100]!r} is unknown to this version; upgrade this service, then replay the dead letter",
            reason="UNKNOWN_EVENT_TYPE",
        )


def _size_bytes(headers: Headers, key: bytes, value: bytes) -> int:
    return len(key) + len(value) + sum(len(name) + len(content or b"") for name, content in headers)


def _undecodable(why: str) -> DataLoss:
    return DataLoss(f"the message is not an event of Tunesmith: {why[:500]}", reason="UNDECODABLE_EVENT")
