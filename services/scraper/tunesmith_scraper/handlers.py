"""Use cases of the scraper: check a request, collect a source into shards, keep an upload."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.domain import keys
from tunesmith.domain.errors import Interrupted, ResourceExhausted, SourceUnusable
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.jobs import Progress, ProgressReporter
from tunesmith.domain.records import Collection, Record
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.store import Store
from tunesmith.recipes import recipe_named
from tunesmith.recipes.base import Recipe
from tunesmith.stored_collections import MAX_SHARD_RECORDS, RecordSpool, publish_collection
from tunesmith_scraper import media
from tunesmith_scraper.formats.layout import Skipped
from tunesmith_scraper.settings import ScraperSettings, environment_name
from tunesmith_scraper.sources import check_spec, rows_of
from tunesmith_scraper.sources.base import SourceSpec

if TYPE_CHECKING:
    # The HTTP client takes a moment to import; a server that only accepts work does without.
    from tunesmith_scraper.politeness import PoliteFetcher

_ROWS_BETWEEN_REPORTS = 500


@dataclass(frozen=True, slots=True)
class CollectRequest:
    """One source to collect for one recipe."""

    recipe: str
    source: SourceSpec

    def to_json(self) -> dict[str, Any]:
        """The request as it is kept in a job."""
        return {"recipe": self.recipe, "source": self.source.to_json()}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> CollectRequest:
        """The inverse of `to_json`."""
        return CollectRequest(row["recipe"], SourceSpec.from_json(row["source"]))


@dataclass(frozen=True, slots=True)
class Collected:
    """The outcome of `collect`."""

    collection: Collection
    reused: bool
    """Whether an equal collection existed already; then `collection` is that first one."""
    skipped: Mapping[str, int]
    """Number of rows left out, by reason. With `collection.num_records` it adds up to the rows that were read."""

    def to_json(self) -> dict[str, Any]:
        """The outcome as a job's result."""
        return {"collection": self.collection.to_json(), "reused": self.reused, "skipped": dict(self.skipped)}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Collected:
        """The inverse of `to_json`."""
        return Collected(Collection.from_json(row["collection"]), row["reused"], dict(row["skipped"]))


def validate(request: CollectRequest, *, settings: ScraperSettings, store: Store) -> None:
    """Raise at once, without network, for a request that can never work.

    UnknownRecipe; InvalidInput for an unknown scheme or format, a selector that is missing or cannot be read, columns
    where there are none; PermissionRefused for a path outside the file roots, or a licence that may not be collected;
    NotFound for a file or upload that does not exist.
    """
    _check(request.source, recipe_named(request.recipe), settings, store)


def collect(
    request: CollectRequest,
    *,
    store: Store,
    clock: Clock,
    fetcher: PoliteFetcher,
    settings: ScraperSettings,
    report: ProgressReporter,
    should_stop: Callable[[], bool],
    scratch: Path,
) -> Collected:
    """Read the request's source and store its records as a collection.

    The collection's id follows from the recipe, the source spec and the records in order, so that collecting equal
    content again gives the collection that exists. The manifest is written last: whoever dies before leaves shards
    that nothing points to. Memory does not grow with the number of records; they are spooled under `scratch`, which
    must be an existing folder and is left as it was.

    Raises what `validate` raises; SourceUnusable when the content is not what was promised or holds no record;
    PermissionRefused (licence, robots.txt, address); ResourceExhausted past a limit; Unavailable and DeadlineExceeded
    from the network; Interrupted soon after `should_stop()` turns true.
    """
    recipe = recipe_named(request.recipe)
    _check(request.source, recipe, settings, store)
    skipped: Counter[str] = Counter()
    report(Progress("fetch", message=request.source.url))
    with tempfile.TemporaryDirectory(dir=scratch, prefix="collect-") as folder:
        identity = _Identity(request)
        with RecordSpool(Path(folder)) as spool:
            read = media.batch_of if recipe.needs == media.NEED else _table
            batch = read(
                request.source,
                recipe,
                store=store,
                clock=clock,
                fetcher=fetcher,
                settings=settings,
                scratch=Path(folder),
            )
            with closing(batch.rows) as rows:
                for number, row in enumerate(rows, start=1):
                    if isinstance(row, Skipped):
                        skipped[row.reason] += 1
                    elif spool.num_records == settings.max_records:
                        raise _too_many_records(request.source, settings)
                    else:
                        spool.add(row)
                        identity.add(row)
                    if batch.num_files or number == 1 or number % _ROWS_BETWEEN_REPORTS == 0:
                        _stop_if_asked(should_stop, spool.num_records)
                        report(_read_progress(batch, number, spool.num_records))
        if spool.num_records == 0:
            raise _no_records(request.source, skipped)
        report(Progress("store", done=0, total=spool.num_records, unit="records"))
        collection, reused = publish_collection(
            store,
            Collection(
                id=identity.collection_id,
                recipe=request.recipe,
                source=request.source.display_name,
                num_records=spool.num_records,
                shards=spool.shard_keys(request.recipe, identity.collection_id),
                licences=dict(sorted(spool.licences.items())),
                created_at=rfc3339(clock.now()),
            ),
            spool.paths,
            before_each=lambda: _stop_if_asked(should_stop, spool.num_records),
        )
    report(Progress("done", done=collection.num_records, total=collection.num_records, unit="records"))
    return Collected(collection, reused, dict(sorted(skipped.items())))


def _check(spec: SourceSpec, recipe: Recipe, settings: ScraperSettings, store: Store) -> None:
    check = media.check_spec if recipe.needs == media.NEED else check_spec
    check(spec, recipe, settings=settings, store=store)


def _table(spec: SourceSpec, recipe: Recipe, **parts: Any) -> media.Batch:
    """The rows of a source that are records as they stand; how many there are shows at the end."""
    return media.Batch(0, rows_of(spec, recipe, **parts))


def _read_progress(batch: media.Batch, num_read: int, num_records: int) -> Progress:
    if batch.num_files:
        return Progress("read", done=num_read, total=batch.num_files, unit="files")
    return Progress("read", done=num_records, unit="records")


def save_upload(store: Store, chunks: Iterable[bytes], *, max_bytes: int, scratch: Path) -> str:
    """Keep uploaded bytes under their hex SHA-256 and return it; the same bytes again change nothing.

    The bytes are spooled under `scratch`, so memory stays flat. ResourceExhausted past `max_bytes`, SourceUnusable
    for an empty upload.
    """
    digest = hashlib.sha256()
    size_bytes = 0
    with tempfile.TemporaryDirectory(dir=scratch, prefix="upload-") as folder:
        path = Path(folder, "body")
        with path.open("wb") as file:
            for chunk in chunks:
                size_bytes += len(chunk)
                if size_bytes > max_bytes:
                    raise ResourceExhausted(
                        f"the upload is larger than {max_bytes} bytes; send less, "
                        f"or raise {environment_name('max_upload_bytes')}",
                        reason="UPLOAD_TOO_LARGE",
                        metadata={"limit": str(max_bytes), "setting": environment_name("max_upload_bytes")},
                    )
                digest.update(chunk)
                file.write(chunk)
        if size_bytes == 0:
            raise SourceUnusable("the upload is empty; send a file with at least one row", reason="SOURCE_EMPTY")
        sha256 = digest.hexdigest()
        if not store.exists(keys.upload(sha256)):
            store.put_file(keys.upload(sha256), path)
    return sha256


class _Identity:
    """The id of a collection: it follows from the recipe, the source spec and the records in order."""

    def __init__(self, request: CollectRequest) -> None:
        self._hash = hashlib.sha256(
            canonical_json(["collection", 1, request.recipe, request.source.to_json(), MAX_SHARD_RECORDS])
        )

    def add(self, record: Record) -> None:
        """Take in the next record. Its licence counts: the same names under another licence are another thing."""
        licence = record.provenance.licence
        self._hash.update(canonical_json([record.id, licence.id, licence.url]))

    @property
    def collection_id(self) -> str:
        """The id of the records added so far."""
        return f"col-{self._hash.hexdigest()[:16]}"


def _stop_if_asked(should_stop: Callable[[], bool], num_records: int) -> None:
    if should_stop():
        raise Interrupted(f"collecting was stopped after {num_records} records; nothing was published")


def _too_many_records(spec: SourceSpec, settings: ScraperSettings) -> ResourceExhausted:
    name = environment_name("max_records")
    return ResourceExhausted(
        f"{spec.url} has more than {settings.max_records} records; split the source, or raise {name}",
        reason="TOO_MANY_RECORDS",
        metadata={"limit": str(settings.max_records), "setting": name, "source": spec.url},
    )


def _no_records(spec: SourceSpec, skipped: Mapping[str, int]) -> SourceUnusable:
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "no rows"
    return SourceUnusable(
        f"{spec.url} gave no record ({counts}); check the column, key or selector",
        reason="NO_RECORDS",
        metadata={"source": spec.url} | {f"skipped.{reason}": str(count) for reason, count in skipped.items()},
    )
