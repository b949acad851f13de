"""Lets the chaos tool kill a Tunesmith process at a named point.

Read by every Python process that has this folder on its path; does nothing unless TUNESMITH_CHAOS_FOLDER is set.

The processes are what users run: only `Platform.open` is wrapped, so that every call to store, bus and launcher passes
by here. A point is armed by a file `armed/<point>`; the first process that reaches it renames the file, which only one
can, and kills itself.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from typing import Any

FOLDER = os.environ.get("TUNESMITH_CHAOS_FOLDER", "")


class _PatchPlatform:
    """Wraps `tunesmith.platform` when it is imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "tunesmith.platform":
            return None
        spec: Any = PathFinder.find_spec(name, path, target)
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            from chaos_points import wrap

            wrap(module, FOLDER)

        spec.loader.exec_module = exec_module
        return spec


if FOLDER:
    sys.meta_path.insert(0, _PatchPlatform())
