"""The launcher on this machine: a process and a folder a launch, alive as long as it holds a lock."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from tunesmith.adapters.command_check import check_command
from tunesmith.domain.errors import FailedPrecondition, InvalidInput, InvalidSettings, Unavailable
from tunesmith.domain.ids import check_name
from tunesmith.ports.launcher import LaunchState, LaunchStatus

log = logging.getLogger(__name__)

MAX_LOG_BYTES = 8 << 20
"""Of a log that has grown beyond this when it is looked at, only the last KEPT_LOG_BYTES are kept (`log.previous`)."""
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
    A process that ends takes what is left of its process group with it. The scope stands in `<folder>.scope`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            self.scope = _kept_name(self._folder.with_name(f"{self._folder.name}.scope"))
        except OSError as error:
            raise InvalidSettings(
                f"the launch folder {self._folder} cannot be used ({error}); give a folder that this user can write to"
            ) from error

    def launch(self, name: str, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
        """Start `argv` under `name`, once. InvalidInput when such a program can never start."""
        home = self._home(name)
        check_command(argv, env)
        if home.exists():
            return
        draft = self._folder / f".new-{uuid4().hex}"
        try:
            draft.mkdir()
            with (draft / "lock").open("xb") as lock, (draft / "watch").open("xb") as watch:
                fcntl.flock(lock, fcntl.LOCK_EX)
                fcntl.flock(watch, fcntl.LOCK_EX)
                if not _rename_unless_taken(draft, home):
                    return
                _sync_folder(self._folder)
                try:
                    _start(home, argv, env, lock=lock.fileno(), watch=watch.fileno())
                except BaseException:
                    self._discard(home)
                    raise
        except OSError as error:
            if error.errno in _NEVER_RUNS and error.filename == argv[0]:
                raise InvalidInput(f"the program {argv[0]!r} cannot be started: {error.strerror}") from error
            raise Unavailable(f"{name} cannot be started now: {error}", metadata={"name": name}) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def status(self, name: str) -> LaunchStatus:
        """What is known of `name`; also keeps its log bounded."""
        home = self._home(name)
        state, exit_code = _state(home)
        return LaunchStatus(state, exit_code, "" if state == "absent" else _read_log(home))

    def stop(self, name: str, *, grace_s: float) -> None:
        """SIGTERM to the process group, SIGKILL after `grace_s`; returns when it is gone."""
        for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, _KILL_TIMEOUT_S)):
            deadline_s = time.monotonic() + patience_s
            told = False
            while not self._is_gone(name):
                # Nobody may be there to be told yet, when another thread is just starting it.
                told = told or _signal(self._home(name), number)
                if time.monotonic() >= deadline_s:
                    break
                time.sleep(_POLL_S)
        if not self._is_gone(name):
            raise Unavailable(f"{name} did not end {_KILL_TIMEOUT_S:.0f} s after SIGKILL; it may hang in the kernel")

    def names(self, prefix: str = "") -> Sequence[str]:
        """Names of launches that were not forgotten, sorted."""
        with os.scandir(self._folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
        return sorted(name for name in names if name.startswith(prefix) and not name.startswith("."))

    def forget(self, name: str) -> None:
        """Remove the folder; FailedPrecondition while it is running."""
        if _state(self._home(name))[0] == "running":
            raise FailedPrecondition(f"{name} is still running; stop it before forgetting it", metadata={"name": name})
        self._discard(self._home(name))

    def retire(self, name: str) -> None:
        """Nothing: the folder, and the log in it, stay in the data folder for whoever looks into the job."""
        self._home(name)

    def _home(self, name: str) -> Path:
        return self._folder / check_name(name, what="launch name")

    def _is_gone(self, name: str) -> bool:
        return not _is_alive(self._home(name))

    def _discard(self, home: Path) -> None:
        """Remove a launch folder in one step for everyone who looks."""
        gone = self._folder / f".gone-{uuid4().hex}"
        with suppress(FileNotFoundError):
            home.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Remove what a killed launcher left half made or half removed."""
        oldest_s = time.time() - _STALE_AFTER_S
        for path in self._folder.glob(".gone-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._folder.glob(".new-*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest_s:
                    shutil.rmtree(path, ignore_errors=True)


def _kept_name(path: Path) -> str:
    """The name in a file, which is made with a new one where it is not there. Of racing makers one wins."""
    if not path.exists():
        draft = path.with_name(f".scope-{uuid4().hex}")
        draft.write_text(uuid4().hex)
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return check_name(path.read_text().strip(), what="launcher scope")


def _rename_unless_taken(draft: Path, home: Path) -> bool:
    """Rename a folder; False when `home` exists (it is never empty, so it is never replaced)."""
    try:
        draft.rename(home)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    return True


def _start(home: Path, argv: Sequence[str], env: Mapping[str, str], *, lock: int, watch: int) -> None:
    """Start the child, note who it is, and leave a thread waiting for its end."""
    with (home / "log").open("ab") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,
            pass_fds=(lock,),
        )
    watch = os.dup(watch)
    try:
        (home / "process.json").write_text(json.dumps({"pid": process.pid, "started": _started(process.pid)}))
        threading.Thread(target=_wait, args=(home, process, watch), name=f"wait-{home.name}", daemon=True).start()
    except (OSError, RuntimeError) as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(watch)
        raise Unavailable(f"{home.name} cannot be started now: {error}") from error


def _wait(home: Path, process: subprocess.Popen[bytes], watch: int) -> None:
    """Wait for the child, end what is left of its group, and write down its exit code."""
    try:
        if hasattr(os, "waitid"):
            # Until it is reaped its pid, which is also the group's id, cannot be used again.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        _record_exit(home, process.wait())
    except OSError as error:
        log.error("how %s ended could not be recorded: %s", home.name, error)
    finally:
        process.poll()
        os.close(watch)


def _signal(home: Path, number: int) -> bool:
    """Signal the launch's process group, and holders of its lock outside the group; whether anyone was signalled."""
    leader = _leader(home)
    told = False
    if leader is not None:
        with suppress(ProcessLookupError):
            os.killpg(leader, number)
            told = True
    for pid in _holders(home):
        with suppress(OSError):
            descriptor = os.pidfd_open(pid)
            try:
                # Looked at again: now that there is a descriptor, the pid cannot come to mean another process.
                if os.getpgid(pid) != leader and _holds(pid, home):
                    signal.pidfd_send_signal(descriptor, number)
                    told = True
            finally:
                os.close(descriptor)
    return told


def _leader(home: Path) -> int | None:
    """The child's pid, if it is noted and still means the child."""
    try:
        noted = json.loads((home / "process.json").read_text())
    except (OSError, ValueError):
        return None
    pid = int(noted["pid"])
    return pid if noted["started"] and _started(pid) == noted["started"] else None


def _started(pid: int) -> str:
    """When a process started, in whatever unit tells two processes with one pid apart; empty when it is gone."""
    if sys.platform == "linux":
        try:
            # The second field is the program's name in brackets, with anything in it; the 22nd is the start time.
            return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
        except OSError:
            return ""
    listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip()


def _holders(home: Path) -> Iterator[int]:
    """Processes that hold the launch's lock; only Linux tells."""
    for entry in Path("/proc").glob("[0-9]*"):
        if _holds(int(entry.name), home):
            yield int(entry.name)


def _holds(pid: int, home: Path) -> bool:
    """Whether a process is of this launch. One that has `watch` open too is the launcher, or not the program yet."""
    opened = set()
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                opened.add(str(descriptor.readlink()))
    return str(home / "lock") in opened and str(home / "watch") not in opened


def _state(home: Path) -> tuple[LaunchState, int | None]:
    # In this order: who holds `watch` writes `exit` before letting go of it.
    alive = _is_alive(home)
    try:
        return "exited", int((home / "exit").read_text())
    except FileNotFoundError:
        if alive:
            return "running", None
        return "lost" if home.is_dir() else "absent", None


def _is_alive(home: Path) -> bool:
    return _is_held(home / "watch") or _is_held(home / "lock")


def _is_held(path: Path) -> bool:
    """Whether some process holds the lock. Looking takes a shared lock for an instant, which disturbs nobody."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _read_log(home: Path) -> str:
    """The last lines of a log, after cutting it if it has grown too long."""
    try:
        _bound_log(home)
        tail = _last_bytes(home / "log", LOG_TAIL_BYTES + 1)
        if len(tail) < LOG_TAIL_BYTES:
            tail = _last_bytes(home / "log.previous", LOG_TAIL_BYTES + 1 - len(tail)) + tail
    except FileNotFoundError:
        return ""
    if len(tail) > LOG_TAIL_BYTES and b"\n" in tail[:-1]:
        tail = tail.partition(b"\n")[2]
    # Replacement characters are longer than the bytes they stand for.
    return tail.decode(errors="replace").encode()[-LOG_TAIL_BYTES:].decode(errors="ignore")


def _bound_log(home: Path) -> None:
    """Set the end of a long log aside and empty it. The child appends, so it goes on at the start."""
    with (home / "log").open("rb+") as file:
        if os.fstat(file.fileno()).st_size <= MAX_LOG_BYTES:
            return
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(OSError):  # a full disk is the best reason to go on
                (home / "log.previous").write_bytes(_last_bytes(home / "log", KEPT_LOG_BYTES))
            file.truncate(0)


def _last_bytes(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - count))
            return file.read(count)
    except FileNotFoundError:
        return b""


def _record_exit(home: Path, exit_code: int) -> None:
    """Write `exit`, durably and in one step."""
    partial = home / ".exit.new"
    with partial.open("w") as file:
        file.write(str(exit_code))
        file.flush()
        os.fsync(file.fileno())
    partial.rename(home / "exit")
    with suppress(FileNotFoundError):  # from here on it is known, and may be forgotten
        _sync_folder(home)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
