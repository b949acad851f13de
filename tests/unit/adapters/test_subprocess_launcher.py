"""The subprocess launcher: crash points, foreign processes, and what it must not leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from contract.deadline import eventually
from contract.launcher_contract import ENDLESS, ended, program
from contract.processes import Reporter, running
from tunesmith.adapters import subprocess_launcher
from tunesmith.adapters.subprocess_launcher import SubprocessLauncher
from tunesmith.domain.errors import FailedPrecondition, InvalidInput, InvalidSettings, Unavailable
from tunesmith.ports.launcher import LaunchStatus


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "launches"


@pytest.fixture
def launcher(folder: Path) -> Iterator[SubprocessLauncher]:
    launcher = SubprocessLauncher(folder)
    yield launcher
    for name in launcher.names():
        launcher.stop(name, grace_s=0.0)


def _launch(report: Reporter, folder: Path, code: str) -> None:
    SubprocessLauncher(folder).launch("job", program(code), env={})
    report("launched")
    signal.pause()


def _die_before_spawning(report: Reporter, folder: Path) -> None:
    def die(*args: object, **kwargs: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    subprocess.Popen = die  # type: ignore[assignment,misc]
    SubprocessLauncher(folder).launch("job", program("print('never')"), env={})


def _die_after_spawning(report: Reporter, folder: Path) -> None:
    def die(pid: int) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    subprocess_launcher._started = die
    SubprocessLauncher(folder).launch("job", program(ENDLESS), env={})


def _lines(launcher: SubprocessLauncher) -> list[str]:
    return launcher.status("job").log_tail.splitlines()


def test_a_launcher_that_dies_before_the_spawn_leaves_a_lost_launch(launcher: SubprocessLauncher, folder: Path) -> None:
    with running(_die_before_spawning, folder) as first:
        assert first.reports() == []

    assert launcher.status("job") == LaunchStatus("lost")
    launcher.launch("job", program("print('again')"), env={})
    assert launcher.status("job") == LaunchStatus("lost")
    launcher.stop("job", grace_s=0.0)
    launcher.forget("job")
    assert launcher.status("job") == LaunchStatus("absent")


def test_a_launcher_that_dies_right_after_the_spawn_leaves_a_process_that_can_be_stopped(
    launcher: SubprocessLauncher, folder: Path
) -> None:
    with running(_die_after_spawning, folder) as first:
        assert first.reports() == []

    eventually(lambda: _lines(launcher) == ["started"])
    assert launcher.status("job").state == "running"
    assert not (folder / "job" / "process.json").exists()
    launcher.stop("job", grace_s=60.0)
    assert launcher.status("job").state == "lost"


def test_a_process_that_ends_after_its_launcher_is_lost(launcher: SubprocessLauncher, folder: Path) -> None:
    with running(_launch, folder, f"import os; print(os.getpid()); {ENDLESS}") as first:
        first.report()
        first.kill()
    eventually(lambda: len(_lines(launcher)) == 2)

    os.kill(int(_lines(launcher)[0]), signal.SIGKILL)

    eventually(lambda: launcher.status("job").state != "running")
    assert launcher.status("job").state == "lost"


def test_a_recycled_pid_is_never_signalled(launcher: SubprocessLauncher, folder: Path) -> None:
    with (
        running(_launch, folder, ENDLESS) as first,
        subprocess.Popen(program(ENDLESS), start_new_session=True) as other,
    ):
        first.report()
        first.kill()
        eventually(lambda: _lines(launcher) == ["started"])
        noted = json.loads((folder / "job" / "process.json").read_text())
        (folder / "job" / "process.json").write_text(json.dumps({**noted, "pid": other.pid}))

        launcher.stop("job", grace_s=60.0)

        assert launcher.status("job").state == "lost"
        assert not psutil.pid_exists(noted["pid"]) or psutil.Process(noted["pid"]).status() == "zombie"
        assert other.poll() is None
        other.kill()


def test_a_launch_that_is_over_signals_nobody(launcher: SubprocessLauncher, folder: Path) -> None:
    launcher.launch("job", program("pass"), env={})
    eventually(lambda: not subprocess_launcher._is_alive(folder / "job"))
    with subprocess.Popen(program(ENDLESS), start_new_session=True) as other:
        started = subprocess_launcher._started(other.pid)
        (folder / "job" / "process.json").write_text(json.dumps({"pid": other.pid, "started": started}))

        launcher.stop("job", grace_s=0.0)

        assert other.poll() is None
        other.kill()


def test_what_a_process_leaves_behind_ends_with_it(launcher: SubprocessLauncher) -> None:
    code = """
import os, signal, time
child = os.fork()
if child == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
print(child, flush=True)
"""
    launcher.launch("job", program(code), env={})

    child = int(ended(launcher, "job").log_tail)

    eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie")


def test_stopping_ends_the_whole_family_after_the_launcher_died(launcher: SubprocessLauncher, folder: Path) -> None:
    code = """
import os, signal, time
child = os.fork()
if child == 0:
    os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, b"%d\\n" % os.getpid())  # in one piece: two processes write here
time.sleep(600)
"""
    with running(_launch, folder, code) as first:
        first.report()
        first.kill()
    eventually(lambda: len(_lines(launcher)) == 2)
    os.kill(int(_lines(launcher)[0]), signal.SIGKILL)

    assert launcher.status("job").state == "running"
    launcher.stop("job", grace_s=0.1)

    assert launcher.status("job").state == "lost"


def test_a_running_launch_is_not_forgotten(launcher: SubprocessLauncher) -> None:
    launcher.launch("job", program(ENDLESS), env={})

    with pytest.raises(FailedPrecondition, match="still running"):
        launcher.forget("job")

    launcher.stop("job", grace_s=0.0)
    launcher.forget("job")


@pytest.mark.parametrize(
    ("argv", "env"),
    [
        ([], {}),
        ([""], {}),
        (["/no/such/program"], {}),
        (["no-such-program"], {}),
        (["/etc/passwd"], {}),
        (["/"], {}),
        ([sys.executable, "a\0b"], {}),
        ([sys.executable], {"A=B": "x"}),
        ([sys.executable], {"A": "\0"}),
        ([sys.executable, "x" * (4 << 20)], {}),
    ],
    ids=["empty", "no name", "no file", "not in PATH", "no program", "folder", "NUL", "name", "NUL value", "too long"],
)
def test_what_can_never_start_is_refused_and_the_name_stays_free(
    launcher: SubprocessLauncher, folder: Path, argv: list[str], env: dict[str, str]
) -> None:
    with pytest.raises(InvalidInput):
        launcher.launch("job", argv, env=env)

    assert launcher.status("job").state == "absent"
    assert list(folder.iterdir()) == []


def test_what_cannot_start_now_may_start_later(
    launcher: SubprocessLauncher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", fail)
        with pytest.raises(Unavailable, match="Resource temporarily unavailable"):
            launcher.launch("job", program("pass"), env={})

    assert list(folder.iterdir()) == []
    launcher.launch("job", program("pass"), env={})
    assert ended(launcher, "job").exit_code == 0


def test_a_process_that_nobody_could_wait_for_is_not_left_running(
    launcher: SubprocessLauncher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(subprocess_launcher.threading.Thread, "start", fail)

    with pytest.raises(Unavailable, match="new thread"):
        launcher.launch("job", program(ENDLESS), env={})

    assert launcher.status("job").state == "absent"
    assert not [child for child in psutil.Process().children() if ENDLESS in child.cmdline()]


def test_a_chatty_process_does_not_fill_the_disk(
    launcher: SubprocessLauncher, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess_launcher, "MAX_LOG_BYTES", 50_000)
    monkeypatch.setattr(subprocess_launcher, "KEPT_LOG_BYTES", 10_000)
    code = """
import time
for n in range(10_000):
    print(f'line {n}', flush=True)
print('done', flush=True)
time.sleep(600)
"""
    launcher.launch("job", program(code), env={})

    eventually(lambda: launcher.status("job").log_tail.endswith("line 9999\ndone\n"))

    assert (folder / "job" / "log").stat().st_size <= 50_000
    assert (folder / "job" / "log.previous").stat().st_size == 10_000
    launcher.stop("job", grace_s=0.0)


def test_nothing_is_lost_between_the_end_of_a_process_and_its_record(launcher: SubprocessLauncher) -> None:
    for n in range(20):
        launcher.launch(f"job-{n}", ["/bin/true"], env={})
        assert ended(launcher, f"job-{n}").exit_code == 0


def test_no_zombie_and_no_descriptor_is_left(launcher: SubprocessLauncher) -> None:
    def work(number: int) -> None:
        launcher.launch(f"job-{number}", ["/bin/true"], env={})
        launcher.launch(f"job-{number}", ["/bin/true"], env={})
        with pytest.raises(InvalidInput):
            launcher.launch("other", ["/no/such/program"], env={})
        ended(launcher, f"job-{number}")
        launcher.launch(f"stopped-{number}", program(ENDLESS), env={})
        launcher.stop(f"stopped-{number}", grace_s=0.0)

    def descriptors() -> set[str]:
        return {
            str(p.readlink())
            for p in Path("/proc/self/fd").iterdir()
            if p.is_symlink() and "launches" in str(p.readlink())
        }

    for number in range(5):
        work(number)

    eventually(lambda: not descriptors())
    assert not [child for child in psutil.Process().children() if child.status() == "zombie"]


def test_the_child_gets_no_descriptor_but_its_lock(launcher: SubprocessLauncher, folder: Path) -> None:
    code = """
import os
names = []
for number in os.listdir('/proc/self/fd'):
    try:
        names.append(os.path.basename(os.readlink(f'/proc/self/fd/{number}')))
    except FileNotFoundError:
        pass  # the one that listed the folder
print(*sorted(names))
"""
    with (folder.parent / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)

        launcher.launch("job", program(code), env={})

        assert ended(launcher, "job").log_tail.split() == ["lock", "log", "log", "null"]


def test_what_a_killed_launcher_left_half_made_is_removed(folder: Path) -> None:
    launcher = SubprocessLauncher(folder)
    for name in (".gone-1", ".new-old", ".new-recent"):
        (folder / name).mkdir()
        (folder / name / "lock").write_bytes(b"")
    os.utime(folder / ".new-old", (time.time() - 3700,) * 2)

    SubprocessLauncher(folder)

    assert [path.name for path in folder.iterdir()] == [".new-recent"]
    assert launcher.names() == []


def test_a_folder_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(InvalidSettings, match="launch folder"):
        SubprocessLauncher(tmp_path / "file")


def test_start_times_tell_processes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = subprocess_launcher._started(os.getpid())

    assert mine
    assert mine == subprocess_launcher._started(os.getpid())
    assert mine != subprocess_launcher._started(1)
    assert subprocess_launcher._started(2**22 + 1) == ""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert subprocess_launcher._started(os.getpid())
