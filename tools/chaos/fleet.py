"""The system under test as users run it: one embedded server, or four services over a real Kafka and a real MinIO."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import real_parts as parts

INJECT = Path(__file__).parent / "inject"
ENVIRONMENT = dict(os.environ)
"""What processes of this tool start from; its own environment changes while it looks at what they left."""

SERVICES = ("scraper", "captioner", "trainer", "generator")


@dataclass
class Member:
    """A process that is started again whenever it dies, as a container or pod would be."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0

    def start(self) -> None:
        """Start it, whatever was before."""
        self.started_s = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, env={**ENVIRONMENT, **self.env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None

    def kill(self, *, after_s: float) -> bool:
        """kill -9; whether there was anything to kill that has lived for `after_s`."""
        if not self.is_alive or time.monotonic() - self.started_s < after_s:
            return False
        assert self.process is not None
        self.process.kill()
        return True


@dataclass
class Fleet:
    """All processes of one episode. `addresses` is by service; in embedded mode all are the same."""

    folder: Path
    members: list[Member]
    addresses: Mapping[str, str]
    settings: Mapping[str, str]
    """The environment that opens the same store and bus from outside."""
    servers: Sequence[parts.Server] = ()
    """Broker and store, where they are real."""
    _stopping: threading.Event = field(default_factory=threading.Event)
    _keeper: threading.Thread | None = None

    def start(self) -> None:
        """Start everything, and begin to restart what dies."""
        for member in self.members:
            member.start()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        while not self._stopping.wait(0.05):
            for member in self.members:
                if not member.is_alive:
                    member.start()

    def workers(self) -> list[psutil.Process]:
        """Living worker processes of this episode."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            command = process.info["cmdline"] or []
            if "work" not in command[3:4] or process.info["status"] == psutil.STATUS_ZOMBIE:
                continue
            with contextlib.suppress(psutil.Error):
                if process.environ().get("TUNESMITH_CHAOS_FOLDER") == str(self.folder):
                    found.append(process)
        return found

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL after half a minute, and to workers that are left."""
        self._stopping.set()
        if self._keeper is not None:
            self._keeper.join()
        for member in self.members:
            if member.is_alive and member.process is not None:
                member.process.send_signal(signal.SIGTERM)
        for member in self.members:
            if member.process is not None:
                try:
                    member.process.wait(30)
                except subprocess.TimeoutExpired:
                    member.process.kill()
                    member.process.wait()
        for worker in self.workers():
            with contextlib.suppress(psutil.Error):
                worker.kill()


def _common(folder: Path) -> dict[str, str]:
    for name in ("armed", "fired", "lists"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return {
        "PYTHONPATH": str(INJECT),
        "TUNESMITH_CHAOS_FOLDER": str(folder),
        "TUNESMITH_SCRAPER_FILE_ROOTS": str(folder / "lists"),
        "TUNESMITH_LOG_FORMAT": "text",
        "TUNESMITH_DRAIN_S": "2",
        "TUNESMITH_SERVING": "none",
        "TUNESMITH_HOST_LOST_AFTER_S": "5",
    }


@contextlib.contextmanager
def embedded(folder: Path) -> Iterator[Fleet]:
    """`tunesmith up` over one folder."""
    env = _common(folder)
    data, port = folder / "data", parts.free_port()
    argv = [sys.executable, "-m", "tunesmith.cli", "--data", str(data), "up", "--listen", f"127.0.0.1:{port}"]
    settings = {"TUNESMITH_DATA": str(data)}
    member = Member("embedded", argv, {**env, **settings}, folder / "embedded.log")
    yield from _kept(Fleet(folder, [member], dict.fromkeys(SERVICES, f"127.0.0.1:{port}"), settings))


@dataclass(frozen=True)
class RealParts:
    """The broker and the store that all episodes in real mode share."""

    kafka: parts.Kafka
    minio: parts.Minio
    s3_endpoint: str
    """What the services are told: the store itself, or something in front of it that loses replies."""


@contextlib.contextmanager
def separate(folder: Path, real: RealParts, *, episode: int, max_poll_interval_s: float) -> Iterator[Fleet]:
    """Four processes over Kafka and MinIO; topics and bucket are the episode's own."""
    env = _common(folder)
    ports = {service: parts.free_port() for service in SERVICES}
    shared = {
        "TUNESMITH_BUS": f"kafka://{real.kafka.address}",
        "TUNESMITH_KAFKA_TOPIC_PREFIX": f"chaos-{os.getpid()}-{episode}.",
        "TUNESMITH_KAFKA_MAX_POLL_INTERVAL_S": str(max_poll_interval_s),
        "TUNESMITH_STORE": f"s3://chaos-{os.getpid()}-{episode}?endpoint={real.s3_endpoint}",
        "TUNESMITH_S3_ACCESS_KEY": real.minio.access_key,
        "TUNESMITH_S3_SECRET_KEY": real.minio.secret_key,
    }
    subprocess.run(
        [sys.executable, "-m", "tunesmith.cli", "setup"],
        env={**ENVIRONMENT, **shared},
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=120,
    )
    members = [
        Member(
            service,
            [sys.executable, "-m", f"tunesmith_{service}"],
            {
                **env,
                **shared,
                "TUNESMITH_DATA": str(folder / service),
                "TUNESMITH_LISTEN": f"127.0.0.1:{ports[service]}",
            },
            folder / f"{service}.log",
        )
        for service in SERVICES
    ]
    addresses = {service: f"127.0.0.1:{port}" for service, port in ports.items()}
    outside = {**shared, "TUNESMITH_STORE": shared["TUNESMITH_STORE"].replace(real.s3_endpoint, real.minio.endpoint)}
    yield from _kept(Fleet(folder, members, addresses, outside, (real.kafka, real.minio)))


def _kept(fleet: Fleet) -> Iterator[Fleet]:
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()
