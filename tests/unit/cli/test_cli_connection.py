"""Which server is talked to, what is said when there is none, and how errors are shown."""

from __future__ import annotations

import importlib
import json
import pkgutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_services
import grpc
import pytest
from command_results import Tunesmith
from fake_services import FakeServices, not_found, status
from google.longrunning import operations_pb2
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2

import tunesmith_proto
from tunesmith.addresses import SERVICE_PORTS, read_servers
from tunesmith.cli import main
from tunesmith.cli.connection import SERVICE_CONFIG
from tunesmith.domain.errors import InvalidSettings
from tunesmith_proto.scraper.v1 import scraper_pb2
from tunesmith_proto.trainer.v1 import models_pb2


def record_server(data: Path, address: str) -> None:
    data.mkdir(parents=True, exist_ok=True)
    (data / "server.json").write_text(json.dumps({"address": address, "pid": 1}))


@pytest.fixture
def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_the_running_server_of_the_data_folder_is_found(bare: Tunesmith, address: str, data: Path) -> None:
    record_server(data, address)

    ended = bare("recipes", f"--data={data}")

    assert ended.code == 0
    assert "micro_genre" in ended.out


def test_the_environment_names_server_and_data_folder_unless_options_do(
    bare: Tunesmith, address: str, data: Path, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_SERVER", address)
    named = bare("recipes")
    overruled = bare("recipes", f"--server={closed_port}")
    overruled_before = bare(f"--server={closed_port}", "recipes")
    monkeypatch.delenv("TUNESMITH_SERVER")
    record_server(data, address)
    monkeypatch.setenv("TUNESMITH_DATA", str(data))
    by_folder = bare("recipes")

    assert [named.code, overruled.code, overruled_before.code, by_folder.code] == [0, 69, 69, 0]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"address": 7}'])
def test_a_data_folder_without_a_usable_record_has_no_server(bare: Tunesmith, data: Path, content: str) -> None:
    data.mkdir()
    (data / "server.json").write_text(content)

    ended = bare("recipes", f"--data={data}")

    assert ended.code == 69
    assert ended.err.strip() == (
        f"error: no Tunesmith server answers for the data folder {data}; "
        "start one with `tunesmith up` or use `tunesmith run`"
    )


def test_a_record_of_a_dead_server_is_told_from_a_living_one(bare: Tunesmith, data: Path, closed_port: str) -> None:
    record_server(data, closed_port)

    ended = bare("recipes", f"--data={data}", "--json")

    assert (ended.code, ended.out) == (69, "")
    assert ended.problem["code"] == "UNAVAILABLE"
    assert ended.problem["reason"] == "NO_SERVER"
    assert f"at {closed_port};" in ended.problem["message"]


def test_a_server_that_is_draining_is_not_used(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.health = health_pb2.HealthCheckResponse.NOT_SERVING

    assert tunesmith("recipes").code == 69


def test_an_error_is_shown_with_reason_and_metadata(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.failures["GetJob"] = [status(code_pb2.NOT_FOUND, "job 'x' does not exist", "NOT_FOUND", job_id="x")] * 2

    for_people = tunesmith("jobs", "show", "x")
    for_programs = tunesmith("jobs", "show", "x", "--json")

    assert (for_people.code, for_people.out) == (1, "")
    assert for_people.err.splitlines() == [
        "error: job 'x' does not exist",
        "  reason: NOT_FOUND (NOT_FOUND)",
        "  job_id: x",
    ]
    assert (for_programs.code, for_programs.out) == (1, "")
    assert for_programs.problem == {
        "code": "NOT_FOUND",
        "reason": "NOT_FOUND",
        "message": "job 'x' does not exist",
        "metadata": {"job_id": "x"},
    }


def test_an_unknown_recipe_is_answered_with_the_nearest(tunesmith: Tunesmith, fake: FakeServices) -> None:
    unknown = status(
        code_pb2.INVALID_ARGUMENT,
        "recipe 'micro_gnre' is unknown",
        "UNKNOWN_RECIPE",
        value="micro_gnre",
        known="lyrics,micro_genre",
    )
    fake.failures["ListModels"] = [unknown]

    ended = tunesmith("models", "micro_gnre")

    assert ended.code == 1
    assert "Did you mean micro_genre?" in ended.err


def test_an_error_without_details_is_shown_with_its_code_and_a_hint(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.failures["ListModels"] = [status(code_pb2.UNAUTHENTICATED, "no token")]

    ended = tunesmith("models", "micro_genre")

    assert ended.code == 1
    assert "TUNESMITH_AUTH_TOKEN" in ended.err


def test_what_a_server_says_cannot_steer_the_terminal(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.failures["GetJob"] = [not_found("\x1b[2J[bold]gone")]

    ended = tunesmith("jobs", "show", "x")

    assert "\x1b[2J" not in ended.err
    assert "[bold]gone" in ended.err


def test_the_token_of_the_environment_is_sent(
    tunesmith: Tunesmith, fake: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_AUTH_TOKEN", "secret")

    tunesmith("recipes")

    assert ("authorization", "Bearer secret") in fake.metadata


def test_an_idempotent_call_is_sent_again_when_the_server_is_away_for_a_moment(
    tunesmith: Tunesmith, fake: FakeServices
) -> None:
    fake.failures["ListModels"] = [status(code_pb2.UNAVAILABLE, "away")]

    assert tunesmith("models", "micro_genre").code == 0
    assert len(fake.of(models_pb2.ListModelsRequest)) == 2


def test_a_call_that_must_not_be_repeated_is_sent_once(tunesmith: Tunesmith, fake: FakeServices) -> None:
    fake.failures["RollbackModel"] = [status(code_pb2.UNAVAILABLE, "away")]

    assert tunesmith("rollback", "micro_genre").code == 69
    assert len(fake.of(models_pb2.RollbackModelRequest)) == 1


NOT_FOLLOWED_BLINDLY = {
    ("tunesmith_proto.common.v1.JobService", "WatchJob"),
    ("google.longrunning.Operations", "WaitOperation"),
    ("google.longrunning.Operations", "DeleteOperation"),
}
"""Calls without a policy: whoever watches or waits looks at once what has become of the server."""


def test_the_shipped_policy_repeats_what_may_be_repeated_and_knows_every_rpc() -> None:
    ours = [info.name for info in pkgutil.walk_packages(tunesmith_proto.__path__, "tunesmith_proto.")]
    modules = [importlib.import_module(name) for name in ours if name.endswith("_pb2")]
    services = [
        service for module in (*modules, operations_pb2) for service in module.DESCRIPTOR.services_by_name.values()
    ]
    existing = {(service.full_name, method.name) for service in services for method in service.methods}
    repeated, waiting = json.loads(SERVICE_CONFIG.read_text())["methodConfig"]
    named = [[(name["service"], name["method"]) for name in part["name"]] for part in (repeated, waiting)]

    assert {*named[0], *named[1], *NOT_FOLLOWED_BLINDLY} == existing
    assert len({*named[0], *named[1]}) == len(named[0]) + len(named[1])
    assert repeated["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]
    assert "retryPolicy" not in waiting
    changing = {"PromoteModel", "RollbackModel", "UploadSource", "SetPolicy", "DeleteWatch"}
    assert {method for _, method in named[1]} == changing


@pytest.fixture
def apart(fake: FakeServices) -> Iterator[Callable[..., str]]:
    """Starts each service on a port of its own; gives the `--server` that names those asked for."""
    servers = {service: fake_services.start(fake, only=service) for service in SERVICE_PORTS}

    def named(*services: str) -> str:
        return ",".join(f"{service}={servers[service][1]}" for service in services or SERVICE_PORTS)

    yield named
    for server, _ in servers.values():
        server.stop(grace=0).wait()


def test_services_that_run_alone_are_each_asked_at_their_own_address(
    bare: Tunesmith, apart: Callable[..., str], fake: FakeServices, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = bare(f"--server={apart()}", f"--data={data}", "run", "micro_genre")
    monkeypatch.setenv("TUNESMITH_SERVER", apart())
    cancelled = bare("jobs", "cancel", "job-tune")

    assert run.code == 0, run.err
    assert cancelled.code == 0, cancelled.err
    assert {where for kind, where in fake.answered_by if kind == "CancelJobRequest"} == {"trainer"}
    assert {where for kind, where in fake.answered_by if kind == "GetOperationRequest"} == {"scraper", "trainer"}


def test_the_service_that_does_not_answer_is_named_with_its_address(
    bare: Tunesmith, apart: Callable[..., str], closed_port: str, data: Path, fake: FakeServices
) -> None:
    server = f"{apart('scraper', 'captioner', 'trainer')},generator={closed_port}"

    run = bare(f"--server={server}", f"--data={data}", "run", "micro_genre")
    datasets = bare(f"--server={server}", "datasets", "micro_genre")

    assert run.code == 69
    assert f"no generator answers at {closed_port}; start it with `python -m tunesmith_generator`" in run.err
    assert fake.of(scraper_pb2.CollectRequest) == [], "nothing is begun that cannot be ended"
    assert datasets.code == 0, "what needs other services only goes on"


def test_a_service_without_an_address_is_named(bare: Tunesmith, apart: Callable[..., str]) -> None:
    ended = bare(f"--server={apart('trainer')}", "captioners")

    assert ended.code == 69
    assert "--server names no address of the captioner; add captioner=HOST:PORT" in ended.err


def test_jobs_are_read_from_whichever_service_answers(
    bare: Tunesmith, apart: Callable[..., str], closed_port: str
) -> None:
    assert bare(f"--server=scraper={closed_port},{apart('trainer')}", "jobs").code == 0


@pytest.mark.parametrize(
    ("server", "targets"),
    [
        ("127.0.0.1:50400", dict.fromkeys(SERVICE_PORTS, "127.0.0.1:50400")),
        ("studio.local", {service: f"studio.local:{port}" for service, port in SERVICE_PORTS.items()}),
        ("[::1]", {service: f"[::1]:{port}" for service, port in SERVICE_PORTS.items()}),
        ("trainer=ipv4:10.0.0.1:1,10.0.0.2:1,scraper=s:2", {"trainer": "ipv4:10.0.0.1:1,10.0.0.2:1", "scraper": "s:2"}),
        ("dns:///generator:50404", dict.fromkeys(SERVICE_PORTS, "dns:///generator:50404")),
    ],
)
def test_servers_are_named_in_three_ways(server: str, targets: dict[str, str]) -> None:
    assert read_servers(server) == targets


@pytest.mark.parametrize("server", ["", "a b", "trainer=host", "baker=host:1", "trainer=a:1,trainer=b:1", "http://x/y"])
def test_an_address_of_another_form_is_wrong_usage(bare: Tunesmith, server: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|no service|twice"):
        read_servers(server)
    if server:
        assert bare(f"--server={server}", "recipes").code == 2


def test_a_call_that_takes_longer_than_the_timeout_ends_with_the_option_that_gives_it_longer(
    tunesmith: Tunesmith, fake: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    remaining_s: list[float] = []

    def never(request: object, context: grpc.ServicerContext) -> None:
        remaining_s.append(context.time_remaining())
        fake.release.wait()

    monkeypatch.setattr(fake, "enter", never)

    ended = tunesmith("models", "micro_genre", "--timeout", "0.3")

    assert 0 < remaining_s[0] < 1
    assert ended.code == 1
    assert "--timeout SECONDS" in ended.err


def test_a_mistake_of_our_own_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tunesmith.cli.commands.listing.connect", broken)

    with pytest.raises(ZeroDivisionError):
        main(["recipes"])


def test_a_wrong_setting_ends_up_before_it_starts(bare: Tunesmith, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_given: object) -> None:
        raise InvalidSettings("TUNESMITH_LISTEN='x' is not HOST:PORT", metadata={"setting": "TUNESMITH_LISTEN"})

    monkeypatch.setattr("tunesmith.settings.Settings.read", refused)

    ended = bare("up", "--listen", "x", f"--data={data}")

    assert ended.code == 1
    assert "INVALID_SETTINGS" in ended.err


def test_a_pipe_that_closes_early_ends_without_a_traceback(address: str) -> None:
    command = f"{sys.executable} -m tunesmith.cli jobs --json --server {address} | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)

    assert "Traceback" not in done.stderr
