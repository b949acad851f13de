"""Judging planted models: each fault is found by the gate that is there for it."""

from __future__ import annotations

import json
import math

import pytest
from planted_models import (
    TEST,
    TRAIN,
    UNUSED,
    PlantedModel,
    base,
    collapsed,
    gibberish,
    good,
    judged,
    memoriser,
    rambling,
)

from tunesmith.domain.errors import Interrupted
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.models import Report
from tunesmith.recipes.micro_genre import RECIPE, STOP
from tunesmith_trainer.evaluation.answers import read_sample
from tunesmith_trainer.evaluation.judge import report_id
from tunesmith_trainer.evaluation.metrics import METRIC_DESCRIPTIONS


def failed(report: Report) -> set[str]:
    return {gate.name for gate in report.gates if not gate.passed}


@pytest.fixture(scope="module")
def good_report() -> Report:
    return judged(good(), champion=good())


def test_a_good_candidate_passes_every_gate(good_report: Report) -> None:
    assert failed(good_report) == set()
    assert good_report.passed


def test_a_memoriser_fails_novelty_only() -> None:
    assert failed(judged(memoriser())) == {"novelty"}


def test_a_collapsed_candidate_fails_distinctness_and_skew() -> None:
    assert failed(judged(collapsed())) == {"distinct", "skew"}


def test_gibberish_is_novel_but_not_language_like() -> None:
    report = judged(gibberish(), champion=good())

    assert failed(report) == {"language_like", "no_worse_than_champion"}
    assert report.metrics["candidate"]["novel_share"].value == 1.0


def test_a_candidate_that_never_stops_has_no_valid_answer_and_fails_without_a_crash() -> None:
    report = judged(rambling())

    assert report.metrics["candidate"]["valid_share"].value == 0.0
    assert report.metrics["candidate"]["cut_off_share"].value == 1.0
    assert "novel_share" not in report.metrics["candidate"]
    assert failed(report) == {"format", "novelty", "distinct", "skew"}
    assert {g.value for g in report.gates if g.name == "novelty"} == {None}


def test_the_base_itself_fails_its_own_gates() -> None:
    assert {"format", "better_than_base"} <= failed(judged(base(), base_model=base()))


def test_a_candidate_as_good_as_its_base_is_not_better_than_it() -> None:
    report = judged(good(), base_model=good())

    assert failed(report) == {"better_than_base"}
    difference = report.metrics["candidate"]["bits_per_char_minus_base"]
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_the_paired_difference_is_far_tighter_than_the_intervals_of_its_sides() -> None:
    better, worse = good(), PlantedModel(good().write, 0.15)

    report = judged(better, base_model=worse)

    candidate = report.metrics["candidate"]
    difference = candidate["bits_per_char_minus_base"]
    assert difference.value == pytest.approx(-0.10, abs=1e-9)
    assert difference.high - difference.low < 1e-6 < candidate["bits_per_char"].high - candidate["bits_per_char"].low


def test_every_subject_answers_the_same_prompts_with_the_same_seeds() -> None:
    candidate, champion, base_model = good(), good(), base()

    judged(candidate, champion=champion, base_model=base_model)

    assert candidate.calls == champion.calls == base_model.calls
    prompts = [prompt for batch, _ in candidate.calls for prompt in batch]
    assert prompts == [f"{i}->" for i in range(500)]
    assert [seed for _, seed in candidate.calls] == list(range(10_000, 10_500, RECIPE.judge.batch_size))


def test_the_same_arguments_give_the_same_report(good_report: Report) -> None:
    again = judged(good(), champion=good())

    assert canonical_json(again.to_json()) == canonical_json(good_report.to_json())
    assert Report.from_json(json.loads(canonical_json(again.to_json()))) == again


def test_the_report_id_follows_from_run_champion_and_settings(good_report: Report) -> None:
    assert good_report.id == report_id(RECIPE, "run-1", "mv-0")
    assert len({report_id(RECIPE, r, c) for r in ("run-1", "run-2") for c in ("mv-0", "")}) == 4


def test_held_out_rows_that_the_base_has_seen_are_left_out_of_the_loss() -> None:
    seen = [TEST[0], TEST[1].replace(" ", "-").upper(), *UNUSED[:3]]

    report = judged(good(), base_seen=seen)

    assert report.anchors["heldout_rows_seen_by_base"] == 2
    assert report.anchors["heldout_rows"] == len(TEST) - 2
    assert report.metrics["candidate"]["bits_per_char"].n == len(TEST) - 2


def test_when_the_base_has_seen_every_held_out_row_the_loss_gates_fail() -> None:
    report = judged(good(), base_seen=TEST)

    assert failed(report) == {"better_than_base", "no_worse_than_champion", "language_like", "regressed"}


def test_all_metrics_of_a_report_are_described(good_report: Report) -> None:
    named = set(METRIC_DESCRIPTIONS)
    differences = {f"{name}_minus_{other}" for name in named for other in ("base", "champion")}

    assert set(good_report.metrics["base"]) <= named
    assert named <= set(good_report.metrics["candidate"]) <= named | differences
    assert {gate.metric for gate in RECIPE.gates} <= named


def test_every_interval_holds_its_value(good_report: Report) -> None:
    for row in good_report.metrics.values():
        for name, measure in row.items():
            assert measure.low - 1e-9 <= measure.value <= measure.high + 1e-9, name


def test_samples_are_answers_in_prompt_order_and_invalid_ones_say_why(good_report: Report) -> None:
    report = judged(PlantedModel(lambda n, _: [f"{TRAIN[0]}{STOP}", f"a | b{STOP}", "no end"][n % 3], 0.0))

    assert report.samples["candidate"][:3] == (TRAIN[0], f"✗ bad_format: a | b{STOP}", "✗ cut_off: no end")
    assert [read_sample(s) for s in report.samples["candidate"][:2]] == [
        (TRAIN[0], ""),
        (f"a | b{STOP}", "bad_format"),
    ]
    assert {subject: len(rows) for subject, rows in good_report.samples.items()} == dict.fromkeys(
        ("base", "candidate", "champion"), 500
    )


def test_distributions_count_answers_and_training_data_alike(good_report: Report) -> None:
    data, candidate = good_report.distributions["data"], good_report.distributions["candidate"]

    assert sum(data["length"].values()) == len(TRAIN)
    assert sum(candidate["length"].values()) == 500
    assert sum(candidate["verdict"].values()) == 500
    assert max(len(v) for rows in good_report.distributions.values() for v in rows.values()) <= 100


def test_judging_stops_when_asked() -> None:
    candidate = good()

    with pytest.raises(Interrupted):
        judged(candidate, should_stop=lambda: len(candidate.calls) >= 2)

    assert len(candidate.calls) == 2


def test_progress_reaches_its_total() -> None:
    seen = []

    judged(good(), report=seen.append)

    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert (seen[-1].done, seen[-1].total) == (1600, 1600)


def test_infinite_loss_fails_its_gates_and_the_report_stays_valid_json() -> None:
    report = judged(PlantedModel(good().write, math.inf))

    canonical_json(report.to_json())
    assert failed(report) == {"better_than_base", "no_worse_than_champion", "language_like", "regressed"}
