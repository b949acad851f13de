"""The store on MinIO, or on any S3 store that keeps conditions on writes."""

from __future__ import annotations

import heapq
import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError

from tunesmith.adapters.file_problems import writing_to
from tunesmith.adapters.minio_connection import MinioAddress, MinioConnection
from tunesmith.adapters.minio_errors import (
    S3_FAILURES,
    listing_failures,
    not_found,
    refusal_of,
    s3_failures,
    translated,
)
from tunesmith.adapters.minio_marks import Fate, Mark, Version
from tunesmith.adapters.object_keys import check_key, check_prefix
from tunesmith.domain.areas import area_of, areas_under
from tunesmith.domain.errors import AlreadyExists, Conflict, NotFound, StoreUnavailable, TunesmithError, Unavailable
from tunesmith.ports.store import ObjectInfo, StoredObject

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_CHUNK_BYTES = 1 << 20
_PAUSES_S = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Before each try of a conditional write or a whole transfer; half to one and a half times as long, by chance."""

_DEADLINE_S = 15.0
"""After this long a write that got no clear answer is not sent again."""

_TRANSFERS = 4
"""How often a transfer that is cut off is started."""

_IN_DOUBT = {408, 409, 500, 502, 503, 504}
"""Answers after which a write may have been carried out, or may succeed when it is sent again."""

_NEVER = "0" * 32
"""An ETag that no object has."""

_ETAG = re.compile(r"[0-9A-Za-z._-]{1,128}")


class MinioStore:
    """Objects in one bucket, or in one bucket for each area of keys (ports.store.Store).

    A version is the object's ETag and its mark (minio_marks). Conditional writes are sent once; an answer that does
    not settle the matter (none, a server error, or a refusal that may answer a repeated request) is settled by
    reading the mark that is stored, and a write that was not applied is sent again under the same nonce. Where even
    that does not tell, the error is Unavailable with reason STORE_OUTCOME_UNKNOWN.
    """

    def __init__(self, connection: MinioConnection) -> None:
        self.connection = connection
        self._client = connection.client
        self._address = connection.address

    @staticmethod
    def open(url: str, *, access_key: str, secret_key: str, ca: Path | None = None) -> MinioStore:
        """The store at `url` (MinioAddress); nothing is sent before the first call."""
        address = MinioAddress.read(url)
        return MinioStore(MinioConnection(address, access_key=access_key, secret_key=secret_key, ca=ca))

    def get(self, key: str) -> StoredObject:
        """The object's bytes; NotFound when there is none."""

        def read() -> StoredObject:
            with self._reading(key) as response:
                return StoredObject(key, response.read(), str(Version.of(response.headers)))

        return self._repeated(key, read)

    def exists(self, key: str) -> bool:
        """Whether an object is stored under `key`."""
        return self._stat(check_key(key)) is not None

    def put(self, key: str, data: bytes) -> str:
        """Write unconditionally and return the new version."""
        bucket = self._bucket(check_key(key))
        mark = Mark.first()
        for pause_s in _PAUSES_S:
            _wait(pause_s)
            with s3_failures(self._address, bucket=bucket, key=key):
                response = self.connection.put(bucket, key, data, mark.headers(), retried=True)
            if response.status == 200:
                return str(Version(Version.of(response.headers).etag, mark))
            problem = self._refusal(response, key)
            # Others were repeated below. MinIO blames the body (400) when its disk fills up while it writes.
            if not isinstance(problem, Unavailable) or response.status != 400:
                break
        raise problem

    def create(self, key: str, data: bytes) -> str:
        """Write if absent and return the version; AlreadyExists otherwise."""
        mark = Mark.first()
        return self._write_if(
            check_key(key),
            data,
            mark,
            {"If-None-Match": "*"},
            lambda found: mark.fate_of_creation(found.mark if found else None),
            lambda _: AlreadyExists(f"an object is stored under {key} already", metadata={"key": key}),
        )

    def replace(self, key: str, data: bytes, *, version: str) -> str:
        """Write if the stored version is still `version` and return the new one."""
        expected = Version.parse(version)
        etag = expected.etag if _ETAG.fullmatch(expected.etag) else _NEVER
        mark = expected.mark.next()

        def fate(found: Version | None) -> Fate:
            decided = mark.fate_of_replacement(found.mark if found else None)
            # The nonces may be those expected under other bytes, if another program wrote them.
            return Fate.LOST if decided is Fate.NOT_APPLIED and found and found.etag != etag else decided

        def lost(found: Version | None) -> TunesmithError:
            if found is None:
                return not_found(key)
            return Conflict(
                f"object {key} has version {found.etag}, not the expected {etag}; read it again and retry",
                metadata={"key": key, "stored": found.etag, "expected": etag},
            )

        return self._write_if(check_key(key), data, mark, {"If-Match": f'"{etag}"'}, fate, lost)

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens when there is none."""
        bucket = self._bucket(check_key(key))
        with s3_failures(self._address, bucket=bucket, key=key):
            self._client.remove_object(bucket, key)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, in the byte order of their keys, after `start_after`."""
        buckets = sorted({self._address.bucket_of(area) for area in areas_under(check_prefix(prefix))})
        listings = [self._list_bucket(bucket, prefix, start_after) for bucket in buckets]
        return listings[0] if len(listings) == 1 else heapq.merge(*listings, key=lambda info: info.key)

    def put_file(self, key: str, path: Path) -> None:
        """Write a file's bytes unconditionally, in bounded memory: in parts where it is longer than 5 MiB."""
        bucket = self._bucket(check_key(key))
        mark = Mark.first()

        def write() -> None:
            with path.open("rb") as file:
                try:
                    self._client.put_object(
                        bucket,
                        key,
                        file,
                        path.stat().st_size,
                        metadata=dict[str, str | list[str] | tuple[str]](mark.metadata()),
                    )
                except S3_FAILURES:
                    # The last request of an upload in parts cannot be repeated, but may have been carried out.
                    found = self._stat(key)
                    if found is None or found.mark != mark:
                        raise

        self._repeated(key, write)

    def get_file(self, key: str, path: Path) -> None:
        """Write the object's bytes to `path`, atomically and in bounded memory; folders are made as needed."""

        def read() -> None:
            with self._reading(key) as response, writing_to(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_name(f".{uuid4().hex}.tmp~")
                try:
                    with partial.open("xb") as file:
                        for chunk in response.stream(_CHUNK_BYTES):
                            file.write(chunk)
                    partial.replace(path)
                finally:
                    partial.unlink(missing_ok=True)

        self._repeated(key, read)

    def _bucket(self, key: str) -> str:
        return self._address.bucket_of(area_of(key))

    def _write_if(
        self,
        key: str,
        data: bytes,
        mark: Mark,
        condition: Mapping[str, str],
        fate: Callable[[Version | None], Fate],
        lost: Callable[[Version | None], TunesmithError],
    ) -> str:
        """Write under a condition and return the version; raises `lost` when it did not hold."""
        bucket = self._bucket(key)
        headers = {**mark.headers(), **condition}
        # Whether a request may have been carried out, or may yet be, although no answer says so.
        doubtful = False
        give_up_s = time.monotonic() + _DEADLINE_S
        for pause_s in _PAUSES_S:
            if time.monotonic() > give_up_s:
                break
            _wait(pause_s)
            try:
                response = self.connection.put(bucket, key, data, headers, retried=False)
            except HTTPError as error:
                problem = translated(error, self._address, bucket=bucket, key=key)
                if isinstance(error, (NewConnectionError, ConnectTimeoutError)):
                    continue  # nothing was sent
                conclusive = not isinstance(problem, Unavailable)
                doubtful = doubtful or not conclusive
            else:
                if response.status == 200:
                    return str(Version(Version.of(response.headers).etag, mark))
                problem = self._refusal(response, key)
                doubtful = doubtful or response.status in _IN_DOUBT
                # Even a clear "no" may answer the second of two copies of one request.
                conclusive = not isinstance(problem, (NotFound, Unavailable))
            if conclusive and not doubtful:
                raise problem
            try:
                found = self._stat(key)
            except Unavailable as error:
                problem = error
                continue
            decided = fate(found)
            if decided is Fate.WON:
                assert found is not None
                return str(found if found.mark.writes[0] == mark.writes[0] else Version(_NEVER, mark))
            if decided is Fate.LOST or (decided is Fate.UNKNOWN and not doubtful):
                raise lost(found)
            if decided is Fate.UNKNOWN:
                break
            if conclusive:
                raise problem
        if not doubtful:
            raise problem
        raise StoreUnavailable(
            f"whether {key} was written to the store at {self._address.endpoint} is not known ({problem.message}); "
            "read it again before writing",
            reason="STORE_OUTCOME_UNKNOWN",
            metadata={"key": key},
        ) from problem

    def _stat(self, key: str) -> Version | None:
        """The version of an object, or None when there is none."""
        bucket = self._bucket(key)
        try:
            with s3_failures(self._address, bucket=bucket, key=key):
                return Version.of(self._client.stat_object(bucket, key).metadata or {})
        except NotFound:
            return None

    def _list_bucket(self, bucket: str, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        with s3_failures(self._address, bucket=bucket, key=prefix), listing_failures(self._address):
            for found in self._client.list_objects(bucket, prefix=prefix, recursive=True, start_after=start_after):
                if found.object_name is not None and found.last_modified is not None:
                    yield ObjectInfo(found.object_name, found.size or 0, found.last_modified.timestamp())

    @contextmanager
    def _reading(self, key: str) -> Iterator[BaseHTTPResponse]:
        """The response that carries an object's bytes; its connection is used again once they are read."""
        bucket = self._bucket(check_key(key))
        response = self._client.get_object(bucket, key)
        try:
            yield response
        except BaseException:
            response.close()
            raise
        finally:
            response.release_conn()

    def _repeated(self, key: str, transfer: Callable[[], _T]) -> _T:
        """Do a transfer, again from its start when it was cut off; the SDK repeats only what fails before the bytes."""
        for tries_left, pause_s in zip(range(_TRANSFERS - 1, -1, -1), _PAUSES_S, strict=False):
            _wait(pause_s)
            try:
                return transfer()
            except S3_FAILURES as error:
                problem = translated(error, self._address, bucket=self._bucket(key), key=key)
                # That one has been tried often enough.
                again = isinstance(problem, Unavailable) and not isinstance(error, MaxRetryError)
                if not again or not tries_left:
                    raise problem from error
                log.info("the transfer of %s starts again after: %s", key, problem.message)
        raise AssertionError("the last try returns or raises")

    def _refusal(self, response: BaseHTTPResponse, key: str) -> TunesmithError:
        """What a write was answered, when it was not a success."""
        return refusal_of(response, self._address, bucket=self._bucket(key), key=key)


def _wait(pause_s: float) -> None:
    if pause_s:
        time.sleep(pause_s * random.uniform(0.5, 1.5))
