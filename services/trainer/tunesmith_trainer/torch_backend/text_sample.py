"""What decides `builtin:tiny-text`: its sample text, its settings and a code version. Free of PyTorch."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import asdict, dataclass

from tunesmith_trainer.torch_backend.fingerprint import PretrainingSettings, default_sample_text, package_file

CODE_VERSION = 1
"""Raise when the way the base is built changes: bases cached under another version are then not used."""


@dataclass(frozen=True, slots=True)
class TextBaseSettings(PretrainingSettings):
    """Shape and schedule of `builtin:tiny-text`. The defaults were measured on 2 CPU cores."""

    max_length: int = 1024
    num_steps: int = 200
    batch_tokens: int = 2048
    vocabulary_size: int = 2048
    """Tokens in all: bytes, merges and marks."""


@dataclass(frozen=True, slots=True)
class TextSample:
    """The project's own text that the base learns from. Only what no dataset holds out."""

    names: tuple[str, ...]
    phrases: tuple[str, ...]
    prose: tuple[str, ...]
    """Paragraphs of one to three sentences; no recipe has them as answers."""
    songs: tuple[str, ...] = ()
    """Whole lyrics with their line breaks."""
    remarks: tuple[str, ...] = ()
    """Single sentences, such as what somebody says about a song."""
    answers: tuple[str, ...] = ()
    """Answers of recipes that `songs` and `remarks` were taken from, as those recipes write them."""

    @property
    def seen(self) -> tuple[str, ...]:
        """Every text that a recipe could have as an answer."""
        return (*self.names, *self.phrases, *self.answers)


@functools.cache
def default_text_sample() -> TextSample:
    """The sample text that ships with the project. Raises NotFound when a file is missing."""
    short = default_sample_text()
    prose = package_file("tunesmith_trainer", "samples/prose.txt").read_text("utf-8").splitlines()
    return TextSample(names=short.names, phrases=short.phrases, prose=tuple(line for line in prose if line))


def text_base_fingerprint(sample: TextSample, settings: TextBaseSettings) -> str:
    """Hex SHA-256 of sample text, settings and code version: the cache key of the built base."""
    content = json.dumps(
        {"code_version": CODE_VERSION, "settings": asdict(settings), "sample": asdict(sample)},
        sort_keys=True,
        ensure_ascii=False,
    )
    return hashlib.sha256(content.encode()).hexdigest()
