"""The store: named objects with conditional writes. Shaped after what S3 can promise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's bytes and its version: an opaque tag that `replace` and `delete` compare."""

    key: str
    data: bytes
    version: str


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing tells. `modified_s` is seconds since the epoch by the store's own clock."""

    key: str
    size_bytes: int
    modified_s: float


class Store(Protocol):
    """Objects by key.

    Keys are `/`-separated segments of letters, digits and `._=-`, at most 512 bytes, a segment at most 255 and never
    `.` or `..`; anything else raises InvalidInput. No key may be a folder of another (`a` beside `a/b`): it is
    undefined which adapters refuse it.

    A write that returned survives a power cut; a write that raised, or whose writer was killed, happened wholly or
    not at all. Readers never see half an object. All methods may be called from several threads and processes.

    Equal bytes may have equal versions (an S3 ETag is a content hash). Callers that compare-and-swap must therefore
    change the content with every write; the state objects carry `rev` and `writer` for that.

    Raises: ResourceExhausted when there is no room, Unavailable when the store does not answer.
    """

    def get(self, key: str) -> StoredObject:
        """The object's bytes; NotFound when there is none."""
        ...

    def exists(self, key: str) -> bool:
        """Whether an object is stored under `key`."""
        ...

    def put(self, key: str, data: bytes) -> str:
        """Write unconditionally and return the new version. For objects of one writer, or that are equal anyway."""
        ...

    def create(self, key: str, data: bytes) -> str:
        """Write if absent and return the version; AlreadyExists otherwise. Of racing creators exactly one wins."""
        ...

    def replace(self, key: str, data: bytes, *, version: str) -> str:
        """Write if the stored version is still `version` and return the new one.

        Conflict when it is another, NotFound when the object is gone. Of racing writers exactly one wins.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens when there is none."""
        ...

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, in key order, from the first key greater than `start_after`.

        Objects written or deleted while the listing runs may or may not be in it; all others are, once.
        """
        ...

    def put_file(self, key: str, path: Path) -> None:
        """Write a file's bytes unconditionally, in bounded memory."""
        ...

    def get_file(self, key: str, path: Path) -> None:
        """Write the object's bytes to `path`, atomically and in bounded memory; NotFound when there is none."""
        ...
