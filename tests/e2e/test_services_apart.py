"""The four services as processes of their own, which share nothing but a store and a bus."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from contract.deadline import eventually
from fixtures_places import Place
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.addresses import SERVICE_PORTS
from tunesmith.jobs.state import JobStore
from tunesmith.rpc.health import ask


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass
class Apart:
    """Processes of services by name (a second trainer is `trainer-2`), each with a data folder of its own."""

    root: Path
    place: Place
    env: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    def start(self, name: str, **env: str) -> None:
        """Start a process without waiting for it."""
        self.addresses.setdefault(name, f"127.0.0.1:{free_port()}")
        settings = {
            "TUNESMITH_DATA": str(self.root / name),
            "TUNESMITH_LISTEN": self.addresses[name],
            **self.place.shared_environment(self.root),
            "TUNESMITH_HOST_LOST_AFTER_S": "2",
            "TUNESMITH_DRAIN_S": "1",
        }
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"tunesmith_{name.partition('-')[0]}"],
                env={**os.environ, **settings, **self.env, **env},
                stderr=log,
                start_new_session=True,
            )

    def serve(self, *names: str) -> None:
        """Start processes and wait until they serve."""
        for name in names:
            self.start(name)
        for name in names:
            eventually(lambda name=name: self.is_serving(name), timeout_s=60)

    def is_serving(self, name: str) -> bool:
        assert self.processes[name].poll() is None, self.log(name)
        return not ask(self.addresses[name])

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Kill a server alone; its workers live on."""
        self.processes[name].send_signal(number)
        return self.processes[name].wait(60)

    @property
    def server(self) -> str:
        return ",".join(f"{name}={self.addresses[name]}" for name in SERVICE_PORTS if name in self.addresses)

    def tunesmith(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tunesmith.cli", "--server", self.server, *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False, cwd=self.root)

    @property
    def jobs(self) -> JobStore:
        return JobStore(self.place.store(self.root), SystemClock())

    def workers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if "work" in process.cmdline() and str(self.root) in process.environ().get("TUNESMITH_DATA", ""):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        for worker in self.workers():
            worker.kill()


@pytest.fixture
def apart(place: Place, tmp_path: Path) -> Iterator[Apart]:
    place.store(tmp_path)  # makes its buckets
    services = Apart(tmp_path, place)
    yield services
    services.end()


@pytest.mark.heavy
def test_the_whole_chain_runs_over_four_processes_and_two_trainers(
    apart: Apart, micro_run: Callable[..., list[str]]
) -> None:
    apart.serve("scraper", "captioner", "trainer", "trainer-2", "generator")

    run = apart.tunesmith(*micro_run("--samples=0", "--json"))
    jobs = apart.tunesmith("--json", "jobs")

    assert run.returncode == 3, run.stderr
    assert {job.kind: job.attempt for job in map(apart.jobs.get, apart.jobs.all_ids())} == dict.fromkeys(
        ("collect", "curate", "tune", "judge"), 1
    )
    assert jobs.returncode == 0, jobs.stderr


def test_the_job_of_a_killed_host_ends_at_another_replica_and_once(apart: Apart, names_file: Path) -> None:
    apart.serve("scraper", "trainer")
    collected = apart.tunesmith("--json", "collect", "micro_genre", "--source", str(names_file))
    assert collected.returncode == 0, collected.stderr
    apart.kill("trainer")
    apart.jobs.submit(
        job_id="j1",
        kind="curate",
        service="trainer",
        request={"recipe": "micro_genre", "collection_ids": [], "settings": {}},
    )
    lost = "a" * 32  # a host that launched it and was never heard of again
    apart.jobs.change("j1", lambda j: apart.jobs.step(j, phase="running", attempt=1, epoch=1, host=lost))

    apart.serve("trainer-2")

    ended = eventually(lambda: (job := apart.jobs.get("j1")).is_terminal and job, timeout_s=60)
    assert (ended.attempt, ended.host != lost) == (2, True)
    eventually(lambda: "j1" not in list(apart.jobs.active_ids()))


def test_a_second_server_of_one_service_on_one_data_folder_is_refused(apart: Apart) -> None:
    apart.serve("scraper")
    apart.start("scraper-2", TUNESMITH_DATA=str(apart.root / "scraper"))

    assert apart.processes["scraper-2"].wait(60) == 2
    assert "is served by another scraper already; give each replica a folder of its own" in apart.log("scraper-2")


def test_services_of_several_kinds_may_share_a_data_folder(apart: Apart) -> None:
    apart.env["TUNESMITH_DATA"] = str(apart.root / "one")

    apart.serve("scraper", "generator")


def test_a_server_that_is_asked_to_end_ends_in_order(apart: Apart) -> None:
    apart.serve("captioner")

    assert apart.kill("captioner", signal.SIGTERM) == 0
    assert ask(apart.addresses["captioner"]) == "no answer (UNAVAILABLE)"
