"""Named points of ARCHITECTURE.md's crash table, told by the calls that a process makes to its ports."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POINTS = {
    "marker, before the job object": "after store.put jobs-active/",
    "job object, before launch": "after store.create jobs/",
    "state 'launching', before the process starts": "before launcher.launch",
    "process start, before state 'running'": "after launcher.launch",
    "place in a shared limit, before the look": "after store.replace jobs/",
    "worker in the middle": "after worker.store.put jobs/",
    "worker's artifact, before its manifest": "after worker.store.put records/",
    "worker's manifest, before its outcome": "after worker.store.create collections/",
    "worker's outcome, before it ends": "after worker.store.replace jobs/",
    "worker's outcome, before publishing": "before bus.publish",
    "publishing, before the outbox is emptied": "after bus.publish",
    "poll, before the handler's effect": "after subscription.poll",
    "the handler's effect, before the commit": "before subscription.commit",
    "the commit, before the next poll": "after subscription.commit",
    "the outbox emptied, before the marker goes": "before store.delete jobs-active/",
    "checkpoint or shard half uploaded": "before worker.store.put_file",
}
"""What the crash table calls it, by where a process is killed."""

TRAINING_POINTS = {
    "model version, before the job's outcome": "after worker.store.create models/micro_genre/versions/",
}
"""The same where a model is trained."""

IS_WORKER = "work" in sys.argv[1:2]


def file_of(where: str) -> str:
    """The name of the file that arms a point."""
    return where.replace(" ", "_").replace("/", "-")


class _Points:
    """Kills this process when it reaches an armed point."""

    def __init__(self, folder: Path) -> None:
        self._armed = folder / "armed"
        self._fired = folder / "fired"
        self._by_place: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for where in (POINTS | TRAINING_POINTS).values():
            when, call, *prefix = where.split(" ")
            of_worker = call.startswith("worker.")
            if of_worker and not IS_WORKER:
                continue
            place = (when, call.removeprefix("worker."))
            self._by_place.setdefault(place, []).append((prefix[0] if prefix else "", file_of(where)))

    def reached(self, when: str, call: str, key: str = "") -> None:
        for prefix, name in self._by_place.get((when, call), ()):
            if not key.startswith(prefix):
                continue
            try:
                (self._armed / name).rename(self._fired / f"{name}.{os.getpid()}.{time.monotonic_ns()}")
            except OSError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)


class _Around:
    """Delegates to `inner`, passing by the points before and after each call."""

    def __init__(self, inner: Any, name: str, points: _Points, *, results: Callable[[str, Any], Any] | None = None):
        self._inner, self._name, self._points, self._results = inner, name, points, results

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._inner, method)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            key = args[0] if args and isinstance(args[0], str) else ""
            where = f"{self._name}.{method}"
            self._points.reached("before", where, key)
            result = found(*args, **kwargs)
            if method != "poll" or result:
                self._points.reached("after", where, key)
            return self._results(method, result) if self._results else result

        return call


def wrap(platform: Any, folder_name: str) -> None:
    """Wrap `Platform.open` of the module `tunesmith.platform`."""
    folder = Path(folder_name)
    points = _Points(folder)
    if IS_WORKER:
        _note_start(folder)
    cls = platform.Platform
    open_platform = cls.open

    def opened(*args: Any, **kwargs: Any) -> Any:
        made = open_platform(*args, **kwargs)
        store = _Around(made.store, "store", points)
        bus = _Around(
            made.bus,
            "bus",
            points,
            results=lambda method, result: _Around(result, "subscription", points) if method == "subscribe" else result,
        )
        launcher = _Around(made.launcher, "launcher", points)
        jobs = platform.JobStore(store, made.clock)
        return dataclasses.replace(made, store=store, bus=bus, launcher=launcher, jobs=jobs)

    cls.open = staticmethod(opened)


def _note_start(folder: Path) -> None:
    """One line for each worker process: its job, its epoch, its pid."""
    line = f"{sys.argv[2]} {sys.argv[3]} {os.getpid()}\n".encode()
    descriptor = os.open(folder / "workers", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
