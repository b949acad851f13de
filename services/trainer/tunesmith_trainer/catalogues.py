"""Catalogues: lists of names that exist, one a recipe, against which the judge measures answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from tunesmith.catalogue import read_object
from tunesmith.domain import keys
from tunesmith.domain.datasets import Dataset
from tunesmith.domain.errors import DataLoss, InvalidInput, NotFound, ResourceExhausted
from tunesmith.domain.ids import canonical_json, sha256_hex
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.store import Store
from tunesmith.stored_collections import read_collection

MAX_CATALOGUE_BYTES = 64 * 2**20
"""The judge holds a catalogue in memory."""

MAX_NAME_CHARS = 500
SAMPLE_SCHEME = "sample:"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A recipe's catalogue; its names lie in an object of their own, named by their hash."""

    recipe: str
    hash: str
    """Hex SHA-256 of the names, sorted, one a line."""
    num_names: int
    created_at: str

    def to_json(self) -> dict[str, Any]:
        """The catalogue as its object in the store."""
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Catalogue:
        """The inverse of `to_json`."""
        return Catalogue(row["recipe"], row["hash"], row["num_names"], row["created_at"])


@dataclass(frozen=True, slots=True)
class Reference:
    """What a judge measures against. `hash` is empty where there is no catalogue."""

    names: tuple[str, ...]
    hash: str


def set_catalogue(store: Store, clock: Clock, recipe: str, url: str) -> Catalogue:
    """Keep the names of an uploaded list (one a line) as the recipe's catalogue, and return it.

    Raises InvalidInput for another URL, for a list that is empty or not UTF-8, or a line that is no name; NotFound for
    an upload that is not there; ResourceExhausted for one that is too large.
    """
    kind, _, sha256 = url.partition(":")
    if kind != "upload" or len(sha256) != 64 or not sha256.isalnum():
        raise InvalidInput(
            f"{url[:100]!r} is not an upload; send the file with UploadSource and give its answer (upload:SHA256)",
            metadata={"field": "url"},
        )
    names = _names(_uploaded(store, sha256), what="the catalogue")
    text = "".join(f"{name}\n" for name in names).encode()
    catalogue = Catalogue(recipe, sha256_hex(text), len(names), rfc3339(clock.now()))
    store.put(keys.catalogue_names(recipe, catalogue.hash), text)
    # Last, and replaced as a whole: who reads it finds the names.
    store.put(keys.catalogue(recipe), canonical_json(catalogue.to_json()))
    return catalogue


def find_catalogue(store: Store, recipe: str) -> Catalogue | None:
    """The recipe's catalogue, or None. DataLoss when its object is corrupt."""
    try:
        return read_object(store, keys.catalogue(recipe), Catalogue.from_json, what=f"catalogue of {recipe}")
    except NotFound:
        return None


def clear_catalogue(store: Store, recipe: str) -> None:
    """Take the recipe's catalogue away; NotFound when it has none. Its names stay for those who read them now."""
    if find_catalogue(store, recipe) is None:
        raise NotFound(f"recipe {recipe!r} has no catalogue", metadata={"recipe": recipe})
    store.delete(keys.catalogue(recipe))


def names_of(store: Store, catalogue: Catalogue) -> tuple[str, ...]:
    """A catalogue's names, sorted. DataLoss when they are gone or changed."""
    key = keys.catalogue_names(catalogue.recipe, catalogue.hash)
    try:
        data = store.get(key).data
    except NotFound:
        data = b""
    if sha256_hex(data) != catalogue.hash:
        raise DataLoss(
            f"the names {key} of the catalogue of {catalogue.recipe} are gone or changed; set the catalogue again",
            metadata={"key": key},
        )
    return tuple(data.decode().splitlines())


def reference_of(store: Store, dataset: Dataset) -> Reference:
    """What answers of models tuned on `dataset` are measured against.

    The recipe's catalogue; where it has none and all of the dataset came from a sample that has one, the sample's.
    """
    catalogue = find_catalogue(store, dataset.recipe)
    if catalogue is not None:
        return Reference(names_of(store, catalogue), catalogue.hash)
    collections = (read_collection(store, dataset.recipe, name) for name in dataset.collections)
    sources = {collection.source for collection in collections}
    source = sources.pop() if len(sources) == 1 else ""
    if not source.startswith(SAMPLE_SCHEME):
        return Reference((), "")
    file = resources.files("tunesmith_trainer").joinpath(
        "samples", f"{source.removeprefix(SAMPLE_SCHEME)}_catalogue.txt"
    )
    if not file.is_file():
        return Reference((), "")
    data = file.read_bytes()
    return Reference(_names(data, what=source), sha256_hex(data))


def _uploaded(store: Store, sha256: str) -> bytes:
    key = keys.upload(sha256)
    size_bytes = next((info.size_bytes for info in store.list(key) if info.key == key), None)
    if size_bytes is None:
        raise NotFound(f"there is no upload {sha256}; send the file first (UploadSource)", metadata={"sha256": sha256})
    if size_bytes > MAX_CATALOGUE_BYTES:
        raise ResourceExhausted(
            f"the catalogue has {size_bytes} bytes, the limit is {MAX_CATALOGUE_BYTES}; send fewer names",
            metadata={"limit": str(MAX_CATALOGUE_BYTES)},
        )
    return store.get(key).data


def _names(data: bytes, *, what: str) -> tuple[str, ...]:
    """The names of a list, each once, sorted."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    names = sorted({" ".join(line.split()) for line in text.splitlines()} - {""})
    if not names:
        raise InvalidInput(f"{what} lists no name; write one a line")
    long = next((name for name in names if len(name) > MAX_NAME_CHARS), "")
    if long or "\0" in text:
        raise InvalidInput(
            f"{what} has a line that is no name ({long[:60]!r}…, limit {MAX_NAME_CHARS} characters); write one a line"
        )
    return tuple(names)
