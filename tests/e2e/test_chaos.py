"""A short sample of `make chaos`, whose full run takes an hour or more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.heavy
@pytest.mark.parametrize("mode", ["embedded", "real"])
def test_nothing_is_lost_or_doubled_however_often_something_is_killed(
    mode: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if mode == "real":  # left out where there is no broker and no store
        request.getfixturevalue("kafka_broker"), request.getfixturevalue("minio_server")
    paths = os.pathsep.join(str(ROOT / part) for part in ("tools", "tools/chaos/inject", "tests"))
    sample = ["--kills", "10", "--jobs", "2", "--train-every", "0", "--seed", "1", "--keep", str(tmp_path)]

    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--mode", mode, *sample],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
