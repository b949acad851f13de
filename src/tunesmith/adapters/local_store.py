"""The store on a local folder: an object is a file, hard links create and locks compare-and-swap."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import stat
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from tunesmith.adapters.file_problems import file_problem, writing_to
from tunesmith.adapters.object_keys import check_key, check_prefix, is_segment
from tunesmith.domain.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    InvalidSettings,
    NotFound,
    PermissionRefused,
    Unavailable,
    Unsupported,
)
from tunesmith.ports.store import ObjectInfo, StoredObject

_CHUNK_BYTES = 1 << 20
_NUM_LOCKS = 256
_STALE_AFTER_S = 3600.0
_MAX_PRUNE_RACES = 100
"""How often in a row a write may lose its folder to concurrent deletes before it gives up."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalStore:
    """Objects as files under `root`, at the path that is their key (ports.store.Store).

    A version is the SHA-256 of the content. Bytes are written to a temporary file and made durable first; then `link`
    (which fails where something exists) creates, or `rename` under the key's lock replaces. Folders are entered one by
    one without following symbolic links, so that none inside `root` leads outside. Needs a local file system with
    hard links and `flock`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        # '~' is in no key, so the store's own folders never collide with an object.
        self._temporary = self._root / ".tmp~"
        self._locks = self._root / ".locks~"
        try:
            for folder in (self._root, self._temporary, self._locks):
                folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self._temporary, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "not writable", str(self._temporary))
            self._remove_stale()
        except OSError as error:
            raise InvalidSettings(
                f"the store folder {self._root} cannot be used ({error}); "
                "give a folder that this user can write to in TUNESMITH_STORE=file:///…"
            ) from error

    def get(self, key: str) -> StoredObject:
        """The object's bytes; NotFound when there is none."""
        with self._failures(key), self._opened(key) as file:
            data = file.read()
        return StoredObject(key, data, hashlib.sha256(data).hexdigest())

    def exists(self, key: str) -> bool:
        """Whether an object is stored under `key`."""
        try:
            with self._failures(key), self._opened(key):
                return True
        except NotFound:
            return False

    def put(self, key: str, data: bytes) -> str:
        """Write unconditionally and return the new version."""
        return self._overwrite(key, io.BytesIO(data))

    def create(self, key: str, data: bytes) -> str:
        """Write if absent and return the version; AlreadyExists otherwise."""
        if self.exists(key):
            raise _already_exists(key)
        with self._failures(key), self._staged(io.BytesIO(data)) as (temporary, version):
            self._install(temporary, key, exclusive=True)
        return version

    def replace(self, key: str, data: bytes, *, version: str) -> str:
        """Write if the stored version is still `version` and return the new one."""
        self._expect(key, version)
        with self._failures(key), self._staged(io.BytesIO(data)) as (temporary, new_version), self._locked(key):
            self._expect(key, version)
            self._install(temporary, key, exclusive=False)
        return new_version

    def delete(self, key: str) -> None:
        """Remove the object and the folders that it leaves empty; nothing happens when there is none."""
        *folders, name = check_key(key).split("/")
        with self._failures(key), self._locked(key), suppress(FileNotFoundError, NotADirectoryError):
            with self._folder(folders) as folder:
                if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=folder)
                    os.fsync(folder)
            self._prune(folders)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, in the byte order of their keys, after `start_after`."""
        above = check_prefix(prefix).rpartition("/")[0]
        return self._walk(above.split("/") if above else [], prefix, start_after)

    def put_file(self, key: str, path: Path) -> None:
        """Write a file's bytes unconditionally, in bounded memory."""
        with path.open("rb") as file:
            self._overwrite(key, file)

    def get_file(self, key: str, path: Path) -> None:
        """Write the object's bytes to `path`, atomically and in bounded memory; folders are made as needed."""
        with self._failures(key), self._opened(key) as source, writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{uuid4().hex}.tmp~")
            try:
                with partial.open("xb") as file:
                    _copy(source, file)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)

    def _overwrite(self, key: str, source: BinaryIO) -> str:
        check_key(key)
        with self._failures(key), self._staged(source) as (temporary, version), self._locked(key):
            self._install(temporary, key, exclusive=False)
        return version

    def _expect(self, key: str, version: str) -> None:
        """Raise Conflict unless the object under `key` has `version`."""
        with self._failures(key), self._opened(key) as file:
            stored = hashlib.file_digest(file, "sha256").hexdigest()
        if stored != version:
            raise Conflict(
                f"object {key} has version {stored[:12]}…, not the expected {version[:12]}…; read it again and retry",
                metadata={"key": key, "stored": stored, "expected": version},
            )

    @contextmanager
    def _staged(self, source: BinaryIO) -> Iterator[tuple[Path, str]]:
        """A durable temporary file with the bytes of `source`, and their version; removed at the end."""
        path = self._temporary / f"{os.getpid()}-{uuid4().hex}"
        try:
            with path.open("xb") as file:
                version = _copy(source, file)
            yield path, version
        finally:
            path.unlink(missing_ok=True)

    def _install(self, temporary: Path, key: str, *, exclusive: bool) -> None:
        """Give `temporary` the name `key`, durably; AlreadyExists when `exclusive` and the name is taken."""
        *folders, name = key.split("/")
        for _ in range(_MAX_PRUNE_RACES):
            # A concurrent delete may remove a folder as empty between entering it and writing into it.
            with suppress(FileNotFoundError), self._folder(folders, make=True) as folder:
                try:
                    if exclusive:
                        os.link(temporary, name, dst_dir_fd=folder)
                    else:
                        os.rename(temporary, name, dst_dir_fd=folder)
                except FileExistsError as error:
                    if _is_folder(name, folder):
                        raise _key_is_folder(key) from error
                    raise _already_exists(key) from error
                except IsADirectoryError as error:
                    raise _key_is_folder(key) from error
                except OSError as error:
                    if exclusive and error.errno in _NO_HARD_LINKS:
                        raise Unsupported(
                            f"the file system of {self._root} makes no hard links ({error.strerror}), which the store "
                            "needs for create-if-absent; set TUNESMITH_STORE to a folder on ext4, xfs, btrfs or APFS"
                        ) from error
                    raise
                os.fsync(folder)
                return
        raise Unavailable(f"the folder of object {key} was removed {_MAX_PRUNE_RACES} times while writing; try again")

    @contextmanager
    def _folder(self, segments: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder at `segments` below the root, made when `make`."""
        folder = os.open(self._root, _FOLDER)
        try:
            for segment in segments:
                inner = _enter(segment, folder, make=make)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    @contextmanager
    def _opened(self, key: str) -> Iterator[io.BufferedReader]:
        """The object's file for reading; NotFound when there is none."""
        *folders, name = check_key(key).split("/")
        try:
            with self._folder(folders) as folder:
                # Not blocking: opening a FIFO that someone put here must not hang.
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _not_found(key) from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _symbolic_link(key) from error
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _not_found(key)
        with os.fdopen(descriptor, "rb") as file:
            yield file

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold the lock of `key` against other threads and processes; few keys share one."""
        path = self._locks / f"{zlib.crc32(key.encode()) % _NUM_LOCKS:02x}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _walk(self, folders: Sequence[str], prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        above = "".join(f"{segment}/" for segment in folders)
        with (
            self._failures(prefix),
            suppress(FileNotFoundError, NotADirectoryError),
            self._folder(folders) as folder,
        ):
            # A folder sorts as `name/`, because that is what the keys in it start with: `a.b` comes before `a/b`.
            for name in sorted(_entries(folder)):
                key = above + name
                if name.endswith("/"):
                    in_prefix = key.startswith(prefix) or prefix.startswith(key)
                    if in_prefix and (key > start_after or start_after.startswith(key)):
                        yield from self._walk([*folders, name[:-1]], prefix, start_after)
                elif key.startswith(prefix) and key > start_after:
                    with suppress(FileNotFoundError):
                        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                        yield ObjectInfo(key, status.st_size, status.st_mtime)

    def _prune(self, folders: Sequence[str]) -> None:
        """Remove folders from the inside out while they are empty."""
        for depth in range(len(folders) - 1, -1, -1):
            try:
                with self._folder(folders[:depth]) as folder:
                    os.rmdir(folders[depth], dir_fd=folder)
            except OSError:
                return

    def _remove_stale(self) -> None:
        """Remove temporary files that a killed writer left behind; recent ones may still be in use."""
        oldest_s = time.time() - _STALE_AFTER_S
        for path in self._temporary.iterdir():
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime < oldest_s:
                    path.unlink()

    @contextmanager
    def _failures(self, key: str) -> Iterator[None]:
        """Turn the operating system's errors into the port's."""
        try:
            yield
        except OSError as error:
            raise file_problem(error, self._root / key) from error


def _enter(segment: str, folder: int, *, make: bool) -> int:
    try:
        return os.open(segment, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        if stat.S_ISLNK(os.stat(segment, dir_fd=folder, follow_symlinks=False).st_mode):
            raise _symbolic_link(segment) from error
        if make:
            raise _key_is_folder(segment) from error
        raise
    with suppress(FileExistsError):
        os.mkdir(segment, dir_fd=folder)
    os.fsync(folder)
    return os.open(segment, _FOLDER, dir_fd=folder)


def _entries(folder: int) -> Iterator[str]:
    """Names in `folder` that can be part of a key; folders with a trailing `/`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_segment(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield f"{entry.name}/"
            elif entry.is_file(follow_symlinks=False):
                yield entry.name


def _copy(source: BinaryIO, target: BinaryIO) -> str:
    """Copy in chunks, make `target` durable and return the hex SHA-256 of the bytes."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        target.write(chunk)
    target.flush()
    os.fsync(target.fileno())
    return digest.hexdigest()


def _is_folder(name: str, folder: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _not_found(key: str) -> NotFound:
    return NotFound(f"no object is stored under {key}", reason="OBJECT_NOT_FOUND", metadata={"key": key})


def _already_exists(key: str) -> AlreadyExists:
    return AlreadyExists(f"an object is stored under {key} already", metadata={"key": key})


def _key_is_folder(key: str) -> InvalidInput:
    return InvalidInput(
        f"{key} cannot be both an object and a folder of objects; use another key", reason="KEY_IS_FOLDER"
    )


def _symbolic_link(name: str) -> PermissionRefused:
    return PermissionRefused(
        f"{name} is a symbolic link, and the store does not follow links, lest one lead outside its folder; "
        "replace it by what it points to",
        reason="SYMBOLIC_LINK",
    )
