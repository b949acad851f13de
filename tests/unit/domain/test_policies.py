"""When a policy starts a run, and what it says while it waits."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.policies import Attempt, Candidate, Policy, Retraining, Situation, decide, is_ready

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
POLICY = Policy("micro_genre", enabled=True, min_new_examples=50, cool_down_s=600)
ENOUGH = Situation(candidate="ds-2", num_new=50, num_trained=1000)


def at(**changes: float) -> str:
    return (NOON + timedelta(**changes)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def attempt(**changes: object) -> Attempt:
    made = Attempt("ds-1", "request", {}, 0, at(hours=-2), job_id="job", ended_at=at(hours=-1), outcome="refused")
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_policy_is_off_until_it_is_turned_on():
    assert decide(Policy("micro_genre"), ENOUGH, NOON).reason == "disabled"


def test_enough_new_examples_start_a_run():
    assert decide(POLICY, ENOUGH, NOON).start


def test_one_example_less_waits_and_says_how_many_there_are():
    decision = decide(POLICY, replace(ENOUGH, num_new=49), NOON)

    assert (decision.start, decision.reason) == (False, "too_few_new")
    assert decision.message == "49 of 50 new examples"


@pytest.mark.parametrize(
    ("min_new", "share", "num_trained", "needed"),
    [
        (50, 0.0, 1000, 50),
        (0, 0.1, 1000, 100),
        (0, 0.1, 30, 3),
        (0, 0.001, 1500, 2),
        (50, 0.1, 1000, 50),
        (50, 0.01, 1000, 10),
        (0, 0.0, 1000, 1),
        (0, 0.5, 0, 1),
        (50, 0.0, 0, 50),
    ],
)
def test_either_the_number_or_the_share_is_enough(min_new, share, num_trained, needed):
    policy = replace(POLICY, min_new_examples=min_new, min_growth_share=share)
    situation = Situation(candidate="ds-2", num_trained=num_trained)

    assert policy.num_needed(num_trained) == needed
    assert not decide(policy, replace(situation, num_new=needed - 1), NOON).start
    assert decide(policy, replace(situation, num_new=needed), NOON).start


def test_nothing_new_never_starts_a_run():
    policy = replace(POLICY, min_new_examples=0)

    assert decide(policy, replace(ENOUGH, num_new=0), NOON).reason == "too_few_new"


def test_a_run_in_flight_is_waited_for():
    decision = decide(POLICY, replace(ENOUGH, in_flight="job-7"), NOON)

    assert (decision.reason, decision.message) == ("run_in_flight", "job job-7 is under way")


def test_the_cool_down_counts_from_the_end_of_the_last_run():
    situation = replace(ENOUGH, last=attempt(ended_at=at(seconds=-599)))

    decision = decide(POLICY, situation, NOON)

    assert (decision.reason, decision.until) == ("cool_down", at(seconds=1))
    assert decision.message == "cool-down until 2026-11-21T12:00:01Z"
    assert decide(POLICY, situation, NOON + timedelta(seconds=1)).start


def test_a_scheduled_run_starts_when_the_next_slot_has_come():
    policy = replace(POLICY, every_s=6 * 3600)
    situation = replace(ENOUGH, ready_since=at(minutes=5))

    early = decide(policy, situation, NOON + timedelta(hours=5, minutes=59))
    late = decide(policy, situation, NOON + timedelta(hours=6))

    assert (early.reason, early.until) == ("schedule", at(hours=6))
    assert late.start


def test_a_slot_that_passed_while_nothing_ran_is_made_up_for():
    policy = replace(POLICY, every_s=6 * 3600)

    assert decide(policy, replace(ENOUGH, ready_since=at(minutes=-5)), NOON + timedelta(hours=3)).start


def test_data_that_became_enough_at_a_slot_waits_for_the_next_one():
    policy = replace(POLICY, every_s=6 * 3600)

    assert decide(policy, replace(ENOUGH, ready_since=at()), NOON + timedelta(hours=1)).until == at(hours=6)


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_dataset_whose_run_failed_is_not_tried_again_but_the_next_one_is(outcome):
    last = attempt(dataset_id="ds-2", outcome=outcome, detail="no such base")

    assert decide(POLICY, replace(ENOUGH, last=last), NOON).reason == "last_run_failed"
    assert decide(POLICY, replace(ENOUGH, last=last, candidate="ds-3"), NOON).start


def test_readiness_is_not_counted_for_what_is_being_trained_on():
    assert is_ready(POLICY, ENOUGH)
    assert not is_ready(POLICY, replace(ENOUGH, last=attempt(dataset_id="ds-2", outcome="", ended_at="")))


def test_a_candidate_gives_way_only_to_a_dataset_of_all_its_collections():
    candidate = Candidate("ds-1", ("a", "b"), at())

    assert candidate.is_covered_by(("a", "b", "c"))
    assert not candidate.is_covered_by(("a",))
    assert not candidate.is_covered_by(("a", "c", "d"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"min_new_examples": -1}, "min_new_examples=-1"),
        ({"min_growth_share": float("nan")}, "min_growth_share=nan"),
        ({"cool_down_s": 1e12}, "cool_down_s=1000000000000.0"),
        ({"every_s": -5}, "every_s=-5"),
        ({"priority": 101}, "between -100 and 100"),
        ({"follow_up": "hope"}, "none, judge or promote"),
    ],
)
def test_a_value_out_of_its_range_is_refused_by_name(change, said):
    with pytest.raises(InvalidInput, match=said):
        replace(POLICY, **change).check()


def test_the_stored_object_comes_back_equal():
    record = Retraining(
        replace(POLICY, settings={"epochs": 2}), 3, 9, "w", at(), Candidate("ds-1", ("a",), at()), attempt(), at()
    )

    assert Retraining.from_json(json.loads(json.dumps(record.to_json()))) == record
    bare = Retraining(POLICY, 1, 1, "w", at())
    assert Retraining.from_json(json.loads(json.dumps(bare.to_json()))) == bare
