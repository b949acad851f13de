"""Recipes that people add: one Python file each, named in TUNESMITH_RECIPES, or an installed package's entry point.

The one file of this package that reads files. A plug-in is code that runs with all of Tunesmith's rights. One that
cannot be loaded never stops a process: it is logged, and asking for it says why.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.abc import SourceLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from tunesmith.domain.datasets import CurationSettings
from tunesmith.domain.errors import RecipeFailed, TunesmithError
from tunesmith.domain.models import Gate, MetricInfo
from tunesmith.domain.runs import TrainingSettings
from tunesmith.ports.language_model import GenerationParameters
from tunesmith.recipes.base import JudgeSettings, Recipe
from tunesmith.recipes.guard import failure, guarded

SETTING = "TUNESMITH_RECIPES"
"""Environment variable: files of recipes, joined by os.pathsep."""

ENTRY_POINT_GROUP = "tunesmith.recipes"

MAX_FILE_BYTES = 2**20

NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
"""What a recipe may be called: names stand in object keys, events and commands."""

log = logging.getLogger(__name__)

_loading = threading.RLock()


@dataclass(frozen=True, slots=True)
class FailedPlugin:
    """A plug-in that could not be loaded."""

    names: frozenset[str]
    """What people may ask for it by: the recipe's name, as far as it is known, and the name of the file."""
    error: RecipeFailed


@dataclass(frozen=True, slots=True)
class Plugins:
    """The plug-ins of a process."""

    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    failed: Sequence[FailedPlugin] = ()


def load_plugins(setting: str, taken: frozenset[str]) -> Plugins:
    """The plug-ins that `setting` (as TUNESMITH_RECIPES) and entry points name, loaded once a process.

    Each keeps to a name that is not in `taken` and that no other has.
    """
    with _loading:
        return _load(setting, taken)


@cache
def _load(setting: str, taken: frozenset[str]) -> Plugins:
    recipes: dict[str, Recipe] = {}
    files: dict[str, str] = {}
    failed: list[FailedPlugin] = []
    for plugin in _named(setting):
        known = {plugin.stem}
        try:
            recipe = plugin.load()
            known.add(recipe.name)
            if recipe.name in taken or recipe.name in recipes:
                other = files.get(recipe.name, "a recipe that ships with Tunesmith")
                raise failure(
                    recipe.name, plugin.where, f"its name is that of {other}; give it a name of its own", line=None
                )
        except RecipeFailed as error:
            log.error("%s", error.message)
            failed.append(FailedPlugin(frozenset(known - recipes.keys() - taken), error))
        else:
            recipes[recipe.name] = recipe
            files[recipe.name] = plugin.where
    return Plugins(recipes, tuple(failed))


def recipe_of_file(path: Path) -> Recipe:
    """The recipe of one file, guarded. RecipeFailed names the file, the line and the fix."""
    return _File(path).load()


def _named(setting: str) -> Iterator[_File | _Entry]:
    for path in dict.fromkeys(filter(None, setting.split(os.pathsep))):
        yield _File(Path(path).expanduser().absolute())
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: (entry.name, entry.value)):
        yield _Entry(entry)


@dataclass(frozen=True, slots=True)
class _File:
    """A recipe in a file of its own, which is its whole code."""

    path: Path

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def where(self) -> str:
        return str(self.path)

    def load(self) -> Recipe:
        try:
            with self.path.open("rb") as file:
                source = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise failure(
                self.stem, self.where, f"the file cannot be read ({error.strerror}); correct {SETTING}", line=None
            ) from error
        if len(source) > MAX_FILE_BYTES:
            raise failure(self.stem, self.where, f"the file is larger than {MAX_FILE_BYTES} bytes", line=None)
        code_hash = hashlib.sha256(source).hexdigest()
        name = f"tunesmith_recipe_{code_hash[:16]}"
        module = sys.modules.get(name) or _import(name, self.path, source, stem=self.stem)
        return _checked(getattr(module, "RECIPE", None), self.stem, self.where, code_hash)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A recipe that an installed package offers. Its code is the module of the entry point, and the version."""

    entry: EntryPoint

    @property
    def stem(self) -> str:
        return self.entry.name

    @property
    def where(self) -> str:
        return f"entry point {self.entry.name} = {self.entry.value}"

    def load(self) -> Recipe:
        try:
            found = self.entry.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # foreign code; told to whoever asks for the recipe
            _raised(error, self.stem, self.where)
        module = sys.modules[self.entry.module]
        file = getattr(module, "__file__", None) or ""
        version = self.entry.dist.version if self.entry.dist else ""
        source = Path(file).read_bytes() if file.endswith(".py") else b""
        code_hash = hashlib.sha256(version.encode() + b"\0" + source).hexdigest()
        recipe = found.RECIPE if isinstance(found, ModuleType) and hasattr(found, "RECIPE") else found
        return _checked(recipe, self.stem, file or self.where, code_hash)


class _Source(SourceLoader):
    """Loads a module from bytes that were read already, so that what runs is what was hashed; leaves no .pyc behind."""

    def __init__(self, path: Path, source: bytes) -> None:
        self._path = path
        self._source = source

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002  # importlib's signature
        return str(self._path)

    def get_data(self, path: Any) -> bytes:  # noqa: ARG002
        return self._source


def _import(name: str, path: Path, source: bytes, *, stem: str) -> ModuleType:
    spec = importlib.util.spec_from_loader(name, _Source(path, source))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it is executed
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # foreign code; told to whoever asks for the recipe
        del sys.modules[name]
        _raised(error, stem, str(path))
    return module


def _raised(error: BaseException, stem: str, where: str) -> NoReturn:
    if isinstance(error, TunesmithError):
        raise failure(stem, where, error.message, error=error) from error
    raise failure(stem, where, f"it raises {type(error).__name__}: {error}", error=error) from error


_TYPES: Mapping[str, type] = {
    "name": str,
    "title": str,
    "default_source": str,
    "default_base_model": str,
    "needs": str,
    "curation": CurationSettings,
    "training": TrainingSettings,
    "generation": GenerationParameters,
    "judge": JudgeSettings,
    "examples_shown": int,
    "min_train_examples": int,
    "max_retries_known": int,
    "metrics": Mapping,
}
_ELEMENTS: Mapping[str, type] = {"record_fields": str, "gates": Gate, "charts": str}


def _checked(recipe: object, stem: str, where: str, code_hash: str) -> Recipe:
    """The recipe behind its guard. RecipeFailed unless it is one, whole and well named."""
    if isinstance(recipe, type) and issubclass(recipe, Recipe):
        raise failure(stem, where, f"RECIPE is the class {recipe.__name__}; make an instance of it", line=None)
    if not isinstance(recipe, Recipe):
        given = "there is none" if recipe is None else f"it is {type(recipe).__name__}"
        raise failure(stem, where, f"RECIPE must be an instance of tunesmith.recipes.base.Recipe; {given}", line=None)
    for name, kind in _TYPES.items():
        value = getattr(recipe, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise failure(stem, where, f"{name}={value!r:.60} must be {kind.__name__}", line=None)
    if not NAME.fullmatch(recipe.name):
        raise failure(
            stem,
            where,
            f"name={recipe.name!r:.60} must be 1 to 41 lower-case letters, digits and '_', a letter first",
            line=None,
        )
    for name, kind in _ELEMENTS.items():
        values = getattr(recipe, name)
        if not isinstance(values, tuple) or not all(isinstance(value, kind) for value in values):
            raise failure(recipe.name, where, f"{name} must be a tuple of {kind.__name__}", line=None)
    if not recipe.record_fields:
        raise failure(recipe.name, where, "record_fields is empty; name at least one field of a record", line=None)
    if not all(isinstance(k, str) and isinstance(v, MetricInfo) for k, v in recipe.metrics.items()):
        raise failure(recipe.name, where, "metrics must give a MetricInfo by name", line=None)
    try:
        recipe.training.check()
        recipe.curation.changed({})
        return guarded(recipe, where, code_hash)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # foreign code; told to whoever asks for the recipe
        _raised(error, recipe.name, where)
