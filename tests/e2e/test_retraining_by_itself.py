"""Retraining by itself: with a server running, rows that are appended to a watched file become a verdict unaided."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from contract.deadline import eventually
from e2e.conftest import MICRO_SETTINGS, NAMES
from e2e.test_command_line import server_of

pytestmark = pytest.mark.heavy


def jobs_of(command_line: Any, kind: str) -> list[dict[str, Any]]:
    return [job for job in command_line.rows("jobs/*/state.json") if job["kind"] == kind]


def test_rows_appended_to_a_watched_file_lead_to_a_verdict_without_another_command(
    command_line, micro_base, tmp_path, monkeypatch
):
    source = tmp_path / "lists" / "names.txt"
    source.parent.mkdir()
    source.write_text("\n".join(NAMES[:60]) + "\n")
    monkeypatch.setenv("TUNESMITH_SCRAPER_FILE_ROOTS", str(source.parent))
    monkeypatch.setenv("TUNESMITH_SCRAPER_WATCH_INTERVAL_S", "0.1")
    monkeypatch.setenv("TUNESMITH_SCRAPER_WATCH_SETTLE_S", "0.3")
    up = command_line.start("up", "--listen", "127.0.0.1:0")
    server_of(command_line.data)
    settings = [part for setting in MICRO_SETTINGS for part in ("--set", setting)]
    policy = ["--min-new", "70", "--cool-down", "0", "--base-model", str(micro_base), *settings]
    command_line.json("policy", "micro_genre", "--enable", *policy)

    command_line.json("watch", "micro_genre", str(source))
    eventually(lambda: [job for job in jobs_of(command_line, "curate") if job["phase"] == "succeeded"], timeout_s=60)
    waiting = eventually(
        lambda: (shown := command_line.json("policy", "micro_genre"))["standing"]["num_new_examples"] and shown
    )["standing"]
    followed = command_line.start("--json", "follow", "micro_genre", "--once")
    first = json.loads(followed.stdout.readline())
    with source.open("a") as more:
        more.write("\n".join(NAMES[60:]) + "\n")
    output, errors = followed.communicate(timeout=300)

    assert waiting["message"] == "60 of 70 new examples"
    assert (first["step"], first["message"]) == ("policy", "waits: 60 of 70 new examples")
    steps = [json.loads(line)["step"] for line in output.splitlines()]
    assert [step for step in steps if step in ("collected", "curated", "tuned", "refused")] == [
        "collected",
        "curated",
        "tuned",
        "refused",
    ], errors
    assert followed.returncode == 3, "a model of random weights is refused"
    ended = eventually(
        lambda: (shown := command_line.json("policy", "micro_genre"))["standing"]["last_run"]["outcome"] and shown
    )["standing"]
    assert (ended["last_run"]["outcome"], ended["num_new_examples"]) == ("refused", 0)

    # Nothing has changed: a touch and a restart start nothing.
    os.utime(source)
    up.send_signal(signal.SIGTERM)
    up.wait(60)
    command_line.start("up", "--listen", "127.0.0.1:0")
    server_of(command_line.data)
    eventually(lambda: command_line.json("policy", "micro_genre")["standing"]["reason"] == "too_few_new")
    assert [len(jobs_of(command_line, kind)) for kind in ("collect", "curate", "tune", "judge")] == [2, 2, 1, 1]
