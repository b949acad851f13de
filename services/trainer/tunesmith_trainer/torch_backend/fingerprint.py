"""What decides `builtin:tiny`: its sample text, its settings and a code version. Free of PyTorch.

Whoever needs only the cache key of the base (a planner, a registry, a check before starting a child process) imports
this file and pays nothing for it.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tunesmith.domain.errors import NotFound
from tunesmith.domain.examples import split_bucket

CODE_VERSION = 1
"""Raise when the way the base is built changes: bases cached under another version are then not used."""


@dataclass(frozen=True, slots=True)
class PretrainingSettings:
    """Shape and schedule of a base that is trained on the spot."""

    hidden_size: int = 192
    num_layers: int = 4
    num_heads: int = 6
    feed_forward_size: int = 512
    max_length: int = 512
    """Positions the model can attend to; what it is trained on may be far shorter."""
    num_steps: int = 220
    batch_tokens: int = 1152
    """Tokens a step, padding included: bounds a step's time and memory whatever the length of its lines."""
    matrix_learning_rate: float = 0.02
    """Peak rate of Muon, for the weight matrices inside the layers."""
    vector_learning_rate: float = 3e-3
    """Peak rate of AdamW, for embeddings and norms."""
    weight_decay: float = 0.05
    initializer_range: float = 0.06
    """Standard deviation of fresh weights. Llama's usual 0.02 is for wider models and learns far slower here."""
    dropout: float = 0.0
    """On the embeddings and on what each block adds; only while the base is trained, never in the saved model."""
    save_every_steps: int = 100
    seed: int = 17


@dataclass(frozen=True, slots=True)
class TinyBaseSettings(PretrainingSettings):
    """Shape and schedule of `builtin:tiny`. The defaults were measured on 2 CPU cores."""

    name_share: float = 0.6
    """Share of lines that show a name; the others show words and phrases."""


@dataclass(frozen=True, slots=True)
class SampleText:
    """The project's own text that the base learns from. Only what no dataset holds out."""

    names: tuple[str, ...]
    phrases: tuple[str, ...]


def sample_text(names: Iterable[str], phrases: Iterable[str]) -> SampleText:
    """The sample text without anything that a dataset could hold out.

    A name or phrase goes when its split bucket is not `train`; a phrase also when it contains, as whole words, a
    held-out name of two words or more (single words like `pop` are language, not leaked answers).
    """
    clean_names = tuple(dict.fromkeys(_clean(n) for n in names if n.strip()))
    held_out = {n.casefold() for n in clean_names if split_bucket(n) != "train" and " " in n}
    kept_phrases = (
        phrase
        for phrase in dict.fromkeys(_clean(p) for p in phrases if p.strip())
        if split_bucket(phrase) == "train" and not _mentions(phrase, held_out)
    )
    return SampleText(
        names=tuple(n for n in clean_names if split_bucket(n) == "train"),
        phrases=tuple(kept_phrases),
    )


def default_sample_text() -> SampleText:
    """The sample text that ships with the project.

    The names are the scraper's sample list. It is found as a data file, without importing the scraper; services do not
    import each other. Raises NotFound when a file is missing.
    """
    return sample_text(
        names=_name_column(package_file("tunesmith_scraper", "samples/genres.csv")),
        phrases=package_file("tunesmith_trainer", "samples/music_words.txt").read_text("utf-8").splitlines(),
    )


def tiny_base_fingerprint(text: SampleText, settings: TinyBaseSettings) -> str:
    """Hex SHA-256 of sample text, settings and code version: the cache key of the built base."""
    content = json.dumps(
        {
            "code_version": CODE_VERSION,
            "settings": asdict(settings),
            "names": text.names,
            "phrases": text.phrases,
        },
        sort_keys=True,
        ensure_ascii=False,
    )
    return hashlib.sha256(content.encode()).hexdigest()


def _clean(text: str) -> str:
    return " ".join(text.split())


def _mentions(phrase: str, names: set[str]) -> bool:
    words = re.findall(r"[^\W_]+(?:[-'’&][^\W_]+)*", phrase.casefold())
    return any(
        " ".join(words[start:end]) in names
        for start in range(len(words))
        for end in range(start + 2, min(start + 6, len(words)) + 1)
    )


def _name_column(path: Path) -> Sequence[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row["name"] for row in csv.DictReader(file)]


def package_file(package: str, relative: str) -> Path:
    """A data file of an installed package, found without importing it; NotFound says what to install."""
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root) / relative
        if path.is_file():
            return path
    raise NotFound(
        f"sample text {relative} of package {package} is missing: install tunesmith with its package data",
        reason="SAMPLE_TEXT_MISSING",
        metadata={"package": package, "file": relative},
    )
