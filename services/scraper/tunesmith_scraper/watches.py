"""Watched sources: collected again by themselves when a file or folder has changed, or a URL's time has come.

A collect job's id follows from the watch and the content (of a URL: the time it was due), so a repeated look, a crash
or a second replica starts nothing twice.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith.catalogue import list_objects
from tunesmith.domain import keys
from tunesmith.domain.errors import InvalidInput, NotFound, ResourceExhausted, TunesmithError
from tunesmith.domain.ids import canonical_json, check_name, content_id, sha256_hex
from tunesmith.jobs.state import JobStore
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.store import Store
from tunesmith.state_objects import change_object, find_object, new_writer
from tunesmith_scraper.handlers import CollectRequest, validate
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import SourceSpec
from tunesmith_scraper.sources.local_file import opened, path_of, path_under_roots

log = logging.getLogger(__name__)

MIN_EVERY_S = 60.0
MAX_EVERY_S = 366 * 86_400.0
DEFAULT_EVERY_S = 3600.0
"""How often a URL is collected where nothing else is said."""

MAX_WATCHES = 1000
MAX_FILES = 1000
"""Files of a watched folder that are collected each for itself."""
MAX_WALKED = 100_000
"""Files below a folder that is collected as a whole."""

_CHUNK_BYTES = 2**20
_NEVER_CHANGE = ("sample", "upload")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was last collected of a watched file, or of a URL."""

    stamp: str
    """Sizes and times of change, hashed; of a URL the time it was due."""
    job_id: str = ""
    problem: str = ""
    """Why no job was started."""


@dataclass(frozen=True, slots=True)
class Watch:
    """The stored object of a watch, changed only by compare-and-swap."""

    id: str
    recipe: str
    source: SourceSpec
    every_s: float
    """Of a file or folder: 0 looks all the time. Of a URL at least MIN_EVERY_S."""
    created_at: str
    rev: int
    writer: str
    seen: Mapping[str, Seen] = field(default_factory=dict)
    """By name in a folder whose files are collected each for itself; by "" for the source as a whole."""
    due_at: str = ""
    """When the source is looked at next, where it is not all the time."""
    problem: str = ""
    """Why the source cannot be looked at now."""

    @property
    def is_local(self) -> bool:
        """Whether the source is a file or folder of this machine."""
        return self.source.url.startswith("file:")

    def step(self, **changes: Any) -> Watch:
        """The next revision."""
        return replace(self, rev=self.rev + 1, writer=new_writer(), **changes)

    def to_json(self) -> dict[str, Any]:
        """The object as it is stored."""
        return {
            "id": self.id,
            "recipe": self.recipe,
            "source": self.source.to_json(),
            "every_s": self.every_s,
            "created_at": self.created_at,
            "rev": self.rev,
            "writer": self.writer,
            "seen": {name: [s.stamp, s.job_id, s.problem] for name, s in self.seen.items()},
            "due_at": self.due_at,
            "problem": self.problem,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Watch:
        """The inverse of `to_json`; raises KeyError, TypeError or ValueError on an object of another shape."""
        return Watch(
            id=row["id"],
            recipe=row["recipe"],
            source=SourceSpec.from_json(row["source"]),
            every_s=float(row["every_s"]),
            created_at=row["created_at"],
            rev=int(row["rev"]),
            writer=row["writer"],
            seen={name: Seen(*parts) for name, parts in row["seen"].items()},
            due_at=row["due_at"],
            problem=row["problem"],
        )


class Watches:
    """The use cases of watches, over the store and its jobs. Several processes may work on one store."""

    def __init__(
        self,
        store: Store,
        jobs: JobStore,
        clock: Clock,
        settings: ScraperSettings,
        *,
        submitted: Callable[[], None] = lambda: None,
    ) -> None:
        """`submitted` is called after each job that was submitted, to have it started at once."""
        self._store = store
        self._jobs = jobs
        self._clock = clock
        self._settings = settings
        self._submitted = submitted
        self._unsettled: dict[tuple[str, str], tuple[str, float]] = {}
        """By watch and file: a stamp that has not been collected, and since when it stands."""
        self._collected: dict[tuple[str, str], str] = {}
        """By watch and file: the stamp of what this process had collected. Another replica, on a machine where the file
        has another number and time, notes a stamp of its own; neither takes the other's for a change."""
        self._complained: dict[str, str] = {}

    def put(self, recipe: str, source: SourceSpec, every_s: float) -> Watch:
        """Watch a source from now on; a source that is watched already gets the new interval.

        InvalidInput for a source that cannot change, or an interval out of range; else what `handlers.validate`
        raises, so that a source which could never be collected is refused at once.
        """
        scheme = source.url.partition(":")[0].lower()
        if scheme in _NEVER_CHANGE:
            raise InvalidInput(
                f"{source.url[:200]!r} never changes, so there is nothing to watch; name a file:///… or an https://…",
                reason="SOURCE_NEVER_CHANGES",
                metadata={"value": source.url[:200]},
            )
        local = scheme == "file"
        every_s = every_s or (0.0 if local else DEFAULT_EVERY_S)
        low_s = 0.0 if local else MIN_EVERY_S
        if not low_s <= every_s <= MAX_EVERY_S:
            raise InvalidInput(
                f"every_s={every_s:g} is out of range: it must lie between {low_s:g} and {MAX_EVERY_S:g}",
                metadata={"field": "every_s", "value": f"{every_s:g}"},
            )
        self._check(recipe, source)
        watch_id = content_id("watch", [recipe, source.to_json()])
        if sum(1 for _ in self._store.list(_PREFIX)) >= MAX_WATCHES and self.find(watch_id) is None:
            raise ResourceExhausted(
                f"{MAX_WATCHES} sources are watched, which is the limit; remove one first", reason="TOO_MANY_WATCHES"
            )

        def step(current: Watch | None) -> Watch | None:
            now = rfc3339(self._clock.now())
            if current is None:
                return Watch(watch_id, recipe, source, every_s, now, rev=1, writer=new_writer(), due_at=now)
            return None if current.every_s == every_s else current.step(every_s=every_s, due_at=now)

        watch = self._change(watch_id, step)
        assert watch is not None
        return watch

    def all(self) -> list[Watch]:
        """All watches, oldest first; corrupt ones are logged and left out."""
        found = list_objects(self._store, _PREFIX, Watch.from_json, what="watch")
        return sorted(found, key=lambda watch: (watch.created_at, watch.id))

    def find(self, watch_id: str) -> Watch | None:
        """The watch, or None."""
        key = keys.watch(check_name(watch_id, what="watch id"))
        return find_object(self._store, key, Watch.from_json, what=f"watch {watch_id}")

    def delete(self, watch_id: str) -> None:
        """Watch no longer; what was collected stays. NotFound when there is no such watch."""
        if self.find(watch_id) is None:
            raise NotFound(
                f"there is no watch {watch_id!r}; list them with ListWatches (`tunesmith watches`)",
                metadata={"watch_id": watch_id},
            )
        self._store.delete(keys.watch(watch_id))

    def look_at_all(self) -> None:
        """One look at every watch. An error of one does not hold up the others, and is logged once."""
        watches = self.all()
        for watch in watches:
            try:
                self.look(watch)
            except TunesmithError as error:
                self._complain(watch, error.message)
        ids = {watch.id for watch in watches}
        self._unsettled = {key: value for key, value in self._unsettled.items() if key[0] in ids}
        self._collected = {key: value for key, value in self._collected.items() if key[0] in ids}

    def look(self, watch: Watch) -> None:
        """Collect what has changed, or what is due."""
        now = rfc3339(self._clock.now())
        if watch.every_s and watch.due_at > now:
            return
        if not watch.is_local:
            self._collect(watch, "", watch.source, stamp=watch.due_at, content=watch.due_at)
            self._note(watch, due_at=self._next_due(watch))
            return
        try:
            found = dict(self._found(watch))
        except TunesmithError as error:
            if watch.problem != error.message:
                self._note(watch, problem=error.message)
            return
        settled = [self._look_at(watch, name, *target) for name, target in found.items()]
        changes: dict[str, Any] = {"problem": ""} if watch.problem else {}
        if watch.every_s and all(settled):
            changes["due_at"] = self._next_due(watch)
        gone = watch.seen.keys() - found.keys()
        if gone or changes:
            self._note(watch, gone=gone, **changes)

    def _found(self, watch: Watch) -> Iterator[tuple[str, tuple[SourceSpec, str]]]:
        """What the watched path holds now: name, what to collect, and its stamp.

        A folder is collected as a whole where the recipe takes folders, else file by file.
        """
        source, path = watch.source, path_under_roots(path_of(watch.source.url), self._settings)
        if not path.is_dir():
            yield "", (source, _stamp(_files_of(source, self._settings)))
            return
        if self._takes_folders(watch):
            yield "", (source, _stamp(_walk(path)))
            return
        names = sorted(entry.name for entry in os.scandir(path) if entry.is_file() and not entry.name.startswith("."))
        if len(names) > MAX_FILES:
            raise ResourceExhausted(
                f"the folder {path} holds {len(names)} files, the limit is {MAX_FILES}; watch a smaller one",
                reason="TOO_MANY_FILES",
                metadata={"limit": str(MAX_FILES)},
            )
        for name in names:
            one = replace(
                source,
                url=(path_of(source.url) / name).as_uri(),
                name=f"{source.name}/{name}" if source.name else "",
            )
            try:
                stamp = _stamp(_files_of(one, self._settings))
            except NotFound:
                continue  # it went away between the two looks
            except TunesmithError as error:
                stamp = sha256_hex(error.message.encode())  # noted as the file's problem when it is to be read
            yield name, (one, stamp)

    def _takes_folders(self, watch: Watch) -> bool:
        try:
            validate(CollectRequest(watch.recipe, watch.source), settings=self._settings, store=self._store)
        except InvalidInput as error:
            if error.reason != "NOT_A_FILE":
                raise
            return False
        return True

    def _look_at(self, watch: Watch, name: str, source: SourceSpec, stamp: str) -> bool:
        """Collect a file that has changed and then stood still; False while it is still being written."""
        key = (watch.id, name)
        seen = watch.seen.get(name)
        if seen is not None and stamp in (seen.stamp, self._collected.get(key)):
            self._unsettled.pop(key, None)
            return True
        now_s = self._clock.monotonic_s()
        if self._unsettled.get(key, ("", 0.0))[0] != stamp:
            self._unsettled[key] = (stamp, now_s)
        if now_s - self._unsettled[key][1] < self._settings.watch_settle_s:
            return False
        try:
            content = self._content(source, stamp)
        except TunesmithError as error:
            self._note(watch, name=name, seen=Seen(stamp, problem=error.message))
            return True
        if _stamp(self._targets(source)) != stamp:
            return False  # it was written to while it was read
        self._collect(watch, name, source, stamp=stamp, content=content)
        return True

    def _content(self, source: SourceSpec, stamp: str) -> str:
        """A hash of the content; of a folder its stamp. ResourceExhausted for files larger than may be collected."""
        if path_under_roots(path_of(source.url), self._settings).is_dir():
            return stamp
        digest = hashlib.sha256()
        for url in _urls_of(source):
            with os.fdopen(opened(path_of(url), self._settings), "rb") as file:
                digest.update(_sha256(file, self._settings.max_upload_bytes, url))
        return digest.hexdigest()

    def _targets(self, source: SourceSpec) -> Iterator[tuple[str, os.stat_result]]:
        path = path_under_roots(path_of(source.url), self._settings)
        return _walk(path) if path.is_dir() else _files_of(source, self._settings)

    def _collect(self, watch: Watch, name: str, source: SourceSpec, *, stamp: str, content: str) -> None:
        """Submit the job and note it. Content that was collected before joins its job, which starts nothing.

        A job that failed is tried again when the file was touched, or at the URL's next time.
        """
        request = CollectRequest(watch.recipe, source)
        try:
            self._check(watch.recipe, source)
        except TunesmithError as error:
            self._note(watch, name=name, seen=Seen(stamp, problem=error.message))
            self._complain(watch, error.message)
            return
        job, created = self._jobs.submit_by_content(
            kind="collect",
            service="scraper",
            request={**request.to_json(), "watch_id": watch.id, "content": content},
            request_id=stamp,
        )
        if created:
            log.info("watch %s: %s has changed; job %s collects it", watch.id, source.url, job.id)
            self._submitted()
        self._collected[watch.id, name] = stamp
        self._note(watch, name=name, seen=Seen(stamp, job_id=job.id))

    def _check(self, recipe: str, source: SourceSpec) -> None:
        """Raise for what can never be collected; a folder of files passes when it may be read."""
        try:
            validate(CollectRequest(recipe, source), settings=self._settings, store=self._store)
        except InvalidInput as error:
            folder = error.reason == "NOT_A_FILE" and path_under_roots(path_of(source.url), self._settings).is_dir()
            if not folder or source.join is not None:
                raise

    def _next_due(self, watch: Watch) -> str:
        """The first time after now that lies a whole number of intervals after the last one that was due."""
        now, due = self._clock.now(), datetime.fromisoformat(watch.due_at)
        intervals = max(0, (now - due) // timedelta(seconds=watch.every_s)) + 1
        return rfc3339(due + intervals * timedelta(seconds=watch.every_s))

    def _note(
        self,
        watch: Watch,
        *,
        name: str = "",
        seen: Seen | None = None,
        gone: frozenset[str] | set[str] = frozenset(),
        **changes: Any,
    ) -> None:
        """Write what was seen, unless the watch was removed meanwhile."""

        def step(current: Watch | None) -> Watch | None:
            if current is None:
                return None
            entries = {key: value for key, value in current.seen.items() if key not in gone}
            if seen is not None:
                entries[name] = seen
            changed = replace(current, seen=entries, **changes)
            return None if changed == current else current.step(seen=entries, **changes)

        self._change(watch.id, step)

    def _change(self, watch_id: str, step: Callable[[Watch | None], Watch | None]) -> Watch | None:
        found, _ = change_object(
            self._store, keys.watch(watch_id), step, parse=Watch.from_json, what=f"watch {watch_id}"
        )
        return found

    def _complain(self, watch: Watch, message: str) -> None:
        if self._complained.get(watch.id) != message:
            self._complained[watch.id] = message
            log.error("watch %s of %s: %s", watch.id, watch.source.url, message)


_PREFIX = keys.watch("|").partition("|")[0]


def _urls_of(source: SourceSpec) -> list[str]:
    """The local files that a source reads: its own, and the one it is joined with."""
    joined = source.join.url if source.join is not None else ""
    return [source.url, *([joined] if joined.startswith("file:") else [])]


def _files_of(source: SourceSpec, settings: ScraperSettings) -> Iterator[tuple[str, os.stat_result]]:
    for url in _urls_of(source):
        descriptor = opened(path_of(url), settings)
        try:
            yield url, os.fstat(descriptor)
        finally:
            os.close(descriptor)


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file below a folder, but for hidden ones and links."""
    number = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            number += 1
            if number > MAX_WALKED:
                raise ResourceExhausted(
                    f"the folder {folder} holds more than {MAX_WALKED} files; watch a smaller one",
                    reason="TOO_MANY_FILES",
                    metadata={"limit": str(MAX_WALKED)},
                )
            try:
                found = Path(parent, name).lstat()
            except OSError:
                continue  # it went away between the two looks
            if stat.S_ISREG(found.st_mode) and not name.startswith("."):
                yield str(Path(parent, name)), found


def _stamp(files: Iterator[tuple[str, os.stat_result]]) -> str:
    """Changes when a file does, without reading it: a hash over names, sizes, times of change and file numbers."""
    rows = [[name, f.st_size, f.st_mtime_ns, f.st_ctime_ns, f.st_ino] for name, f in files]
    return hashlib.sha256(canonical_json(rows)).hexdigest()[:32]


def _sha256(file: BinaryIO, max_bytes: int, url: str) -> bytes:
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK_BYTES):
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise ResourceExhausted(
                f"{url} is larger than {max_bytes} bytes; split it, or raise TUNESMITH_SCRAPER_MAX_UPLOAD_BYTES",
                reason="FILE_TOO_LARGE",
                metadata={"source": url, "limit": str(max_bytes)},
            )
        digest.update(chunk)
    return digest.digest()
