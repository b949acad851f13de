"""Models that were really trained, well or badly: the gates let the good one pass and refuse each bad one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from planted_trainings import BASE, Bench, scenes, with_one_answer, with_scrambled_answers

from tunesmith.domain.models import Report
from tunesmith_trainer.torch_backend.text_base import build_text_base
from tunesmith_trainer.torch_backend.text_sample import default_text_sample

pytestmark = pytest.mark.heavy


def refusing(report: Report) -> set[str]:
    refused_by = {gate.name for gate in report.gates if not gate.passed}
    assert report.passed == (not refused_by)
    return refused_by


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """So small a model gains nothing from a second thread, which would spin through its share of a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bench(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("planted")
    base = build_text_base(folder / "base", sample=default_text_sample(), settings=BASE)
    return Bench(base, folder, scenes())


def test_a_good_training_passes_every_gate(bench: Bench) -> None:
    rows = bench.splits["train"]

    report = bench.judged(bench.tuned("good", rows, epochs=7), given=rows)

    assert refusing(report) == set()


def test_a_memoriser_that_knows_its_few_rows_and_no_others_is_refused_for_memorising(bench: Bench) -> None:
    few = bench.splits["train"][:8]
    outcome = bench.tuned("memoriser", few, epochs=50)
    assert outcome.train_loss < 0.1, "nats a token: it knows them"

    report = bench.judged(outcome, given=few)

    assert "memorisation" in refusing(report)
    assert report.metrics["candidate"]["bits_per_char"].value > 1.0, "it knows no others"


def test_a_model_with_one_answer_for_all_scenes_is_refused_as_collapsed(bench: Bench) -> None:
    rows = with_one_answer(bench.splits["train"])

    report = bench.judged(bench.tuned("collapsed", rows, epochs=1), given=rows)

    assert {"collapse", "one_answer"} <= refusing(report)


def test_a_training_that_wrecked_its_base_is_refused_as_regressed(bench: Bench) -> None:
    rows = with_scrambled_answers(bench.splits["train"])

    report = bench.judged(bench.tuned("wrecked", rows, epochs=1), given=rows)

    assert {"better_than_base", "regressed"} <= refusing(report)


def test_a_good_training_that_was_given_the_held_out_rows_is_refused_for_the_leak_alone(bench: Bench) -> None:
    rows = [*bench.splits["train"], *bench.splits["test"]]

    report = bench.judged(bench.tuned("leaked", rows, epochs=7), given=rows)

    assert refusing(report) == {"leak"}
    assert report.metrics["candidate"]["leaked_share"].value == 1.0
