"""The base models that are made on the spot: the one place that knows them. Free of PyTorch until one is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunesmith.domain.runs import TrainingProgress
from tunesmith_trainer.torch_backend.fingerprint import (
    SampleText,
    TinyBaseSettings,
    default_sample_text,
    tiny_base_fingerprint,
)
from tunesmith_trainer.torch_backend.text_sample import (
    TextBaseSettings,
    TextSample,
    default_text_sample,
    text_base_fingerprint,
)

BUILTIN_PREFIX = "builtin:"


class BuildBase(Protocol):
    """Makes a base; see `pretraining.pretrain`."""

    def __call__(
        self,
        folder: Path,
        *,
        progress: Callable[[TrainingProgress], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> Path:
        """Train it into `folder`, which is returned."""
        ...


@dataclass(frozen=True, slots=True)
class BuiltinBase:
    """One base that is made on the spot."""

    name: str
    fingerprint: Callable[[], str]
    """Hex SHA-256 of what it is made from, without making it."""
    texts_seen: Callable[[], tuple[str, ...]]
    """Texts of its training that a recipe could have as answers."""
    build: BuildBase

    def folder(self, cache_dir: Path) -> Path:
        """Where it lies in `cache_dir` once it is made."""
        return cache_dir / f"{self.name.replace(':', '-')}-{self.fingerprint()[:16]}"


def tiny(text: SampleText | None = None, settings: TinyBaseSettings | None = None) -> BuiltinBase:
    """`builtin:tiny`, for names; of the project's sample text unless another is given."""
    chosen = settings or TinyBaseSettings()

    def sample() -> SampleText:
        return text or default_sample_text()

    def build(
        folder: Path,
        *,
        progress: Callable[[TrainingProgress], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> Path:
        from tunesmith_trainer.torch_backend.tiny_base import build_tiny_base

        return build_tiny_base(folder, text=sample(), settings=chosen, progress=progress, should_stop=should_stop)

    return BuiltinBase(
        name="builtin:tiny",
        fingerprint=lambda: tiny_base_fingerprint(sample(), chosen),
        texts_seen=lambda: (*sample().names, *sample().phrases),
        build=build,
    )


def tiny_text(sample: TextSample | None = None, settings: TextBaseSettings | None = None) -> BuiltinBase:
    """`builtin:tiny-text`, for longer texts; of the project's sample text unless another is given."""
    chosen = settings or TextBaseSettings()

    def text() -> TextSample:
        return sample or default_text_sample()

    def build(
        folder: Path,
        *,
        progress: Callable[[TrainingProgress], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> Path:
        from tunesmith_trainer.torch_backend.text_base import build_text_base

        return build_text_base(folder, sample=text(), settings=chosen, progress=progress, should_stop=should_stop)

    return BuiltinBase(
        name="builtin:tiny-text",
        fingerprint=lambda: text_base_fingerprint(text(), chosen),
        texts_seen=lambda: text().seen,
        build=build,
    )


BUILTIN_BASES: Mapping[str, BuiltinBase] = {base.name: base for base in (tiny(), tiny_text())}
