"""An environment with transformers 4.51 and our own PyTorch, made by uv and kept beside its cache."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from filelock import FileLock

TRANSFORMERS = "transformers==4.51.*"
MAKE_TIMEOUT_S = 500


def python_of_older_stack() -> Path:
    """Its interpreter. Where it cannot be made (no network), the test is left out; with CI=true that is a failure."""
    torch = f"torch=={version('torch').partition('+')[0]}"
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tunesmith" / "stacks"
    folder = cache / f"transformers-4.51-{torch}-py{sys.version_info.major}.{sys.version_info.minor}"
    python, whole = folder / "bin" / "python", folder / "whole"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if whole.is_file():
            return python
        # Files are linked from uv's cache, so that PyTorch is not on the disk twice.
        for arguments in (
            ["venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
            ["pip", "install", "--quiet", "--python", str(python), TRANSFORMERS, torch],
        ):
            try:
                done = subprocess.run(
                    [sys.executable, "-m", "uv", *arguments],
                    capture_output=True,
                    text=True,
                    timeout=MAKE_TIMEOUT_S,
                    check=False,
                )
                problem = done.stderr if done.returncode else ""
            except subprocess.TimeoutExpired:
                problem = f"uv took longer than {MAKE_TIMEOUT_S} s"
            if problem:
                _leave_out(" ".join(problem.split())[-300:])
        whole.touch()
    return python


def _leave_out(why: str) -> None:
    message = f"no environment with {TRANSFORMERS} (needs uv and a package index): {why}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
