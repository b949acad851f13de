"""From the name of a base model to something transformers can load."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from tunesmith.domain.errors import BaseModelUnavailable
from tunesmith.domain.runs import TrainingProgress
from tunesmith_trainer.torch_backend.fingerprint import (
    BUILTIN_TINY,
    SampleText,
    TinyBaseSettings,
    default_sample_text,
    tiny_base_fingerprint,
)

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")


def resolve_base(
    base: str,
    cache_dir: Path,
    *,
    text: SampleText | None = None,
    settings: TinyBaseSettings | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path | str:
    """What to hand to `load_model`: a folder, or the Hub id itself.

    `builtin:tiny` is built into `cache_dir` on first use (under a minute on two cores) and found there afterwards,
    under its fingerprint. `text` and `settings` replace what the built-in base is made from. Two processes
    that build the same base at once both succeed, one after the other. Raises BaseModelUnavailable for a name that
    cannot be a base, Interrupted when `should_stop()` ended the build.
    """
    if base == BUILTIN_TINY:
        return _tiny_base(
            cache_dir, text or default_sample_text(), settings or TinyBaseSettings(), progress, should_stop
        )
    if base.startswith("builtin:"):
        raise unavailable(base, "there is no such built-in base", f"use {BUILTIN_TINY}")
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise unavailable(base, "the folder has no config.json", "give a folder that save_pretrained wrote")
        return folder
    if folder.is_absolute() or base.startswith((".", "~")):
        raise unavailable(base, "there is no such folder", "check the path, or give a Hub id like `owner/name`")
    if not _HUB_ID.fullmatch(base):
        raise unavailable(base, "it is neither a folder nor a Hub id", f"use {BUILTIN_TINY}, a folder or `owner/name`")
    return base


def unavailable(base: str, why: str, fix: str) -> BaseModelUnavailable:
    """The error for a base model that cannot be loaded: value, reason, fix."""
    return BaseModelUnavailable(f"base model {base!r} cannot be loaded: {why}; {fix}", metadata={"base_model": base})


def _tiny_base(
    cache_dir: Path,
    text: SampleText,
    settings: TinyBaseSettings,
    progress: Callable[[TrainingProgress], None] | None,
    should_stop: Callable[[], bool] | None,
) -> Path:
    from tunesmith_trainer.torch_backend.tiny_base import build_tiny_base

    folder = cache_dir / f"builtin-tiny-{tiny_base_fingerprint(text, settings)[:16]}"
    if folder.is_dir():
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    logger.info("building %s into %s", BUILTIN_TINY, folder)
    with FileLock(folder.with_suffix(".lock")):
        return build_tiny_base(folder, text=text, settings=settings, progress=progress, should_stop=should_stop)
