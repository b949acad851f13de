"""kill -9 of any process at a random moment of a run: the next start finishes the work once, with the same bytes.

TUNESMITH_KILL_ROUNDS and TUNESMITH_KILL_SEED choose how many rounds are played, and which. TUNESMITH_KILL_RUN=full
plays them on the run that a new user makes, `tunesmith run micro_genre`, minutes each.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import psutil
import pytest

from contract.deadline import eventually
from e2e.conftest import CommandLine

pytestmark = pytest.mark.heavy

ROUNDS = int(os.environ.get("TUNESMITH_KILL_ROUNDS", "1"))
SEED = int(os.environ.get("TUNESMITH_KILL_SEED", "1"))
TIMEOUT_S = 1200.0


@pytest.fixture
def run(micro_run) -> tuple[list[str], int]:
    """The command that is killed, and its exit code."""
    full = os.environ.get("TUNESMITH_KILL_RUN") == "full"
    return (["run", "micro_genre"], 0) if full else (micro_run(), 3)


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, object]:
    """What a run comes to when nobody kills anything, the same in every place; filled by the first round."""
    return {}


@pytest.mark.parametrize("round_number", range(ROUNDS))
def test_a_killed_run_is_finished_once_by_the_next_start(round_number, place, tmp_path, run, undisturbed):
    arguments, exit_code = run
    if not undisturbed:
        quiet = CommandLine(tmp_path / "undisturbed", place)
        began_s = time.monotonic()
        done = quiet.run(*arguments, timeout_s=TIMEOUT_S)
        assert done.returncode == exit_code, done.stderr
        undisturbed |= {"state": state_of(quiet), "took_s": time.monotonic() - began_s}
    chance = random.Random(f"{SEED}/{round_number}")
    line = CommandLine(tmp_path / "killed", place)

    process = line.start(*arguments)
    delay_s = chance.uniform(0, float(undisturbed["took_s"]))
    deadline_s = time.monotonic() + delay_s
    while time.monotonic() < deadline_s and process.poll() is None:
        time.sleep(0.01)
    victims = sorted(line.processes(), key=lambda p: p.pid)
    victim = chance.choice(victims) if victims else None
    print(f"seed {SEED}/{round_number}: kill -9 after {delay_s:.2f} s of {name_of(victim)}")
    if victim is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
    process.communicate(timeout=TIMEOUT_S)

    # One that lost a worker finishes by itself. One that was killed continues, unless its work was done by then.
    judged, unfinished = line.rows("reports/*.json"), list(line.data.glob("run-sessions/*.json"))
    if process.returncode != exit_code and (unfinished or not judged):
        again = line.run(*arguments, timeout_s=TIMEOUT_S)
        assert again.returncode == exit_code, again.stderr

    eventually(lambda: not line.processes())
    assert state_of(line) == undisturbed["state"]


def name_of(process: psutil.Process | None) -> str:
    """What a process is, for the line that says what was killed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline()[1:5]) if process else "nothing"
    return "a process that had just ended"


def state_of(line: CommandLine) -> dict[str, object]:
    """What must not depend on kills: what was made, with its hashes, and that each job was done once."""
    made = {
        what: sorted(row["id"] for row in line.rows(pattern))
        for what, pattern in {
            "versions": "models/*/versions/*.json",
            "reports": "reports/*.json",
            "datasets": "datasets/*/manifest.json",
            "collections": "collections/*.json",
        }.items()
    }
    return made | {
        "adapters": [(run["id"], run["adapter_hash"]) for run in line.rows("runs/*/run.json")],
        "jobs": sorted((job["kind"], job["phase"], len(job["outbox"])) for job in line.rows("jobs/*/state.json")),
    }
