"""The launcher on this machine: a process and a folder a launch, alive as long as it holds a lock."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tunesmith.domain.errors import FailedPrecondition, InvalidInput, InvalidSettings, Unavailable
from tunesmith.domain.ids import check_name
from tunesmith.ports.launcher import LaunchStatus

log = logging.getLogger(__name__)

MAX_LOG_BYTES = 8 << 20
"""A log that has grown beyond this when it is looked at is cut down to its last KEPT_LOG_BYTES."""
KEPT_LOG_BYTES = 1 << 20
LOG_TAIL_BYTES = 4096

_POLL_S = 0.01
_KILL_TIMEOUT_S = 30.0
_STALE_AFTER_S = 3600.0
_NEVER_RUNS = {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.E2BIG, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


class SubprocessLauncher:
    """Processes of this machine (ports.launcher.Launcher), each with a folder `folder/<name>`.

    The folder is made elsewhere and renamed into place, which fails where one is: that is the launch-once guarantee.
    Two locks in it tell the state, whatever dies and whichever pid is used again, because the kernel drops a lock with
    the last process that holds it:

        lock    held by the child and what it forks; taken before the child exists and inherited
        watch   held by the launcher that waits for the child, until it has written `exit`

    `exit` present: exited. Else a lock held: running. Else: lost, also when the launcher died before the child began.
    A process that ends takes what is left of its process group with it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
        except OSError as error:
            raise InvalidSettings(
                f"the launch folder {self._folder} cannot be used ({error}); give a folder that this user can write to"
            ) from error

    def launch(self, name: str, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
        """Start `argv` under `name`, once. InvalidInput when such a program can never start."""
        home = self._home(name)
        _check_command(argv, env)
        if home.exists():
            return
        try:
            with self._drafted() as (draft, lock, watch):
                try:
                    draft.rename(home)
                except OSError as error:
                    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                        return
                    raise
                _sync_folder(self._folder)
                try:
                    self._start(home, argv, env, lock=lock, watch=watch)
                except BaseException:
                    self._discard(home)
                    raise
        except OSError as error:
            if error.errno in _NEVER_RUNS and error.filename in (argv[0], argv[0].encode()):
                raise InvalidInput(f"the program {argv[0]!r} cannot be started: {error.strerror}") from error
            raise Unavailable(f"{name} cannot be started now: {error}", metadata={"name": name}) from error

    def status(self, name: str) -> LaunchStatus:
        """What is known of `name`; also keeps its log bounded."""
        home = self._home(name)
        if not home.is_dir():
            return LaunchStatus("absent")
        # In this order: who holds `watch` writes `exit` before letting go of it.
        running = _is_held(home / "watch") or _is_held(home / "lock")
        exit_code = _read_exit(home)
        log_tail = _read_log(home / "log")
        if exit_code is not None:
            return LaunchStatus("exited", exit_code, log_tail)
        if running:
            return LaunchStatus("running", None, log_tail)
        return LaunchStatus("lost" if home.is_dir() else "absent", None, log_tail)

    def stop(self, name: str, *, grace_s: float) -> None:
        """SIGTERM to the process group, SIGKILL after `grace_s`; returns when it is gone."""
        for signal_number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, _KILL_TIMEOUT_S)):
            if self._is_gone(name):
                return
            _signal(self._home(name), signal_number)
            deadline_s = time.monotonic() + patience_s
            while time.monotonic() < deadline_s:
                if self._is_gone(name):
                    return
                time.sleep(_POLL_S)
        if not self._is_gone(name):
            raise Unavailable(f"{name} did not end {_KILL_TIMEOUT_S:.0f} s after SIGKILL; it may hang in the kernel")

    def names(self, prefix: str = "") -> Sequence[str]:
        """Names of launches that were not forgotten, sorted."""
        with os.scandir(self._folder) as entries:
            return sorted(
                entry.name for entry in entries if not entry.name.startswith(".") and entry.name.startswith(prefix)
            )

    def forget(self, name: str) -> None:
        """Remove the folder; FailedPrecondition while it is running."""
        if not self._is_gone(name):
            raise FailedPrecondition(f"{name} is still running; stop it before forgetting it", metadata={"name": name})
        self._discard(self._home(name))

    def _home(self, name: str) -> Path:
        return self._folder / check_name(name, what="launch name")

    def _is_gone(self, name: str) -> bool:
        home = self._home(name)
        return not (_is_held(home / "watch") or _is_held(home / "lock"))

    @contextmanager
    def _drafted(self) -> Iterator[tuple[Path, int, int]]:
        """A launch folder not yet in place, with both locks held; closes what `_start` did not take over."""
        draft = self._folder / f".new-{uuid4().hex}"
        draft.mkdir()
        held: list[int] = []
        try:
            held.append(_hold(draft / "lock"))
            held.append(os.dup(_hold(draft / "watch")))
            yield draft, held[0], held[1]
        finally:
            for descriptor in held:
                os.close(descriptor)
            shutil.rmtree(draft, ignore_errors=True)
