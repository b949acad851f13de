"""What every launcher must do; an adapter's test gives the `opener` fixture."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from contract.deadline import eventually
from contract.processes import Reporter, running
from tunesmith.domain.errors import InvalidInput
from tunesmith.ports.launcher import Launcher, LaunchStatus

Opener = Callable[[], Launcher]
"""Opens the launcher anew; can be sent to another process."""

# Many short sleeps: a signal that comes just before a long one would be handled after it.
ENDLESS = "import time; print('started', flush=True); all(time.sleep(0.05) is None for _ in iter(int, 1))"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ENDLESS}"
POLITE = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); {ENDLESS}"


def program(code: str) -> list[str]:
    """The command line of a Python program."""
    return [sys.executable, "-c", code]


class LauncherContract:
    """Subclass it with an `opener` fixture."""

    sees_every_end = True
    """False where a process may be taken away before anybody saw it begin: it is lost then."""

    @pytest.fixture
    def opener(self) -> Opener:
        """How to open the launcher under test."""
        raise NotImplementedError

    @pytest.fixture
    def launcher(self, opener: Opener) -> Iterator[Launcher]:
        """The launcher under test; what is left running is stopped at the end."""
        launcher = opener()
        yield launcher
        for name in launcher.names():
            launcher.stop(name, grace_s=0.0)

    def test_a_name_never_launched_is_absent(self, launcher: Launcher) -> None:
        assert launcher.status("never") == LaunchStatus("absent")
        launcher.stop("never", grace_s=0.0)
        launcher.forget("never")
        assert launcher.names() == []

    @pytest.mark.parametrize(("code", "exit_code"), [("pass", 0), ("raise SystemExit(3)", 3), ("1 / 0", 1)])
    def test_the_exit_code_is_kept(self, launcher: Launcher, code: str, exit_code: int) -> None:
        launcher.launch("job", program(code), env={})

        assert ended(launcher, "job").exit_code == exit_code

    def test_a_death_by_signal_is_a_negative_exit_code(self, launcher: Launcher) -> None:
        launcher.launch("job", program("import os, signal; os.kill(os.getpid(), signal.SIGUSR1)"), env={})

        assert ended(launcher, "job").exit_code == -signal.SIGUSR1

    def test_arguments_and_environment_arrive(self, launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OF_THE_LAUNCHER", "inherited")
        monkeypatch.setenv("OVERRIDDEN", "old")
        code = "import os, sys; print(sys.argv[1:], *map(os.environ.get, ('OF_THE_LAUNCHER', 'OVERRIDDEN', 'ADDED')))"

        launcher.launch("job", [*program(code), "a b", "", "ü$HOME"], env={"OVERRIDDEN": "new", "ADDED": "x=y"})

        assert ended(launcher, "job").log_tail == "['a b', '', 'ü$HOME'] inherited new x=y\n"

    def test_both_outputs_are_in_the_log(self, launcher: Launcher) -> None:
        launcher.launch("job", program("import sys; print('out', flush=True); print('err', file=sys.stderr)"), env={})

        assert ended(launcher, "job").log_tail == "out\nerr\n"

    def test_only_the_last_lines_of_a_log_are_told(self, launcher: Launcher) -> None:
        code = "for n in range(20_000): print(f'line {n} é')"

        launcher.launch("job", program(code), env={})

        log_tail = ended(launcher, "job").log_tail
        assert 2000 < len(log_tail.encode()) <= 4096
        assert log_tail.startswith("line ")
        assert log_tail.endswith("line 19999 é\n")

    def test_output_that_is_not_text_does_no_harm(self, launcher: Launcher) -> None:
        launcher.launch("job", program("import sys; sys.stdout.buffer.write(bytes(range(256)) * 100)"), env={})

        assert len(ended(launcher, "job").log_tail.encode()) <= 4096

    def test_a_running_process_is_running(self, launcher: Launcher) -> None:
        launcher.launch("job", program(ENDLESS), env={})

        eventually(lambda: launcher.status("job").log_tail == "started\n")

        assert launcher.status("job") == LaunchStatus("running", None, "started\n")
        assert launcher.names() == ["job"]

    def test_launching_again_starts_nothing(self, launcher: Launcher, opener: Opener) -> None:
        launcher.launch("job", program("print('first')"), env={})
        ended(launcher, "job")

        launcher.launch("job", program("print('second')"), env={})
        opener().launch("job", program("print('third')"), env={})

        assert launcher.status("job") == LaunchStatus("exited", 0, "first\n")

    def test_of_racing_launches_one_starts(self, launcher: Launcher) -> None:
        start = threading.Barrier(8)

        def launch(number: int) -> None:
            start.wait()
            for name in range(5):
                launcher.launch(f"job-{name}", program(f"print({number})"), env={})
                assert launcher.status(f"job-{name}").state in ("running", "exited")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(launch, range(8)))

        for name in range(5):
            assert len(ended(launcher, f"job-{name}").log_tail.splitlines()) == 1

    def test_of_racing_launchers_one_starts(self, launcher: Launcher, opener: Opener) -> None:
        with ExitStack() as stack:
            processes = [stack.enter_context(running(_launch_many, opener, n)) for n in range(3)]
            for process in processes:
                process.report()

            for name in launcher.names():
                eventually(lambda name=name: launcher.status(name).state == "exited")
                assert len(launcher.status(name).log_tail.splitlines()) == 1
        assert len(launcher.names()) == 10

    def test_a_process_survives_the_death_of_its_launcher(self, launcher: Launcher, opener: Opener) -> None:
        with running(_launch_and_wait, opener, program(POLITE)) as first:
            first.report()
            eventually(lambda: launcher.status("job").log_tail == "started\n")
            first.kill()

        assert launcher.status("job").state == "running"
        launcher.launch("job", program("print('again')"), env={})
        assert launcher.status("job") == LaunchStatus("running", None, "started\n")
        launcher.stop("job", grace_s=30.0)
        status = launcher.status("job")
        assert (status.state, status.exit_code) in (("lost", None), ("exited", 7))

    def test_the_launcher_of_a_process_can_die_with_it(self, launcher: Launcher, opener: Opener) -> None:
        with running(_launch_and_wait, opener, program(ENDLESS)) as first:
            first.report()
            first.kill()

        launcher.stop("job", grace_s=30.0)

        status = launcher.status("job")
        assert (status.state, status.exit_code) in (("lost", None), ("exited", -signal.SIGTERM))

    def test_stopping_lets_a_process_end_by_itself(self, launcher: Launcher) -> None:
        launcher.launch("job", program(POLITE), env={})
        eventually(lambda: launcher.status("job").log_tail == "started\n")

        launcher.stop("job", grace_s=60.0)

        assert launcher.status("job") == LaunchStatus("exited", 7, "started\n")

    def test_stopping_ends_a_process_that_does_not_want_to(self, launcher: Launcher) -> None:
        launcher.launch("job", program(STUBBORN), env={})
        eventually(lambda: launcher.status("job").log_tail == "started\n")

        launcher.stop("job", grace_s=0.2)
        launcher.stop("job", grace_s=0.2)

        assert launcher.status("job") == LaunchStatus("exited", -signal.SIGKILL, "started\n")

    def test_a_process_can_be_stopped_the_moment_it_was_launched(self, launcher: Launcher) -> None:
        launcher.launch("job", program(ENDLESS), env={})

        launcher.stop("job", grace_s=60.0)

        status = launcher.status("job")
        seen = status.exit_code == -signal.SIGTERM
        assert seen or (status.state == "lost" and not self.sees_every_end)

    def test_a_forgotten_name_can_be_used_again(self, launcher: Launcher) -> None:
        launcher.launch("job", program("print('first')"), env={})
        ended(launcher, "job")

        launcher.forget("job")

        assert launcher.status("job") == LaunchStatus("absent")
        assert launcher.names() == []
        launcher.launch("job", program("print('second')"), env={})
        assert ended(launcher, "job").log_tail == "second\n"

    def test_names_are_found_by_prefix(self, launcher: Launcher) -> None:
        for name in ("tune-b-1", "tune-a-1", "collect-a-1"):
            launcher.launch(name, program("pass"), env={})

        assert launcher.names("tune-") == ["tune-a-1", "tune-b-1"]
        assert launcher.names() == ["collect-a-1", "tune-a-1", "tune-b-1"]
        assert launcher.names("x") == []

    @pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "A", "x" * 64, "a b", "ü"])
    def test_an_invalid_name_is_refused(self, launcher: Launcher, name: str) -> None:
        with pytest.raises(InvalidInput):
            launcher.launch(name, program("pass"), env={})
        with pytest.raises(InvalidInput):
            launcher.status(name)
        assert launcher.names() == []


def ended(launcher: Launcher, name: str) -> LaunchStatus:
    """The status of a launch after its end. Nothing is lost while its launcher lives."""

    def exited() -> LaunchStatus | None:
        status = launcher.status(name)
        assert status.state in ("running", "exited")
        return status if status.state == "exited" else None

    status = eventually(exited)
    assert status is not None
    return status


def _launch_many(report: Reporter, opener: Opener, number: int) -> None:
    launcher = opener()
    for name in range(10):
        launcher.launch(f"job-{name}", program(f"print({number})"), env={})
    for name in range(10):
        eventually(lambda name=name: launcher.status(f"job-{name}").state == "exited", timeout_s=55.0)
    report("done")


def _launch_and_wait(report: Reporter, opener: Opener, argv: list[str]) -> None:
    opener().launch("job", argv, env={})
    report("launched")
    threading.Event().wait()
