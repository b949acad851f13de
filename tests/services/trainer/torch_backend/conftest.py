from pathlib import Path

import pytest
from micro_training import MICRO_BASE, MICRO_TRAINING, micro_text, micro_train

from tunesmith_trainer.torch_backend.tiny_base import build_tiny_base
from tunesmith_trainer.torch_backend.training import TrainingOutcome


@pytest.fixture(scope="session")
def micro_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_base(tmp_path_factory.mktemp("bases") / "micro", text=micro_text(), settings=MICRO_BASE)


@pytest.fixture(scope="session")
def undisturbed(micro_base: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingOutcome:
    return micro_train(micro_base, tmp_path_factory.mktemp("undisturbed"), MICRO_TRAINING)
