"""The command line as people use it: two servers, Ctrl-C, typos."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from contract.deadline import eventually


def server_of(data: Path) -> str:
    """Where the data folder is served, once it is."""
    path = data / "server.json"
    return str(json.loads(eventually(lambda: path.exists() and path.read_text(), timeout_s=60))["address"])


def test_a_second_server_on_the_same_data_folder_is_refused(command_line):
    first = command_line.start("up", "--listen", "127.0.0.1:0")
    address = server_of(command_line.data)

    second = command_line.run("up", "--listen", "127.0.0.1:0")

    assert second.returncode == 1
    assert f"is served already at {address}" in second.stderr
    assert "Traceback" not in second.stderr
    first.send_signal(signal.SIGINT)
    assert first.wait(60) in (0, 130)
    assert not (command_line.data / "server.json").exists()


def test_a_port_in_use_is_named(command_line, tmp_path):
    first = command_line.start("up", "--listen", "127.0.0.1:0")
    address = server_of(command_line.data)

    second = command_line.run("--data", str(tmp_path / "other"), "up", "--listen", address)

    first.send_signal(signal.SIGTERM)
    first.wait(60)
    assert second.returncode == 69
    assert f"{address}: the port is in use" in second.stderr


@pytest.mark.heavy
def test_ctrl_c_keeps_what_was_done_and_the_same_command_continues(command_line, micro_run):
    first = command_line.start(*micro_run())
    launches = command_line.data / "launches"
    eventually(lambda: launches.exists() and list(launches.glob("tune-*")), timeout_s=120)
    first.send_signal(signal.SIGINT)
    _, stderr = first.communicate(timeout=120)
    assert first.returncode == 130, stderr
    assert eventually(lambda: not command_line.processes(), timeout_s=60), "the workers were asked to save and end"

    again = command_line.json(*micro_run())

    jobs = {job["id"]: job for job in command_line.rows("jobs/*/state.json")}
    assert sorted(job["kind"] for job in jobs.values()) == ["collect", "curate", "judge", "tune"]
    assert len(again["run"]["adapter_hash"]) == 64
