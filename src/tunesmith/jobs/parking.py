"""Where failing messages of one partition wait, so that those of other keys need not."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunesmith.ports.bus import Message

MAX_PARKED = 1000
"""Most messages of a partition that wait: those that failed and those of their keys behind them."""
MAX_PARKED_BYTES = 8 << 20
"""Most bytes of them on the wire; decoded they take several times as much."""
MAX_BEHIND = 10_000
"""So far the messages that are taken in may run ahead of the first that waits: all come again after a crash."""


@dataclass(slots=True)
class Parked:
    """A message that waits."""

    message: Message
    """As the attempt that comes next."""
    before: Message | None
    """Where the one stood that was taken in just before it; None when that was committed before anything waited."""
    num_faults: int
    """Failed attempts that its surroundings are not to blame for."""


class Parking:
    """The messages of one partition that are not done although later ones were taken in.

    Messages stand behind those of their key, so each key stays in order; a key is tried from its head, when that is
    due.
    """

    def __init__(self, newest: Message | None) -> None:
        self.newest = newest
        """The last message that was taken in, done or parked."""
        self.committed = -1
        """The offset that was committed last, as far as that was done from here."""
        self.is_shedding = False
        """Whether too much waits while other messages go on: who fails now is given up."""
        self._parked: dict[int, Parked] = {}  # offsets, growing
        self._keys: dict[str, deque[int]] = {}
        self._due_s: dict[str, float] = {}
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._parked)

    def blocks(self, key: str) -> bool:
        """Whether messages of `key` must stand behind one that waits."""
        return key in self._keys

    def started_again(self, message: Message) -> bool:
        """Whether `message`, just given out, tells that the partition starts again from what is committed."""
        return self.newest is not None and message.offset <= self.newest.offset

    def is_closed_to(self, message: Message) -> bool:
        """Whether `message` must not even be tried now, because it would have to wait or runs too far ahead."""
        return self._behind >= MAX_BEHIND or (self.is_full and self.blocks(message.key))

    def park(self, message: Message, *, due_s: float = 0.0, num_faults: int = 0) -> None:
        """Let the partition's next message wait. `due_s` is when its key is tried, if none waits before it."""
        # Its place is enough to commit it: what is done must not be kept in memory.
        before = self.newest and replace(self.newest, event=None, raw=None)
        self._parked[message.offset] = Parked(message, before, num_faults)
        self._keys.setdefault(message.key, deque()).append(message.offset)
        self._due_s.setdefault(message.key, due_s)
        self._size_bytes += message.size_bytes
        self.newest = message

    def head(self, key: str) -> Parked | None:
        """The message of `key` to try next."""
        offsets = self._keys.get(key)
        return self._parked[offsets[0]] if offsets else None

    def put_back(self, message: Message, *, due_s: float, num_faults: int) -> None:
        """The head of its key failed once more."""
        parked = self._parked[message.offset]
        parked.message, parked.num_faults = message, num_faults
        self._due_s[message.key] = due_s

    def remove(self, message: Message, *, now_s: float) -> None:
        """The head of its key is done; the one behind it is due."""
        self._size_bytes -= self._parked.pop(message.offset).message.size_bytes
        offsets = self._keys[message.key]
        offsets.popleft()
        if offsets:
            self._due_s[message.key] = now_s
        else:
            del self._keys[message.key], self._due_s[message.key]
        self.is_shedding = self.is_shedding and self._is_over(0.5)

    @property
    def next_due_s(self) -> float:
        """When the next key is due."""
        return min(self._due_s.values(), default=float("inf"))

    def due(self, now_s: float) -> Sequence[tuple[float, int, str]]:
        """The keys that are due, with the time since which they are and the offset of their head."""
        return [(due_s, self._keys[key][0], key) for key, due_s in self._due_s.items() if due_s <= now_s]

    @property
    def first(self) -> Parked | None:
        """The message with the lowest offset."""
        return next(iter(self._parked.values()), None)

    @property
    def last_done(self) -> Message | None:
        """The last message up to which all are done; None for what was committed before anything waited."""
        first = self.first
        return self.newest if first is None else first.before

    @property
    def is_full(self) -> bool:
        """Whether no more may wait."""
        return len(self._parked) >= MAX_PARKED or self._size_bytes >= MAX_PARKED_BYTES

    def shed_if_others_go_on(self, now_s: float) -> bool:
        """Begin to shed when most of what came since the first one that waits is done; whether shedding goes on.

        Then it is not the surroundings that are at fault. All keys are due at once, and who fails is given up, until
        half of the limits are free.
        """
        if not self.is_shedding and self._behind + 1 > 2 * len(self._parked):
            self.is_shedding = True
            self._due_s = dict.fromkeys(self._due_s, now_s)
        return self.is_shedding

    @property
    def _behind(self) -> int:
        first = self.first
        return 0 if first is None or self.newest is None else self.newest.offset - first.message.offset

    def _is_over(self, share: float) -> bool:
        return (
            len(self._parked) > share * MAX_PARKED
            or self._size_bytes > share * MAX_PARKED_BYTES
            or self._behind > share * MAX_BEHIND
        )
