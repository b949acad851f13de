"""Brings a real Kafka broker and a real MinIO server to a machine without Docker, and runs them on free ports.

Kafka's jars come through Maven by their coordinates (needs Java 17 and Maven), MinIO by `go install` (needs Go). Both
are kept in a cache outside the tree (TUNESMITH_PARTS_CACHE, else `tunesmith/real-parts` in the user's cache folder).

    python tools/real_parts.py get            fetch all (Go programs are compiled: some minutes, once)
    python tools/real_parts.py up FOLDER      start both on FOLDER and print the settings to export; Ctrl-C stops them

`get` brings kustomize and kube-linter as well, which check the Kubernetes manifests. Imported by the tests, the chaos
tool and the benchmarks. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

KAFKA_VERSION = "4.3.0"
LOG4J_VERSION = "2.25.1"
MINIO_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
"""The module's last commit; it has the fix for conditions that were ignored without read quorum."""

KUSTOMIZE_VERSION = "v5.8.1"
KUBE_LINTER_VERSION = "v0.8.3"

START_TIMEOUT_S = 120.0
GET_TIMEOUT_S = 1800.0

_GO = {"go": "Go 1.24 or newer from https://go.dev/dl"}

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tunesmith</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>{LOG4J_VERSION}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>{LOG4J_VERSION}</version></dependency>
</dependencies></project>
"""

_LOG4J = """status = warn
rootLogger.level = warn
rootLogger.appenderRef.stdout.ref = stdout
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d %p %c{1} %m%n
"""


class PartMissing(Exception):
    """This machine cannot bring a part; the message says what would."""


def cache_folder() -> Path:
    """Where fetched parts are kept."""
    given = os.environ.get("TUNESMITH_PARTS_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(base) / "tunesmith" / "real-parts"


def kafka_jars() -> Path:
    """The folder of Kafka's jars, fetched the first time; PartMissing without Java and Maven."""
    _require("Kafka", {"java": "Debian's openjdk-17-jre-headless", "mvn": "Debian's maven"})

    def fetch(target: Path) -> None:
        (target / "pom.xml").write_text(_POM)
        (target / "log4j2.properties").write_text(_LOG4J)
        _call(["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=lib"],
              cwd=target)  # fmt: skip

    return _cached(f"kafka-{KAFKA_VERSION}-{LOG4J_VERSION}", fetch)


def minio_program() -> Path:
    """The MinIO server's program, compiled the first time; PartMissing without Go."""
    return go_program("minio", "github.com/minio/minio", MINIO_VERSION, part="MinIO")


def go_program(name: str, package: str, version: str, *, part: str = "") -> Path:
    """A program compiled by `go install` the first time; PartMissing, naming `part`, without Go."""
    _require(part or name, _GO)

    def fetch(target: Path) -> None:
        _call(["go", "install", "-trimpath", "-ldflags=-s -w", f"{package}@{version}"],
              cwd=target, GOBIN=str(target), CGO_ENABLED="0")  # fmt: skip

    return _cached(f"{name}-{version}", fetch) / name


def render_command() -> list[str]:
    """The command that renders a kustomization, without its folder; a kubectl on the PATH is used as it is."""
    if kubectl := shutil.which("kubectl"):
        return [kubectl, "kustomize"]
    return [str(go_program("kustomize", "sigs.k8s.io/kustomize/kustomize/v5", KUSTOMIZE_VERSION)), "build"]


def kube_linter() -> Path:
    """kube-linter's program; one on the PATH is used as it is."""
    if found := shutil.which("kube-linter"):
        return Path(found)
    _require("kube-linter", _GO)

    def fetch(target: Path) -> None:
        # Its module calls itself by a name under which the module proxy does not have it.
        module = "golang.stackrox.io/kube-linter"
        (target / "go.mod").write_text(
            f"module build\ngo 1.24.0\nrequire {module} {KUBE_LINTER_VERSION}\n"
            f"replace {module} => github.com/stackrox/kube-linter {KUBE_LINTER_VERSION}\n"
        )
        (target / "program.go").write_text(f'//go:build tools\npackage build\nimport _ "{module}/cmd/kube-linter"\n')
        _call(["go", "mod", "tidy"], cwd=target, GOFLAGS="-mod=mod")
        _call(["go", "build", "-trimpath", "-ldflags=-s -w", "-o", "kube-linter", f"{module}/cmd/kube-linter"],
              cwd=target, CGO_ENABLED="0")  # fmt: skip

    return _cached(f"kube-linter-{KUBE_LINTER_VERSION}", fetch) / "kube-linter"


@dataclass
class Server:
    """A server process over a folder; stopped and started again it has the same address and data."""

    name: str
    folder: Path
    argv: Sequence[str]
    env: Mapping[str, str]
    is_ready: Callable[[], bool]
    dies_with_parent: bool = True
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log(self) -> Path:
        """What it printed, all starts one after the other."""
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Start it and return when it answers; RuntimeError with its last words when it does not."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                cwd=self.folder,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent if self.dies_with_parent else None,
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                said = self.log.read_text(errors="replace")[-2000:]
                self.kill()
                raise RuntimeError(f"{self.name} did not start within {START_TIMEOUT_S:.0f} s; its last words:\n{said}")
            time.sleep(0.05)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after ten seconds."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL: what a power cut leaves is left."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def pause(self) -> None:
        """SIGSTOP: it is there and does not answer."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@dataclass
class Kafka(Server):
    """One broker in KRaft mode, for plaintext clients of this machine."""

    port: int = 0

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"


@dataclass
class Minio(Server):
    """One MinIO server over a folder."""

    port: int = 0
    access_key: str = ""
    secret_key: str = ""

    @property
    def endpoint(self) -> str:
        """`http://host:port`."""
        return f"http://127.0.0.1:{self.port}"


def kafka(
    folder: Path, *, port: int = 0, config: Mapping[str, str] | None = None, dies_with_parent: bool = True
) -> Kafka:
    """A broker over `folder`, formatted but not started. `config` adds to its properties or overrides them."""
    jars = kafka_jars()
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    controller = free_port()
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,"
        "SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
        "log.dirs": str(folder / "data"),
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "2",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "auto.create.topics.enable": "false",
        **(config or {}),
    }
    file = folder / "server.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    java = ["java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={jars / 'log4j2.properties'}", "-cp", f"{jars / 'lib'}/*"]  # fmt: skip
    if not (folder / "data").exists():
        _call([*java, "kafka.tools.StorageTool", "format", "--standalone", "-t", _kafka_uuid(), "-c", str(file)],
              cwd=folder, error=RuntimeError)  # fmt: skip
    return Kafka("kafka", folder, [*java, "kafka.Kafka", str(file)], {}, lambda: _kafka_answers(port),
                 dies_with_parent, port=port)  # fmt: skip


def minio(folder: Path, *, port: int = 0, env: Mapping[str, str] | None = None, dies_with_parent: bool = True) -> Minio:
    """A MinIO server over `folder`, with keys of its own, not started. `env` adds to its environment."""
    program = minio_program()
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    keys = folder / "root-keys"
    if not keys.exists():
        keys.write_text(f"tunesmith-test {secrets.token_hex(12)}")
    access_key, secret_key = keys.read_text().split()
    given = {"MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key, "MINIO_CI_CD": "1",
             "MINIO_BROWSER": "off", **(env or {})}  # fmt: skip
    argv = [str(program), "server", str(folder / "objects"), "--address", f"127.0.0.1:{port}"]
    return Minio("minio", folder, argv, given, lambda: _answers_http(f"http://127.0.0.1:{port}/minio/health/ready"),
                 dies_with_parent, port=port, access_key=access_key, secret_key=secret_key)  # fmt: skip


@contextlib.contextmanager
def running(server: Server) -> Iterator[None]:
    """Start it, and stop it at the end of the block."""
    try:
        server.start()
        yield
    finally:
        server.stop()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _kafka_answers(port: int) -> bool:
    """Whether the broker handles requests: it opens its port before it does. Sends ApiVersions, version 0."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(2)
            connection.sendall(struct.pack(">i", len(request)) + request)
            return len(connection.recv(4)) == 4
    except OSError:
        return False


def _answers_http(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _kafka_uuid() -> str:
    import base64

    while True:
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not made.startswith("-"):  # which would be taken for an option
            return made


def _die_with_parent() -> None:
    """In the child: end when the thread that started it ends, however it ends (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _require(part: str, programs: Mapping[str, str]) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        remedy = " and ".join(programs[program] for program in missing)
        raise PartMissing(f"no {' and no '.join(missing)} here to bring {part}; install {remedy}")


def _cached(name: str, fetch: Callable[[Path], None]) -> Path:
    """The cached folder `name`, filled by `fetch` the first time; of several processes one fetches."""
    cache = cache_folder()
    target = cache / name
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as work:
                folder = Path(work) / "part"
                folder.mkdir()
                fetch(folder)
                folder.rename(target)
    return target


def _call(argv: Sequence[str], *, cwd: Path, error: type[Exception] = PartMissing, **env: str) -> None:
    done = subprocess.run(argv, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=GET_TIMEOUT_S)  # fmt: skip
    if done.returncode:
        raise error(f"`{' '.join(argv[:3])} ...` failed: {(done.stderr or done.stdout).strip()[-1500:]}")


def main(argv: Sequence[str]) -> int:
    """See the module's docstring."""
    match argv:
        case ["get"]:
            print(f"Kafka: {kafka_jars()}", flush=True)
            print(f"MinIO: {minio_program()}", flush=True)
            print(f"kustomize: {' '.join(render_command())}\nkube-linter: {kube_linter()}")
        case ["up", name]:
            folder = Path(name).absolute()
            broker, store = kafka(folder / "kafka"), minio(folder / "minio")
            with running(broker), running(store), contextlib.suppress(KeyboardInterrupt):
                print(f"export TUNESMITH_TEST_KAFKA={broker.address}")
                print(f"export TUNESMITH_TEST_S3={store.endpoint}")
                print(f"export TUNESMITH_S3_ACCESS_KEY={store.access_key} TUNESMITH_S3_SECRET_KEY={store.secret_key}")
                sys.stdout.flush()
                signal.sigwait({signal.SIGINT, signal.SIGTERM})
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PartMissing as missing:
        sys.exit(f"real_parts: {missing}")
