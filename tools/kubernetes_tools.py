"""Brings kustomize and kube-linter to a machine that has Go, by `go install`; kept outside the tree.

    python tools/kubernetes_tools.py      bring both and print where they are

A `kubectl`, `kustomize` or `kube-linter` on the PATH is used as it is. Imported by the tests. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"
KUBE_LINTER = "golang.stackrox.io/kube-linter/cmd/kube-linter@v0.7.6"

GET_TIMEOUT_S = 1200.0


class ToolMissing(Exception):
    """A tool that this machine has not and cannot bring; the message says what would help."""


def cache() -> Path:
    """Where what was brought is kept: TUNESMITH_PARTS_CACHE, else the user's cache folder."""
    given = os.environ.get("TUNESMITH_PARTS_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunesmith"
    return Path(given) / "tools" if given else base / "tools"


def render_command() -> list[str]:
    """The command that renders a kustomization, without its folder."""
    if kubectl := shutil.which("kubectl"):
        return [kubectl, "kustomize"]
    return [str(_brought("kustomize", KUSTOMIZE)), "build"]


def kube_linter() -> Path:
    """kube-linter's program."""
    return _brought("kube-linter", KUBE_LINTER)


def _brought(name: str, package: str) -> Path:
    kept = cache() / name
    if found := shutil.which(name):
        return Path(found)
    if kept.is_file():
        return kept
    go = shutil.which("go")
    if go is None:
        raise ToolMissing(f"{name} is not here, and Go is not either, which would bring it: install one of them")
    cache().mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "GOBIN": str(cache()), "CGO_ENABLED": "0"}
    try:
        done = subprocess.run(
            [go, "install", "-trimpath", "-ldflags=-s -w", package],
            env=env,
            capture_output=True,
            text=True,
            timeout=GET_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ToolMissing(f"{name} could not be built in {GET_TIMEOUT_S:.0f} s: install it by hand") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ToolMissing(f"{name} could not be brought by `go install {package}` ({last}): install it by hand")
    return kept


if __name__ == "__main__":
    try:
        print(" ".join(render_command()))
        print(kube_linter())
    except ToolMissing as missing:
        sys.exit(str(missing))
