"""Objects that nothing refers to any more: what killed, failed or cancelled jobs left, and what lost its last referrer.

Manifests are written last, so an object is in use when its manifest is there, or when a manifest or a row of a
collection mentions it. Everything else that is old enough is a leftover. Jobs, models, reports, sweeps and whatever
else is a result by itself never is.

A running job may use an old object before it says so anywhere. So objects of a kind are removed only while no job that
could use that kind is under way and none has come since the manifests were read. A job's marker is there before its
worker starts, which takes longer than `RECHECK_S`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tunesmith.domain.errors import NotFound, TunesmithError
from tunesmith.jobs.state import JobStore
from tunesmith.ports.clock import Clock
from tunesmith.ports.store import ObjectInfo, Store

DEFAULT_AGE_S = 7 * 86_400.0
LEAST_AGE_S = 3600.0
"""Younger objects may belong to what is being put together just now, or the store's clock may be ahead."""

RECHECK_S = 0.1
"""How old the look at the running jobs may be when an object is removed."""

_SHA256 = re.compile(rb"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of objects that can be left over."""

    name: str
    prefix: str
    used_by: frozenset[str]
    """Kinds of jobs that may use such an object before anything refers to it."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """An object that nothing refers to."""

    kind: Kind
    object: ObjectInfo


def _kind(name: str, prefix: str, *used_by: str) -> Kind:
    return Kind(name, prefix, frozenset(used_by))


_TRAINING = ("tune", "sweep", "judge", "publish")
_UPLOADS = _kind("uploads", "uploads/", "collect")
_MEDIA = _kind("media", "media/", "collect", "caption")
_MEDIA_SOURCES = _kind("media sources", "media-sources/", "collect")
_CLIPS = _kind("clips", "clips/", "caption")
_CAPTIONS = _kind("captions", "captions/", "caption")
_RECORDS = _kind("records", "records/", "collect", "caption", "write")
_PAIRS = _kind("answers of unfinished writing", "pairs/", "write")
_DATASETS = _kind("datasets", "datasets/", "curate")
_RUNS = _kind("runs", "runs/", *_TRAINING)
_BASES = _kind("base models", "bases/", *_TRAINING)
_PUBLICATIONS = _kind("publications", "publications/", "publish")
_REPORTS = _kind("report pages", "reports/", "judge")
_SWEEPS = _kind("sweep pages", "sweeps/", "sweep")
_CATALOGUES = _kind("catalogues", "catalogues/", "judge", "sweep")
_PROBES = _kind("probes", "probes/")

KINDS = (
    _UPLOADS, _MEDIA, _MEDIA_SOURCES, _CLIPS, _CAPTIONS, _RECORDS, _PAIRS, _DATASETS, _RUNS, _BASES, _PUBLICATIONS,
    _REPORTS, _SWEEPS, _CATALOGUES, _PROBES,
)  # fmt: skip


_BY_CONTENT = (_UPLOADS, _MEDIA, _CLIPS, _CAPTIONS)
"""Named by the SHA-256 of their content, or of the medium that they were made from."""


class Leftovers:
    """Finds leftovers when made; `remove` deletes them."""

    def __init__(self, store: Store, clock: Clock, *, older_than_s: float = DEFAULT_AGE_S) -> None:
        self._store = store
        self._clock = clock
        self._jobs = JobStore(store, clock)
        self._oldest_kept_s = clock.now().timestamp() - older_than_s
        self._known_jobs = frozenset(self._jobs.all_ids())
        self.busy = self._busy()
        """Kinds of jobs that are under way; `""` for one that is being submitted. Their objects are not looked at."""
        self.found = tuple(self._find())

    def remove(self, removed: Callable[[Leftover], None]) -> frozenset[str]:
        """Remove what was found, telling each; returns the kinds of jobs that came meanwhile, whose objects stay."""
        came = frozenset(self._kind_of(job) for job in set(self._jobs.all_ids()) - self._known_jobs)
        looked_s = float("-inf")
        for leftover in self.found:
            if self._clock.monotonic_s() - looked_s > RECHECK_S:
                came |= self._busy() - self.busy
                looked_s = self._clock.monotonic_s()
            if not self._may_use(leftover.kind, came):
                self._store.delete(leftover.object.key)
                removed(leftover)
        return came

    def skipped(self, came: frozenset[str] = frozenset()) -> list[str]:
        """Names of the kinds that are not looked at because jobs may be using them."""
        return [kind.name for kind in KINDS if self._may_use(kind, self.busy | came)]

    @staticmethod
    def _may_use(kind: Kind, jobs: frozenset[str]) -> bool:
        return bool(kind.used_by & jobs) or ("" in jobs and bool(kind.used_by))

    def _busy(self) -> frozenset[str]:
        return frozenset(self._kind_of(job) for job in self._jobs.active_ids())

    def _kind_of(self, job_id: str) -> str:
        """A job's kind; empty while its object is not there, or cannot be read."""
        try:
            job = self._jobs.get(job_id)
        except TunesmithError:
            return ""
        # Of a job that has ended only events are outstanding; what it made is referred to by now.
        return "ended" if job.is_terminal else job.kind

    def _find(self) -> Iterator[Leftover]:
        mentioned: _Mentions | None = None
        for kind in KINDS:
            if self._may_use(kind, self.busy):
                continue
            if kind in _BY_CONTENT:
                mentioned = mentioned or _Mentions(self._store, self._hashes_of_old_objects())
            in_use = mentioned if kind in _BY_CONTENT and mentioned else _CHECKS[kind.name](self._store)
            for found in self._old(kind):
                if not in_use(found.key):
                    yield Leftover(kind, found)

    def _old(self, kind: Kind) -> Iterator[ObjectInfo]:
        return (found for found in self._store.list(kind.prefix) if found.modified_s < self._oldest_kept_s)

    def _hashes_of_old_objects(self) -> set[str]:
        return {sha256 for kind in _BY_CONTENT for found in self._old(kind) for sha256 in _named(found.key)}


InUse = Callable[[str], bool]
"""Whether the object under a key is in use."""


class _Mentions:
    """Which of the content hashes in old keys some document mentions: a collection, its rows, a watch, a catalogue."""

    def __init__(self, store: Store, wanted: set[str]) -> None:
        documents = [
            found.key
            for prefix in ("collections/", "watches/", "catalogues/")
            for found in store.list(prefix)
            if found.key.endswith(".json")
        ]
        self._found: set[str] = set()
        for key in (*documents, *sorted(_shards(store))):
            self._found |= _hashes(store, key) & wanted

    def __call__(self, key: str) -> bool:
        return not self._found.isdisjoint(_named(key))


def _named(key: str) -> set[str]:
    return {found.decode() for found in _SHA256.findall(key.encode())}


def _media_sources(store: Store) -> InUse:
    """Hints that lead to a medium that is there."""

    def in_use(key: str) -> bool:
        return any(store.exists(f"media/{sha256}") for sha256 in _hashes(store, key))

    return in_use


def _hashes(store: Store, key: str) -> set[str]:
    try:
        return {found.decode() for found in _SHA256.findall(store.get(key).data)}
    except NotFound:
        return set()


def _shards(store: Store) -> set[str]:
    """Keys of the record shards that collections consist of."""
    known = re.compile(rb'"(records/[^"\\]+)"')
    shards: set[str] = set()
    for found in store.list("collections/"):
        try:
            shards |= {key.decode() for key in known.findall(store.get(found.key).data)}
        except NotFound:
            continue
    return shards


def _in_shards(store: Store) -> InUse:
    shards = _shards(store)
    return shards.__contains__


def _with_manifest(manifest: str, *, depth: int, temporary: str = "") -> Callable[[Store], InUse]:
    """Objects below a folder of `depth` segments that holds `manifest`, except those below `temporary` in it."""

    def check(store: Store) -> InUse:
        whole: dict[str, bool] = {}

        def in_use(key: str) -> bool:
            segments = key.split("/")
            folder = "/".join(segments[:depth])
            if folder not in whole:
                whole[folder] = store.exists(f"{folder}/{manifest}")
            return whole[folder] and not (temporary and segments[depth] == temporary)

        return in_use

    return check


def _beside(suffix: str, document: str) -> Callable[[Store], InUse]:
    """Objects that end with `suffix` where the `document` of the same name is there; all that end otherwise."""

    def check(store: Store) -> InUse:
        return lambda key: not key.endswith(suffix) or store.exists(key.removesuffix(suffix) + document)

    return check


def _whole_batches(_: Store) -> InUse:
    """Single answers are needed until their batch is whole."""
    return lambda key: key.endswith(".json") and key.count("/") == 2


def _bases_of_runs(store: Store) -> InUse:
    """Base models that an adapter or a publication belongs to."""
    named = re.compile(rb'"base_fingerprint": ?"([^"]+)"')
    used: set[str] = set()
    for prefix, document in (("runs/", "/run.json"), ("publications/", "/manifest.json")):
        for found in store.list(prefix):
            if found.key.endswith(document):
                used |= {name.decode() for name in named.findall(store.get(found.key).data)}
    return lambda key: key.split("/")[1] in used


def _catalogues(store: Store) -> InUse:
    """Lists of names that a recipe's catalogue, or a report that was measured with it, mentions."""
    mentions: set[str] = set()
    for prefix in ("catalogues/", "reports/", "sweeps/"):
        for found in store.list(prefix):
            if found.key.endswith(".json"):
                mentions |= _hashes(store, found.key)
    return lambda key: key.endswith(".json") or not mentions.isdisjoint(_named(key))


def _never(_: Store) -> InUse:
    return lambda _key: False


_CHECKS: dict[str, Callable[[Store], InUse]] = {
    _MEDIA_SOURCES.name: _media_sources,
    _RECORDS.name: _in_shards,
    _PAIRS.name: _whole_batches,
    _DATASETS.name: _with_manifest("manifest.json", depth=3),
    _RUNS.name: _with_manifest("run.json", depth=3, temporary="checkpoints"),
    _BASES.name: _bases_of_runs,
    _PUBLICATIONS.name: _with_manifest("manifest.json", depth=2),
    _REPORTS.name: _beside(".html", ".json"),
    _SWEEPS.name: _beside(".html", ".json"),
    _CATALOGUES.name: _catalogues,
    _PROBES.name: _never,
}
