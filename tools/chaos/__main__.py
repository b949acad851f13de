"""Kills everything, again and again, and says what was lost: `make chaos`.

Both modes are played beside each other. An episode is a fresh system with jobs under way. A random victim at a time is
killed with SIGKILL: a service, a worker, the broker, the store, or whatever process reaches a named point of
ARCHITECTURE.md's crash table first. After the last fault every job must end within a minute; then jobs, launches,
events, models and leftovers are counted. Prints a table, and ends with 1 when anything was lost or doubled. The same
seed draws the same victims and delays; what a process was doing at that moment is up to the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import psutil
import real_parts as parts
from chaos_points import POINTS, TRAINING_POINTS, file_of
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from store_faults import Faults, faulty

from chaos import checks
from chaos.checks import Findings
from chaos.fleet import Fleet, RealParts, embedded, separate
from chaos.workload import Workload

POINT_TIMEOUT_S = 4.0
"""How long a named point stays armed; one that nobody reached is counted as such, not as a kill."""
READY_TIMEOUT_S = 120.0

FAULTS = Faults(error_after=0.01, cut_after=0.01, twice=0.01)
"""What befalls the services' writes to the real store, beside the kills: replies are lost, requests come twice."""

MAX_POLL_INTERVAL_S = 2.0
"""Kafka's max.poll.interval in real mode: a training takes far longer."""

MakeFleet = Callable[[Path, int], AbstractContextManager[Fleet]]


class _Stopped(Exception):
    """Another mode broke, or somebody interrupted."""


class Peace:
    """While an episode of one mode comes to rest, the other strikes nothing: both share the machine's processors, and
    the minute that a system has to recover begins with the last fault, whosever it was."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_settling = 0

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Nothing is struck while the block runs."""
        with self._changed:
            self._num_settling += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_settling -= 1
                self._changed.notify_all()

    def wait(self) -> None:
        """Wait until nobody settles any more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._num_settling)


class Episode:
    """Kills until `num_kills` processes have died."""

    def __init__(
        self,
        fleet: Fleet,
        chance: random.Random,
        num_kills: int,
        on_kill: Callable[[], None],
        *,
        points: Mapping[str, str],
        stopping: threading.Event,
        peace: Peace,
    ) -> None:
        self._fleet = fleet
        self._chance = chance
        self._num_kills = num_kills
        self._on_kill = on_kill
        self._points = points
        self._stopping = stopping
        self._peace = peace
        self.findings = Findings()

    def run(self, workload: Workload) -> None:
        """Kill, wait until everything has ended, and check."""
        workload.start()
        self._await_first_job(workload)
        idle_s = time.monotonic()
        while self.findings.num_kills < self._num_kills and time.monotonic() - idle_s < 120 and not workload.errors:
            self._check_stopping()
            waited_s = time.monotonic()
            self._peace.wait()
            idle_s += time.monotonic() - waited_s
            time.sleep(self._chance.uniform(0.0, 0.6))
            if what := self._strike():
                idle_s = time.monotonic()
                self.findings.kills[what] += 1
                self._on_kill()
        with self._peace.kept():
            workload.stop()
            self.findings.notes += workload.errors
            checks.await_settled(self._fleet, self.findings)
        checks.check(self._fleet, workload.acknowledged, self.findings)

    def _await_first_job(self, workload: Workload) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not workload.acknowledged and not workload.errors and time.monotonic() < deadline_s:
            self._check_stopping()
            time.sleep(0.05)

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            raise _Stopped

    def _strike(self) -> str:
        """Kill one process; what it was, or "" when there was none."""
        kind = self._chance.choices(
            ("service", "worker", "point", "broker", "store"),
            (25, 25, 50, 1.5 if self._fleet.servers else 0, 3.5 if self._fleet.servers else 0),
        )[0]
        if kind == "service":
            member = self._chance.choice(self._fleet.members)
            # Some die while they start; most have come to do something.
            return f"service {member.name}" if member.kill(after_s=self._chance.uniform(0.0, 4.0)) else ""
        if kind == "worker":
            workers = self._fleet.workers()
            with contextlib.suppress(psutil.Error):
                if workers:
                    self._chance.choice(workers).kill()
                    return "a worker"
            return ""
        if kind == "point":
            return self._strike_at_point()
        server = self._fleet.servers[0 if kind == "broker" else 1]
        server.kill()
        time.sleep(self._chance.uniform(0.0, 2.0))
        server.start()
        return f"the {kind} ({server.name})"

    def _strike_at_point(self) -> str:
        point = self._chance.choice(list(self._points))
        name = file_of(self._points[point])
        fired = self._fleet.folder / "fired"
        before = len(list(fired.glob(f"{name}.*")))
        (self._fleet.folder / "armed" / name).touch()
        deadline_s = time.monotonic() + POINT_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if len(list(fired.glob(f"{name}.*"))) > before:
                return f"at: {point}"
            time.sleep(0.02)
        try:
            (self._fleet.folder / "armed" / name).unlink()
        except FileNotFoundError:
            return f"at: {point}"
        return ""


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mode", choices=("embedded", "real", "both"), default="both")
    parser.add_argument("--kills", type=int, default=1000, help="kills in all (default 1000)")
    parser.add_argument("--episode-kills", type=int, default=40, help="kills of one episode (default 40)")
    parser.add_argument("--jobs", type=int, default=4, help="jobs kept under way (default 4)")
    parser.add_argument("--train-every", type=int, default=6, help="train a model in every Nth episode (default 6)")
    parser.add_argument("--seed", type=int, default=None, help="play a printed seed again")
    parser.add_argument("--keep", type=Path, help="folder to leave data and logs in")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is stopped
    if options.mode != "embedded":
        try:
            parts.kafka_jars(), parts.minio_program()
        except parts.PartMissing as missing:
            parser.exit(1, f"chaos: {missing}; --mode embedded needs neither\n")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(10**6)
    console = Console(highlight=False)
    drawn_by = ("seed", "mode", "kills", "episode_kills", "jobs", "train_every")
    again = " ".join(f"--{name.replace('_', '-')} {getattr(options, name)}" for name in drawn_by)
    console.print(f"seed {options.seed}: `make chaos ARGS='{again}'` plays it again", soft_wrap=True)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="tunesmith-chaos-"))
    modes = ("embedded", "real") if options.mode == "both" else (options.mode,)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        found = _play(modes, folder, options, bar)
    console.print(_kill_table(found), _table(found))
    fine = all(findings.ok for findings in found.values())
    if not fine:
        console.print(f"data and logs of the episodes with faults: {folder}")
    elif options.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if fine else 1


def _play(modes: Sequence[str], folder: Path, options: argparse.Namespace, bar: Progress) -> dict[str, Findings]:
    """All modes at once; what was started is stopped when one breaks, or when this is interrupted."""
    stopping, peace = threading.Event(), Peace()
    with ThreadPoolExecutor(len(modes)) as players:
        playing = {
            mode: players.submit(_play_mode, mode, options.kills // len(modes), folder, options, bar, stopping, peace)
            for mode in modes
        }
        try:
            wait(playing.values(), return_when=FIRST_EXCEPTION)
        finally:
            stopping.set()
    broken = [error for player in playing.values() if (error := player.exception())]
    for error in sorted(broken, key=lambda error: isinstance(error, _Stopped)):
        raise error
    return {mode: player.result() for mode, player in playing.items()}


def _play_mode(
    mode: str,
    kills: int,
    folder: Path,
    options: argparse.Namespace,
    bar: Progress,
    stopping: threading.Event,
    peace: Peace,
) -> Findings:
    """Episode after episode, until so many have been killed."""
    task = bar.add_task(mode, total=kills)
    found = Findings()
    with _fleets(mode, folder, options.seed, found) as make:
        for episode in itertools.count():
            where = folder / mode / f"{episode:03d}"
            where.mkdir(parents=True, exist_ok=True)
            num_kills = min(options.episode_kills, kills - found.num_kills)
            # Not in both modes at once: PyTorch alone takes a core for some ten seconds.
            turn = episode + (options.train_every // 2 if mode == "real" else 0)
            trains = options.train_every and turn % options.train_every == 0
            chance = random.Random(f"{options.seed}/{mode}/{episode}")
            with make(where, episode) as fleet:
                points = POINTS | TRAINING_POINTS if trains else POINTS
                killed = partial(bar.advance, task)
                played = Episode(fleet, chance, num_kills, killed, points=points, stopping=stopping, peace=peace)
                base = _base_model(folder) if trains else None
                played.run(Workload(fleet, max_under_way=options.jobs, base_model=base))
            findings = played.findings
            found.add(findings)
            if bar.disable or not findings.ok:
                told = f"{found.num_kills} of {kills} kills, {findings.jobs} jobs, ended in {findings.settled_s:.1f} s"
                bar.console.print(f"{mode} episode {episode}: {told}, {'ok' if findings.ok else 'FAULTS'}")
            for note in findings.notes[:10]:
                bar.console.print(f"  {note}", markup=False)
            if findings.ok and options.keep is None:
                shutil.rmtree(where, ignore_errors=True)
            if not findings.num_kills:
                found.notes.append("nothing could be killed any more")
            if found.num_kills >= kills or not findings.num_kills:
                return found
    return found


@contextlib.contextmanager
def _fleets(mode: str, folder: Path, seed: int, found: Findings) -> Iterator[MakeFleet]:
    if mode == "embedded":
        yield lambda where, _episode: embedded(where)
        return
    broker, store = parts.kafka(folder / "kafka"), parts.minio(folder / "minio")
    with parts.running(broker), parts.running(store), faulty(store.endpoint, FAULTS, seed=seed) as proxy:
        real = RealParts(broker, store, proxy.endpoint)
        yield lambda where, episode: separate(where, real, episode=episode, max_poll_interval_s=MAX_POLL_INTERVAL_S)
        found.lost_replies += sum(proxy.struck.values())


def _base_model(folder: Path) -> Path:
    """A base of a few thousand random weights: everything is real but what it says."""
    from contract.tiny_models import build_base  # type: ignore[import-not-found]  # of the tests, which are on the path

    made = folder / "base"
    return made if made.exists() else Path(build_base(made))


def _kill_table(found: dict[str, Findings]) -> Table:
    table = Table("killed", *found, title="kill -9", title_justify="left")
    for what in sorted({what for findings in found.values() for what in findings.kills}):
        table.add_row(what, *(str(findings.kills[what]) for findings in found.values()))
    table.add_row("[bold]all", *(f"[bold]{findings.num_kills}" for findings in found.values()))
    return table


def _table(found: dict[str, Findings]) -> Table:
    table = Table("after the last fault", *found, title="What became of the jobs", title_justify="left")
    rows: dict[str, Callable[[Findings], str]] = {
        "jobs": lambda f: str(f.jobs),
        "attempts": lambda f: str(f.attempts),
        "longest job (s)": lambda f: f"{f.longest_job_s:.0f}",
        "replies of the store lost or doubled": lambda f: str(f.lost_replies),
        "all ended within (s; at most 60)": lambda f: f"{f.settled_s:.1f}",
        "jobs not ended by then": lambda f: str(f.unsettled),
        "lost jobs": lambda f: str(f.lost),
        "attempts launched twice": lambda f: str(f.doubled_launches),
        "doubled effects": lambda f: str(f.doubled_effects),
        "jobs that ended untold": lambda f: str(f.untold),
        "dead letters": lambda f: str(f.dead_letters),
        "orphans": lambda f: str(f.orphans),
    }
    for title, value in rows.items():
        table.add_row(title, *(value(findings) for findings in found.values()))
    return table


if __name__ == "__main__":
    sys.exit(main())
