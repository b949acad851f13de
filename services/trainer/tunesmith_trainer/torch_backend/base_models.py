"""From the name of a base model to something transformers can load."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock

from tunesmith.domain.errors import BaseModelUnavailable
from tunesmith.domain.runs import TrainingProgress
from tunesmith_trainer.torch_backend.builtin import BUILTIN_BASES, BUILTIN_PREFIX, BuiltinBase

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")


def resolve_base(
    base: str,
    cache_dir: Path,
    *,
    builtin: Mapping[str, BuiltinBase] = BUILTIN_BASES,
    progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path | str:
    """What to hand to `load_model`: a folder, or the Hub id itself.

    A built-in base is made in `cache_dir` on first use (about a minute on two cores) and found there afterwards,
    under its fingerprint. Two processes that make the same base at once both succeed, one after the other. Raises
    BaseModelUnavailable for a name that cannot be a base, Interrupted when `should_stop()` ended the making.
    """
    if base in builtin:
        return _made(builtin[base], cache_dir, progress, should_stop)
    if base.startswith(BUILTIN_PREFIX):
        raise unavailable(base, "there is no such built-in base", f"use one of {', '.join(builtin)}")
    folder = Path(base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise unavailable(base, "the folder has no config.json", "give a folder that save_pretrained wrote")
        return folder
    if folder.is_absolute() or base.startswith((".", "~")):
        raise unavailable(base, "there is no such folder", "check the path, or give a Hub id like `owner/name`")
    if not _HUB_ID.fullmatch(base):
        names = ", ".join(builtin)
        raise unavailable(base, "it is neither a folder nor a Hub id", f"use {names}, a folder or `owner/name`")
    return base


def unavailable(base: str, why: str, fix: str) -> BaseModelUnavailable:
    """The error for a base model that cannot be loaded: value, reason, fix."""
    return BaseModelUnavailable(f"base model {base!r} cannot be loaded: {why}; {fix}", metadata={"base_model": base})


def _made(
    base: BuiltinBase,
    cache_dir: Path,
    progress: Callable[[TrainingProgress], None] | None,
    should_stop: Callable[[], bool] | None,
) -> Path:
    folder = base.folder(cache_dir)
    if folder.is_dir():
        return folder
    cache_dir.mkdir(parents=True, exist_ok=True)
    logger.info("building %s into %s", base.name, folder)
    with FileLock(folder.with_suffix(".lock")):
        return base.build(folder, progress=progress, should_stop=should_stop)
