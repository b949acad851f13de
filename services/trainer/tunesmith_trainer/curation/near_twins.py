"""Near-twins: answers that differ by spelling, punctuation or a few characters, found by MinHash and verified exactly.

Broder, "On the resemblance and containment of documents" (1997), with locality-sensitive hashing by bands as in
Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from tunesmith_trainer.curation.disk_lines import DiskLines

NUM_PERMUTATIONS = 256
"""256 give 32 bands of 8 at the default threshold. 64 (16 of 4) would find as many twins at half the cost for names,
but unrelated lyrics, whose similarity is about 0.3, would share one bucket in a hundred and cost the square."""

MAX_MISS = 1e-4
"""Bands are chosen so that a pair exactly at the threshold is missed with at most this probability."""

MAX_NEIGHBOURS = 64
"""An answer is compared with at most this many others of a bucket, which keeps the cost linear in the number of
answers. Only where more share a bucket, and in all their common buckets, can a twin be missed for it."""

SHINGLE_CHARS = 3
_BATCH = 1024

_QUOTES = str.maketrans(dict.fromkeys("’‘ʼ`´", "'"))
_AND = re.compile(r"(?<=\w)(?:\s*[&+]\s*|\s*'n'\s*|\s*'n\s+|\s+n'?\s+)(?=\w)")
_DIACRITICS = re.compile(r"[\u0300-\u036f]")
_NOT_TEXT = re.compile(r"[\W_]+")

Shingles = frozenset[str]


def folded(text: str) -> str:
    """The form in which near-twins are compared: no case, spaces, punctuation or diacritics; `&`, `+`, `'n'` as `and`.

    `lo-fi` and `lofi`, `post-rock` and `Post Rock`, `drum and bass` and `drum 'n' bass` fold to one form. Only Latin,
    Greek and Cyrillic lose their marks; in other scripts marks are letters. Text without any letter or digit is kept.
    """
    plain = unicodedata.normalize("NFKC", text.translate(_QUOTES)).casefold()
    spelled = _AND.sub(" and ", plain)
    unmarked = unicodedata.normalize("NFC", _DIACRITICS.sub("", unicodedata.normalize("NFD", spelled)))
    return _drop_punctuation(unmarked) or plain.strip()


def _drop_punctuation(text: str) -> str:
    if text.isascii():
        return _NOT_TEXT.sub("", text)
    # `\W` holds the vowel signs of Indic scripts, which are marks (category M).
    return "".join(c for c in text if unicodedata.category(c)[0] in "LMN")


def shingles(fold: str, num_chars: int = SHINGLE_CHARS) -> Shingles:
    """The character n-grams of a folded text; a shorter text is its own shingle."""
    if len(fold) <= num_chars:
        return frozenset((fold,))
    return frozenset(fold[i : i + num_chars] for i in range(len(fold) - num_chars + 1))


def jaccard(one: Shingles, other: Shingles) -> float:
    """Shared shingles by all shingles, from 0 to 1."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def twin_clusters(
    folds: DiskLines,
    *,
    similarity: float,
    seed: int,
    checkpoint: Callable[[int], None],
    num_chars: int = SHINGLE_CHARS,
) -> array[int]:
    """For each folded answer the number of the first answer of its cluster.

    Two answers with a Jaccard similarity of at least `similarity` are in one cluster, and so are the twins of twins
    (single linkage). Whatever `seed`, every pair found is verified; the seed only decides which one in MAX_MISS is
    missed. Memory is 132 bytes an answer at the default similarity; the texts stay on disk. `checkpoint` is called
    with the number of answers done so far, twice over: for signatures and for comparisons.
    """
    clusters = _Clusters(len(folds))
    if len(folds) < 2:
        return clusters.roots()
    bands = _bands(folds, num_rows=rows_per_band(similarity), num_chars=num_chars, seed=seed, checkpoint=checkpoint)
    fingerprint = np.bitwise_xor.reduce(bands * np.arange(1, 2 * bands.shape[1], 2, dtype=np.uint32), axis=1)
    for number, band in enumerate(bands.T, start=1):
        for bucket in _buckets(band, fingerprint):
            _join_twins(bucket, folds, clusters, similarity, num_chars)
        checkpoint(len(folds) + len(folds) * number // bands.shape[1])
    return clusters.roots()


def rows_per_band(similarity: float) -> int:
    """The largest number of rows a band, so the fewest false candidates, that misses at most MAX_MISS of the pairs."""
    for num_rows in range(NUM_PERMUTATIONS, 1, -1):
        if (1 - similarity**num_rows) ** (NUM_PERMUTATIONS // num_rows) <= MAX_MISS:
            return num_rows
    return 1


def _bands(
    folds: DiskLines, *, num_rows: int, num_chars: int, seed: int, checkpoint: Callable[[int], None]
) -> npt.NDArray[np.uint32]:
    """One hash a band and answer. 32 bits suffice: a chance collision only costs one comparison."""
    from datasketch import MinHash  # 1 s and 70 MB, which nobody pays who does not curate

    num_bands = NUM_PERMUTATIONS // num_rows
    odd = np.random.default_rng(seed % 2**64).integers(0, 2**63, size=num_rows, dtype=np.uint64) * 2 + 1
    bands = np.empty((len(folds), num_bands), dtype=np.uint32)
    sketches: Iterator[MinHash] = MinHash.generator(
        ([s.encode() for s in shingles(fold.decode(), num_chars)] for fold in folds),
        num_perm=NUM_PERMUTATIONS,
        seed=seed % 2**32,
        hashfunc=zlib.crc32,  # four times as fast as the default SHA-1, and one-to-one up to four bytes
    )
    done = 0
    while batch := [sketch.hashvalues[: num_bands * num_rows] for sketch in islice(sketches, _BATCH)]:
        block = np.array(batch, dtype=np.uint64).reshape(len(batch), num_bands, num_rows)
        bands[done : done + len(batch)] = (block * odd).sum(axis=2, dtype=np.uint64) >> np.uint64(32)
        done += len(batch)
        checkpoint(done)
    return bands


def _buckets(band: npt.NDArray[np.uint32], fingerprint: npt.NDArray[np.uint32]) -> Iterator[list[int]]:
    """Groups of answers with equal band hashes; answers with equal signatures are neighbours."""
    order = np.lexsort((fingerprint, band))
    starts = np.flatnonzero(np.diff(band[order])) + 1
    edges = np.concatenate(([0], starts, [len(order)]))
    for first in np.flatnonzero(np.diff(edges) > 1):
        yield order[edges[first] : edges[first + 1]].tolist()


def _join_twins(bucket: list[int], folds: DiskLines, clusters: _Clusters, similarity: float, num_chars: int) -> None:
    # Most buckets of twins were joined by an earlier band.
    if clusters.are_one(bucket):
        return
    earlier: list[tuple[int, Shingles]] = []
    for number in bucket:
        mine = shingles(folds[number].decode(), num_chars)
        for other, theirs in reversed(earlier):
            if not clusters.are_one((number, other)) and jaccard(mine, theirs) >= similarity:
                clusters.join(number, other)
        earlier.append((number, mine))
        del earlier[:-MAX_NEIGHBOURS]


class _Clusters:
    """Union-find whose roots are the smallest members."""

    def __init__(self, size: int) -> None:
        self._parents = array("I", range(size))

    def are_one(self, numbers: Sequence[int]) -> bool:
        first = self._root(numbers[0])
        return all(self._root(number) == first for number in numbers)

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self._root(one), self._root(other)))
        self._parents[high] = low

    def roots(self) -> array[int]:
        return array("I", map(self._root, range(len(self._parents))))

    def _root(self, number: int) -> int:
        parents = self._parents
        while (parent := parents[number]) != number:
            parents[number] = number = parents[parent]
        return number
