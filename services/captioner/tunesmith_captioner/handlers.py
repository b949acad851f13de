"""Use cases of the captioner: plan a captioning, and make a collection with captions of one with media."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.catalogue import read_object
from tunesmith.domain import keys
from tunesmith.domain.errors import DataLoss, Interrupted, InvalidInput, NotFound
from tunesmith.domain.ids import canonical_json, content_id
from tunesmith.domain.jobs import Progress, ProgressReporter
from tunesmith.domain.records import Collection, Record
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.store import Store
from tunesmith.recipes import recipe_named
from tunesmith.stored_collections import create_once, read_collection
from tunesmith_captioner.captioners import Installed, choose
from tunesmith_captioner.captioning import KIND_OF, Captioned, Captioner
from tunesmith_captioner.decode.limits import DECODER_CRASHED, OUT_OF_MEMORY, TOO_SLOW, DecodeLimits, Unreadable

if TYPE_CHECKING:
    from tunesmith_captioner.captioning import Clip

FORMAT = 1
"""Part of every derived collection's identity; raised when the same captions would be written differently."""

CAPTION_ERROR = "caption_error"
"""Field of a record that could not be captioned; holds the reason."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MACHINE_REASONS = frozenset({TOO_SLOW, OUT_OF_MEMORY, DECODER_CRASHED, "no_media"})
"""Failures that another time or another machine may not have: not kept for other collections."""


@dataclass(frozen=True, slots=True)
class CaptionRequest:
    """Which collection to caption, and by whom: names and versions of captioners, sorted."""

    recipe: str
    collection_id: str
    captioners: tuple[tuple[str, str], ...]
    clip_s: int

    @property
    def derived_id(self) -> str:
        """The collection that results. The same records, captioners and clip length give the same one."""
        return content_id(
            "col",
            ["captions", FORMAT, self.recipe, self.collection_id, [list(one) for one in self.captioners], self.clip_s],
        )

    @property
    def derived_by(self) -> str:
        """`signal-audio 1, signal-video 1`."""
        return ", ".join(f"{name} {version}" for name, version in self.captioners)

    def to_json(self) -> dict[str, Any]:
        """The request as it is kept in a job."""
        return {
            "recipe": self.recipe,
            "collection_id": self.collection_id,
            "captioners": [list(one) for one in self.captioners],
            "clip_s": self.clip_s,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> CaptionRequest:
        """The inverse of `to_json`."""
        captioners = tuple((str(name), str(version)) for name, version in row["captioners"])
        return CaptionRequest(row["recipe"], row["collection_id"], captioners, int(row["clip_s"]))


@dataclass(frozen=True, slots=True)
class CaptionedCollection:
    """The outcome of `caption`."""

    collection: Collection
    failures: Mapping[str, int]
    """Number of records that hold a `caption_error`, by reason."""
    reused: bool
    """Whether the collection existed already."""

    @property
    def num_failed(self) -> int:
        """Records without all their captions."""
        return sum(self.failures.values())

    def to_json(self) -> dict[str, Any]:
        """The outcome as a job's result."""
        return {"collection": self.collection.to_json(), "failures": dict(self.failures), "reused": self.reused}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> CaptionedCollection:
        """The inverse of `to_json`."""
        return CaptionedCollection(Collection.from_json(row["collection"]), dict(row["failures"]), row["reused"])


def plan_captions(
    store: Store, recipe_name: str, collection_id: str, wanted: Sequence[str], *, clip_s: int
) -> CaptionRequest:
    """The request with everything resolved.

    Raises UnknownRecipe; NotFound for a collection; FailedPrecondition (NO_CAPTIONER); InvalidInput for two captioners
    of one kind, for a collection that is derived itself, and for a recipe whose records need no captions.
    """
    recipe = recipe_named(recipe_name)
    chosen = choose(wanted)
    collection = read_collection(store, recipe.name, collection_id)
    if recipe.needs != "captions":
        raise InvalidInput(
            f"recipe {recipe.name!r} learns from records that need no captions: go on with BuildDataset",
            reason="NO_CAPTIONS_NEEDED",
            metadata={"recipe": recipe.name},
        )
    if collection.derived_from:
        raise InvalidInput(
            f"collection {collection_id} has captions already; caption the one it was made from, "
            f"{collection.derived_from}",
            reason="CAPTIONED_ALREADY",
            metadata={"collection_id": collection_id, "derived_from": collection.derived_from},
        )
    return CaptionRequest(recipe.name, collection_id, tuple((one.name, one.version) for one in chosen), clip_s)


def caption(
    request: CaptionRequest,
    *,
    store: Store,
    clock: Clock,
    limits: DecodeLimits,
    num_decoders: int,
    batch_size: int,
    report: ProgressReporter,
    should_stop: Callable[[], bool],
    scratch: Path,
) -> CaptionedCollection:
    """Caption every record's clip and store the records, with captions added, as a collection of its own.

    What a captioner made of a media file is kept under the file's hash and the captioner's version, so that another
    attempt, or another collection with the same file, repeats nothing. The manifest is written last. Of each
    `batch_size` clips `num_decoders` are decoded at once, each in a child process; `scratch` must exist and is left as
    it was.

    Raises NotFound for the collection, FailedPrecondition when a captioner is gone or has another version now,
    DataLoss for a corrupt shard, Interrupted soon after `should_stop()` turns true.
    """
    source = read_collection(store, request.recipe, request.collection_id)
    manifest_key = keys.collection(request.recipe, request.derived_id)
    if store.exists(manifest_key):
        derived = read_collection(store, request.recipe, request.derived_id)
        return CaptionedCollection(derived, _failures(store, derived), reused=True)
    captioners = _Captioners(_installed(request))
    derived = replace(
        source,
        id=request.derived_id,
        shards=tuple(
            keys.record_shard(request.recipe, request.derived_id, number) for number in range(len(source.shards))
        ),
        derived_from=source.id,
        derived_by=request.derived_by,
        created_at=rfc3339(clock.now()),
    )
    failures: Counter[str] = Counter()
    work = _Work(store, limits, captioners, num_decoders, should_stop, scratch)
    done = 0
    report(Progress("caption", 0, source.num_records, "clips"))
    for source_key, derived_key in zip(source.shards, derived.shards, strict=True):
        rows: list[bytes] = []
        records = list(_records(store, source_key))
        for start in range(0, len(records), batch_size):
            batch = records[start : start + batch_size]
            if should_stop():
                raise Interrupted(f"captioning was stopped after {done} clips; they are kept")
            for record in work.captioned(batch):
                failures.update([record.fields[CAPTION_ERROR]] if CAPTION_ERROR in record.fields else [])
                rows.append(canonical_json(record.to_json()) + b"\n")
            done += len(batch)
            failed = failures.total()
            values = {"failed": float(failed)} if failed else {}
            report(Progress("caption", done, source.num_records, "clips", values=values))
        create_once(store, derived_key, b"".join(rows))
    if not create_once(store, manifest_key, canonical_json(derived.to_json())):
        derived = read_collection(store, request.recipe, request.derived_id)
        return CaptionedCollection(derived, _failures(store, derived), reused=True)
    return CaptionedCollection(derived, dict(sorted(failures.items())), reused=False)


class _Captioners:
    """The request's captioners, each loaded when it is first needed: a job whose captions are all kept loads none."""

    def __init__(self, installed: Sequence[Installed]) -> None:
        self.installed = installed
        self._loaded: dict[str, Captioner] = {}

    def loaded(self, one: Installed) -> Captioner:
        if one.name not in self._loaded:
            self._loaded[one.name] = one.load()
        return self._loaded[one.name]


class _Work:
    """Captions batches of records."""

    def __init__(
        self,
        store: Store,
        limits: DecodeLimits,
        captioners: _Captioners,
        num_decoders: int,
        should_stop: Callable[[], bool],
        scratch: Path,
    ) -> None:
        self._store = store
        self._limits = limits
        self._captioners = captioners
        self._num_decoders = num_decoders
        self._should_stop = should_stop
        self._scratch = scratch

    def captioned(self, batch: Sequence[Record]) -> Iterator[Record]:
        """The records with their captions, in order."""
        found: dict[str, dict[str, Captioned]] = {}
        for media in dict.fromkeys(record.fields.get("media", "") for record in batch):
            found[media] = self._kept(media) if _SHA256.fullmatch(media) else self._all_failed("no_media")
        missing = [media for media, made in found.items() if len(made) < len(self._captioners.installed)]
        if missing:
            self._make(missing, found)
        for record in batch:
            yield self._with_captions(record, found[record.fields.get("media", "")])

    def _kept(self, media: str) -> dict[str, Captioned]:
        """What captioners made of the file before, by name."""
        made = {}
        for one in self._captioners.installed:
            try:
                key = self._caption_key(media, one)
                made[one.name] = read_object(self._store, key, Captioned.from_json, what=f"the captions {key}")
            except NotFound:
                continue
        return made

    def _make(self, missing: Sequence[str], found: dict[str, dict[str, Captioned]]) -> None:
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="caption-") as folder:
            with ThreadPoolExecutor(self._num_decoders, thread_name_prefix="decode") as pool:
                decoded = dict(
                    zip(
                        missing, pool.map(lambda media: self._decoded(media, Path(folder, media)), missing), strict=True
                    )
                )
            for media in missing:
                if isinstance(outcome := decoded[media], Unreadable):
                    found[media] = self._all_failed(outcome.reason)
                    if outcome.reason not in _MACHINE_REASONS:
                        for one in self._captioners.installed:
                            self._keep(media, one, found[media][one.name])
            for one in self._captioners.installed:
                clips = {
                    media: clip
                    for media, clip in decoded.items()
                    if not isinstance(clip, Unreadable) and one.name not in found[media]
                }
                if not clips:
                    continue
                if self._should_stop():
                    raise Interrupted("captioning was stopped; the clips before this batch are kept")
                for media, made in zip(clips, self._captioners.loaded(one).caption([*clips.values()]), strict=True):
                    found[media][one.name] = made
                    self._keep(media, one, made)

    def _decoded(self, media: str, folder: Path) -> Clip | Unreadable:
        """The file's clip, cut and stored if it was not; or why there is none."""
        from tunesmith_captioner.decode.process import decode

        if self._should_stop():
            raise Interrupted("captioning was stopped; the clips before this batch are kept")
        folder.mkdir()
        clip_key = keys.clip(media, self._limits.clip_s)
        clip, source = folder / "clip.mkv", folder / "media"
        try:
            try:
                self._store.get_file(clip_key, clip)
                return decode(clip, source=None, folder=folder, limits=self._limits)
            except NotFound:
                self._fetch(media, source)
            made = decode(clip, source=source, folder=folder, limits=self._limits)
            source.unlink()
            self._store.put_file(clip_key, clip)
            return made
        except Unreadable as error:
            return error

    def _fetch(self, media: str, path: Path) -> None:
        key = keys.media(media)
        size_bytes = next((info.size_bytes for info in self._store.list(key) if info.key == key), None)
        if size_bytes is None:
            raise Unreadable("no_media", f"{key} is not in the store")
        if size_bytes > self._limits.max_media_bytes:
            raise Unreadable("too_large", f"{size_bytes} bytes, the limit is {self._limits.max_media_bytes}")
        self._store.get_file(key, path)

    def _all_failed(self, reason: str) -> dict[str, Captioned]:
        return {one.name: Captioned(error=reason) for one in self._captioners.installed}

    def _caption_key(self, media: str, one: Installed) -> str:
        return keys.captions(media, one.name, one.version, self._limits.clip_s)

    def _keep(self, media: str, one: Installed, made: Captioned) -> None:
        # A captioner is deterministic, so whoever wrote first wrote the same.
        create_once(self._store, self._caption_key(media, one), canonical_json(made.to_json()))

    def _with_captions(self, record: Record, made: Mapping[str, Captioned]) -> Record:
        fields = dict(record.fields)
        captions: list[dict[str, Any]] = []
        errors: list[str] = []
        for one in self._captioners.installed:
            captioned, kind = made[one.name], KIND_OF[one.media_kind]
            if captioned.error:
                errors.append(captioned.error)
                continue
            fields[kind] = captioned.text
            if captioned.tags:
                fields["tags"] = json.dumps(list(captioned.tags), ensure_ascii=False)
            fields.update(captioned.facts or {})
            captions += [
                {
                    "captioner": one.name,
                    "version": one.version,
                    "kind": kind,
                    "start_s": window.start_s,
                    "end_s": window.end_s,
                    "text": window.text,
                }
                for window in captioned.captions
            ]
        if captions:
            fields["captions"] = json.dumps(captions, ensure_ascii=False)
            fields["clip"] = keys.clip(fields["media"], self._limits.clip_s)
        if errors:
            fields[CAPTION_ERROR] = errors[0]
        return replace(record, fields=fields)


def _installed(request: CaptionRequest) -> tuple[Installed, ...]:
    chosen = choose([name for name, _ in request.captioners])
    found = tuple((one.name, one.version) for one in chosen)
    if found != request.captioners:
        raise InvalidInput(
            f"this job asks for {request.derived_by}, here are {', '.join(' '.join(one) for one in found)}; "
            "send the request again",
            reason="CAPTIONER_CHANGED",
        )
    return chosen


def _records(store: Store, key: str) -> Iterator[Record]:
    try:
        for line in store.get(key).data.splitlines():
            yield Record.from_json(json.loads(line))
    except (NotFound, ValueError, KeyError, TypeError) as error:
        raise DataLoss(
            f"the record shard {key} is missing or corrupt ({type(error).__name__}); collect the source again",
            reason="CORRUPT_SHARD",
            metadata={"key": key},
        ) from error


def _failures(store: Store, collection: Collection) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for key in collection.shards:
        counts.update(r.fields[CAPTION_ERROR] for r in _records(store, key) if CAPTION_ERROR in r.fields)
    return dict(sorted(counts.items()))
