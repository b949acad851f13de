"""The consumer loop: one thread that hands events to handlers.

An event that fails is parked and tried again; those of its key wait behind it, those of other keys go on. What is
committed stays below the first parked one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunesmith.domain.errors import (
    Conflict,
    DataLoss,
    DeadlineExceeded,
    InvalidInput,
    InvalidSettings,
    PermissionRefused,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
    Unsupported,
)
from tunesmith.domain.events import Event
from tunesmith.jobs.parking import Parking
from tunesmith.ports.bus import EventBus, Message, Subscription
from tunesmith.ports.clock import Clock
from tunesmith.telemetry import log_context, span

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""Failures of an event's own before it becomes a dead letter: about 3 s."""
OUTAGES = (Unavailable, DeadlineExceeded, ResourceExhausted, PermissionRefused, InvalidSettings)
"""Errors that tell of the surroundings (the store is away or full, its keys are being changed), not of the event."""
MAX_OUTAGE_ATTEMPTS = 125
"""Attempts before an event that meets nothing but outages becomes a dead letter: half an hour, then a person is needed.

Sooner where most of its partition goes on meanwhile and too much waits (`parking.Parking.is_shedding`).
"""
FIRST_RETRY_S = 0.2
MAX_RETRY_S = 15.0
"""Delays double from the first to this one."""
HOPELESS = (InvalidInput, DataLoss, Unsupported, LookupError, TypeError, ValueError)
"""Errors about what an event says. Trying again would only hold up the events behind it."""
REBUILD_AFTER_S = 1.0
POLL_MESSAGES = 100
"""Most messages of one poll."""
BATCH_S = 1.0
"""So long messages are handled before the next poll; the handler that is at work then may end.

A member that does not poll loses its partitions, so what is left of the batch is asked for again.
"""

Partition = tuple[str, int]
"""Topic and number."""

EventHandler = Callable[[Event], None]
"""Accepts work within milliseconds. Must be idempotent: events come twice, late and out of order."""


class ConsumerLoop:
    """Feeds `handlers` (by event type) from `topics` as a member of `group`."""

    def __init__(
        self, *, bus: EventBus, clock: Clock, group: str, topics: Sequence[str], handlers: Mapping[str, EventHandler]
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._group = group
        self._topics = topics
        self._handlers = handlers
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._member: _Member | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=f"consumer-{self._group}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the message it is handling, and leave the group."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                subscription = self._bus.subscribe(self._group, self._topics)
                try:
                    while not self._stopping.is_set():
                        self.handle_batch(subscription)
                finally:
                    subscription.close()
            except Exception:  # the consumer loop: whatever broke, a fresh subscription starts from what is committed
                log.exception("consumer %s broke; it starts again in %s s", self._group, REBUILD_AFTER_S)
                self._stopping.wait(REBUILD_AFTER_S)

    def handle_batch(self, subscription: Subscription, *, timeout_s: float = 0.5) -> int:
        """Poll once, handle what came and what is due again, and commit; returns how many messages were done."""
        if self._member is None or self._member.subscription is not subscription:
            self._member = _Member(subscription, self._clock, self._handlers, self._stopping)
        return self._member.handle_batch(timeout_s)


@dataclass(frozen=True, slots=True)
class _Failed:
    """A message that has to be tried again."""

    message: Message
    """As its next attempt."""
    delay_s: float
    num_faults: int
    """Failed attempts that the surroundings are not to blame for."""


class _Member:
    """What became of the messages of one subscription: done, parked or put off."""

    def __init__(
        self,
        subscription: Subscription,
        clock: Clock,
        handlers: Mapping[str, EventHandler],
        stopping: threading.Event,
    ) -> None:
        self.subscription = subscription
        self._clock = clock
        self._handlers = handlers
        self._stopping = stopping
        self._parkings: dict[Partition, Parking] = {}
        self._handled: dict[Partition, Message] = {}
        """The last message of each partition that is still to be committed, where nothing is parked."""
        self._retries_first = False
        """Whether the last batch left no time to try again what was due."""
        self._put_off: set[Partition] = set()
        """Whose messages of this batch come again."""

    def handle_batch(self, timeout_s: float) -> int:
        """See `ConsumerLoop`."""
        if self._parkings:
            due_s = min(parking.next_due_s for parking in self._parkings.values())
            timeout_s = max(0.0, min(timeout_s, due_s - self._clock.monotonic_s()))
        messages = self.subscription.poll(timeout_s=timeout_s, max_messages=POLL_MESSAGES)
        until_s = self._clock.monotonic_s() + BATCH_S
        self._put_off.clear()
        try:
            # Who holds what changes in polls only.
            for partition, parking in list(self._parkings.items()):
                if (first := parking.first) and not self.subscription.holds(first.message):
                    self._forget(partition)
            # Once time is up, not one handler more: it may be at work for as long as a member may be silent.
            done = self._try_again(until_s) if self._retries_first else 0
            done += self._take_all(messages, until_s)
            self._retries_first = self._clock.monotonic_s() >= until_s and not self._retries_first
            return done if self._clock.monotonic_s() >= until_s else done + self._try_again(until_s)
        finally:
            self._commit_all()

    def _take_all(self, messages: Sequence[Message], until_s: float) -> int:
        done = 0
        for message in messages:
            if self._stopping.is_set():
                break
            partition = (message.topic, message.partition)
            if partition in self._put_off:
                continue  # it comes again, after the one before it
            if self._clock.monotonic_s() >= until_s:
                self._put_off_from(message, delay_s=0.0)
                continue
            try:
                done += self._take(partition, message)
            except Conflict as error:
                self._lose(partition, error)
        return done

    def _take(self, partition: Partition, message: Message) -> bool:
        """Handle a message that was polled, park it or put it off; whether it is done."""
        parking = self._parkings.get(partition)
        if parking is not None and parking.started_again(message):
            self._forget(partition)
            parking = None
        if parking is not None and parking.is_closed_to(message):
            now_s = self._clock.monotonic_s()
            is_soon = parking.shed_if_others_go_on(now_s)
            delay_s = FIRST_RETRY_S if is_soon else max(FIRST_RETRY_S, parking.next_due_s - now_s)
            self._put_off_from(message, delay_s=delay_s)
            return False
        if parking is not None and parking.blocks(message.key):
            parking.park(message)
            return False
        # More than an event's own failures can be were outages.
        num_faults = message.attempt - 1 if message.attempt <= MAX_ATTEMPTS else 0
        failed = self._attempt(message, num_faults=num_faults)
        if failed is None:
            if parking is None:
                self._handled[partition] = message
            else:
                parking.newest = message
            return True
        if parking is None:
            parking = self._parkings[partition] = Parking(self._handled.pop(partition, None))
        if parking.is_full:
            parking.shed_if_others_go_on(self._clock.monotonic_s())
            self._put_off_from(failed.message, delay_s=failed.delay_s)
        else:
            due_s = self._clock.monotonic_s() + failed.delay_s
            parking.park(failed.message, due_s=due_s, num_faults=failed.num_faults)
        return False

    def _try_again(self, until_s: float) -> int:
        """Try the keys that are due; how many messages were done."""
        done = 0
        now_s = self._clock.monotonic_s()
        due = sorted((*due, partition) for partition, parking in self._parkings.items() for due in parking.due(now_s))
        for _due_s, _offset, key, partition in due:
            try:
                done += self._try_key(partition, key, until_s)
            except Conflict as error:
                self._lose(partition, error)
            if self._clock.monotonic_s() >= until_s:
                break
        return done

    def _try_key(self, partition: Partition, key: str, until_s: float) -> int:
        """Try a key's messages in order, up to the first that fails again; how many were done."""
        done = 0
        while (parking := self._parkings.get(partition)) and (head := parking.head(key)):
            if self._stopping.is_set():
                break
            failed = self._attempt(head.message, num_faults=head.num_faults, is_last=parking.is_shedding)
            now_s = self._clock.monotonic_s()
            if failed is not None:
                parking.put_back(failed.message, due_s=now_s + failed.delay_s, num_faults=failed.num_faults)
                break
            parking.remove(head.message, now_s=now_s)
            done += 1
            if now_s >= until_s:
                break
        return done

    def _attempt(self, message: Message, *, num_faults: int, is_last: bool = False) -> _Failed | None:
        """None when the message is done with: handled, or among the dead letters.

        Conflict when its partition is with another member.
        """
        if message.event is None:
            return self._give_up(message, f"undecodable: {message.decode_error}", num_faults=num_faults)
        handler = self._handlers.get(message.event.type)
        with log_context(event_id=message.event.id):
            try:
                if handler is not None:
                    # Linked, not continued: one event has many consumers, at times of their own.
                    with span(f"process {message.event.type}", kind="consumer", follows=message.event.trace):
                        handler(message.event)
            except Exception as error:  # the consumer loop: whatever it is, the loop goes on
                num_faults += not isinstance(error, OUTAGES)
                is_last |= num_faults >= MAX_ATTEMPTS or message.attempt >= MAX_OUTAGE_ATTEMPTS
                if is_last or isinstance(error, HOPELESS):
                    log.exception("event given up after attempt %s", message.attempt)
                    return self._give_up(message, f"{type(error).__name__}: {error}", num_faults=num_faults)
                # An outage fails for all keys, again and again.
                level = logging.WARNING if message.attempt <= MAX_ATTEMPTS else logging.DEBUG
                log.log(level, "attempt %s to handle %s failed: %s", message.attempt, message.event.type, error)
                return self._failed(message, num_faults)
        return None

    def _give_up(self, message: Message, error: str, *, num_faults: int) -> _Failed | None:
        try:
            self.subscription.dead_letter(message, error=error)
        except Conflict:
            raise
        except TunesmithError as refusal:
            log.warning("message %s of %s is no dead letter yet: %s", message.offset, message.topic, refusal)
            return self._failed(message, num_faults)
        return None

    def _failed(self, message: Message, num_faults: int) -> _Failed:
        delay_s = min(MAX_RETRY_S, FIRST_RETRY_S * 2.0 ** min(message.attempt - 1, MAX_OUTAGE_ATTEMPTS))
        return _Failed(self.subscription.note_failure(message), delay_s, num_faults)

    def _put_off_from(self, message: Message, *, delay_s: float) -> None:
        self._put_off.add((message.topic, message.partition))
        self.subscription.retry_later(message, delay_s=delay_s)

    def _commit_all(self) -> None:
        """Commit each partition up to its last message before which all are done."""
        for partition, parking in list(self._parkings.items()):
            last = parking.last_done
            if last is not None and last.offset > parking.committed and self._commit(last):
                parking.committed = last.offset
            if not parking:
                self._forget(partition)
        for message in self._handled.values():
            self._commit(message)
        self._handled.clear()

    def _commit(self, message: Message) -> bool:
        try:
            self.subscription.commit(message)
        except Conflict as error:
            self._lose((message.topic, message.partition), error)
        except TunesmithError as error:
            log.warning("offset was not committed, the events will come again: %s", error)
        else:
            return True
        return False

    def _lose(self, partition: Partition, error: Conflict) -> None:
        log.info("partition went to another member: %s", error)
        self._put_off.add(partition)
        self._forget(partition)

    def _forget(self, partition: Partition) -> None:
        """Drop what is parked, in memory alone: what is not committed comes again, here or elsewhere."""
        self._parkings.pop(partition, None)
