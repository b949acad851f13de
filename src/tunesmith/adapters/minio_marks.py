"""Who wrote an object: nonces in its metadata, by which a writer that got no answer finds out what became of its write.

An S3 store answers a conditional write with yes or no, but the answer may be lost, or may be that of a request that
was sent twice. The bytes that are stored afterwards do not tell who wrote them, and another writer may have replaced
them by then. So every write leaves a nonce, and a replacing write carries on the nonces of those before it: the
order in which writers won can be read from the object.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

MAX_WRITES = 64
"""Nonces kept in an object, newest first: 832 bytes of the 2 KB of metadata that S3 allows."""

CREATOR = "tunesmith-creator"
WRITES = "tunesmith-writes"
_PREFIX = "x-amz-meta-"

_FOREIGN = "-"
"""Stands for the nonce of a write that left none, such as that of another program."""


class Fate(Enum):
    """What became of a write whose answer says nothing."""

    WON = auto()
    LOST = auto()
    NOT_APPLIED = auto()
    """The object is still as it was before. The write may be sent again: at most one of the two can succeed."""
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Mark:
    """The nonces of an object's first write and of its latest ones."""

    creator: str
    writes: tuple[str, ...]

    @staticmethod
    def first() -> Mark:
        """The mark of a write that does not build on another."""
        nonce = _nonce()
        return Mark(nonce, (nonce,))

    @staticmethod
    def of(headers: Mapping[str, str]) -> Mark:
        """The mark in an object's response headers."""
        writes = headers.get(_PREFIX + WRITES, "")
        return Mark(headers.get(_PREFIX + CREATOR, _FOREIGN), tuple(writes.split(",")) if writes else (_FOREIGN,))

    def next(self) -> Mark:
        """The mark of a write that replaces the one marked by this."""
        return Mark(self.creator, (_nonce(), *self.writes)[:MAX_WRITES])

    def metadata(self) -> dict[str, str]:
        """The mark as metadata for the SDK, which adds the prefix of user metadata."""
        return {CREATOR: self.creator, WRITES: ",".join(self.writes)}

    def headers(self) -> dict[str, str]:
        """The mark as request headers."""
        return {_PREFIX + name: value for name, value in self.metadata().items()}

    def fate_of_creation(self, found: Mark | None) -> Fate:
        """What became of creating an object with this mark, given the mark that is found there now."""
        if found is None:
            return Fate.NOT_APPLIED
        return Fate.WON if found.creator == self.creator else Fate.LOST

    def fate_of_replacement(self, found: Mark | None) -> Fate:
        """What became of replacing an object by one with this mark, given the mark that is found there now."""
        if found is None:
            return Fate.UNKNOWN
        if self.writes[0] in found.writes:
            return Fate.WON
        before = self.writes[1]
        if found.writes[0] == before:
            return Fate.NOT_APPLIED
        return Fate.LOST if before in found.writes else Fate.UNKNOWN


@dataclass(frozen=True, slots=True)
class Version:
    """What a version of the port stands for here: the content's tag, which the store compares, and the mark."""

    etag: str
    mark: Mark

    @staticmethod
    def of(headers: Mapping[str, str]) -> Version:
        """The version of a response's object."""
        return Version(headers.get("etag", "").strip('"'), Mark.of(headers))

    @staticmethod
    def parse(version: str) -> Version:
        """Read what `str` wrote; anything else is a version that no object has."""
        etag, _, rest = version.partition(";")
        creator, _, writes = rest.partition(";")
        return Version(etag, Mark(creator or _FOREIGN, tuple((writes or _FOREIGN).split(","))))

    def __str__(self) -> str:
        return f"{self.etag};{self.mark.creator};{','.join(self.mark.writes)}"


def _nonce() -> str:
    return secrets.token_hex(6)
