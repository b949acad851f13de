"""The consumer loop: one thread that hands events to handlers and never blocks on their failures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from tunesmith.domain.errors import Conflict, DataLoss, InvalidInput, TunesmithError, Unsupported
from tunesmith.domain.events import Event
from tunesmith.ports.bus import EventBus, Message, Subscription
from tunesmith.ports.clock import Clock
from tunesmith.telemetry import log_context, span

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""Deliveries of one message before it becomes a dead letter."""
FIRST_RETRY_S = 0.2
HOPELESS = (InvalidInput, DataLoss, Unsupported, LookupError, TypeError, ValueError)
"""Errors about what an event says. Trying again would only hold up the other keys of its partition."""
REBUILD_AFTER_S = 1.0
POLL_MESSAGES = 100
"""Most messages that are handled before their offsets are committed, and handled again after a crash."""

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
        """Poll once and handle what came, committing each partition once; returns how many messages were done."""
        done = 0
        put_off: set[Partition] = set()
        handled: dict[Partition, Message] = {}
        try:
            for message in subscription.poll(timeout_s=timeout_s, max_messages=POLL_MESSAGES):
                if self._stopping.is_set():
                    break
                partition = (message.topic, message.partition)
                if partition in put_off:
                    continue  # it comes again, after the one before it
                if self._handle(subscription, message, handled):
                    done += 1
                else:
                    put_off.add(partition)
        finally:
            for last in handled.values():
                self._commit(subscription, last)
        return done

    def _handle(self, subscription: Subscription, message: Message, handled: dict[Partition, Message]) -> bool:
        """True when the message is done with, False when it and its partition wait for another attempt.

        `handled` has the last message of each partition that is still to be committed.
        """
        partition = (message.topic, message.partition)
        if message.event is None:
            self._give_up(subscription, message, handled, error=f"undecodable: {message.decode_error}")
            return True
        handler = self._handlers.get(message.event.type)
        with log_context(event_id=message.event.id):
            try:
                if handler is not None:
                    # Linked, not continued: one event has many consumers, at times of their own.
                    with span(f"process {message.event.type}", kind="consumer", follows=message.event.trace):
                        handler(message.event)
            except Exception as error:  # the consumer loop whatever it is, the loop goes on
                if message.attempt >= MAX_ATTEMPTS or isinstance(error, HOPELESS):
                    log.exception("event given up after attempt %s", message.attempt)
                    self._give_up(subscription, message, handled, error=f"{type(error).__name__}: {error}")
                    return True
                log.warning("attempt %s to handle %s failed: %s", message.attempt, message.event.type, error)
                # A bus may remember the attempts of the first message that is not committed.
                if before := handled.pop(partition, None):
                    self._commit(subscription, before)
                subscription.retry_later(message, delay_s=FIRST_RETRY_S * 2 ** (message.attempt - 1))
                return False
        handled[partition] = message
        return True

    def _give_up(
        self, subscription: Subscription, message: Message, handled: dict[Partition, Message], *, error: str
    ) -> None:
        subscription.dead_letter(message, error=error)
        handled.pop((message.topic, message.partition), None)  # committed with it

    def _commit(self, subscription: Subscription, message: Message) -> None:
        try:
            subscription.commit(message)
        except Conflict as error:
            log.info("partition went to another member: %s", error)
        except TunesmithError as error:
            log.warning("offset was not committed, the events will come again: %s", error)
