"""Which jobs of the trainer wait for each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.platform import Platform
from tunesmith.rpc.jobs import JobBoard
from tunesmith.settings import Settings
from tunesmith_trainer.bootstrap import build


@pytest.mark.parametrize(
    ("launcher", "beside_trainings"), [("subprocess", {"promote"}), ("kubernetes", {"promote", "publish"})]
)
def test_what_computes_with_a_model_takes_turns_and_what_has_pods_without_a_gpu_does_not(
    tmp_path: Path, launcher: str, beside_trainings: set[str]
) -> None:
    platform = Platform.open(Settings(data=tmp_path, launcher=launcher))
    try:
        kinds = build(platform, JobBoard(platform.jobs)).kinds
    finally:
        platform.close()

    slots = {kind: kinds[kind].slot for kind in ("tune", "judge", "sweep", "promote", "publish")}
    assert {kind for kind, slot in slots.items() if slot != slots["tune"]} == beside_trainings
