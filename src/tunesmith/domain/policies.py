"""Policies: when new examples start a run by themselves. One object a recipe holds the policy and where it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.jobs import checked_priority
from tunesmith.domain.overrides import Ranges, check_ranges
from tunesmith.domain.runs import FollowUp

_YEAR_S = 366 * 86_400

_RANGES: Ranges = {
    "min_new_examples": (0, 1_000_000_000),
    "min_growth_share": (0, 1000),
    "cool_down_s": (0, _YEAR_S),
    "every_s": (0, _YEAR_S),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What a recipe's owner wants. Off by default.

    Enough is new when either `min_new_examples` or `min_growth_share` is reached; one that is 0 does not count, and
    with both 0 one new example is enough.
    """

    recipe: str
    enabled: bool = False
    min_new_examples: int = 50
    """Examples that no run has been trained on."""
    min_growth_share: float = 0.0
    """New examples per example of the dataset that was trained on: 0.1 is a tenth more."""
    cool_down_s: float = 600.0
    """Seconds between the end of one run of the policy, its judgement included, and the next one's start."""
    every_s: float = 0.0
    """Runs start only when a multiple of so many seconds since 1970-01-01T00:00Z passes (86400: at midnight UTC); 0 at
    any time."""
    base_model: str = ""
    """Empty for the recipe's default."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Training settings that differ from the recipe's, by name."""
    follow_up: FollowUp = "promote"
    priority: int = 0
    """Of the jobs that the policy starts."""

    def check(self) -> None:
        """Raise InvalidInput for the first value out of its range."""
        check_ranges(self, what="policy", ranges=_RANGES)
        checked_priority(self.priority)
        if self.follow_up not in ("none", "judge", "promote"):
            raise InvalidInput(
                f"policy setting follow_up={self.follow_up!r} is unknown: use none, judge or promote",
                metadata={"field": "follow_up", "value": str(self.follow_up)[:60]},
            )

    def num_needed(self, num_trained: int) -> int:
        """New examples that are enough after a training on `num_trained` (0: there was none); at least 1."""
        needed = [self.min_new_examples] if self.min_new_examples else []
        if self.min_growth_share:
            needed.append(math.ceil(round(self.min_growth_share * num_trained, 6)))
        return max(1, min(needed, default=1))


@dataclass(frozen=True, slots=True)
class Candidate:
    """The widest dataset that is known: what the next run would be trained on."""

    dataset_id: str
    collections: tuple[str, ...]
    """Ids of the collections that were curated for it."""
    noted_at: str

    def is_covered_by(self, collections: tuple[str, ...]) -> bool:
        """Whether a dataset of `collections` takes this one's place: it has all of these collections.

        Later datasets are of more collections, so an event that is late or out of order changes nothing.
        """
        return set(self.collections) <= set(collections)


Outcome = Literal["", "tuned", "promoted", "passed", "refused", "failed", "cancelled"]
"""How a run of a policy ended; empty while it goes on. `tuned`: nothing followed. `passed`: judged, not promoted."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last run that the policy decided on. Written before its job is submitted; whoever submits it submits this."""

    dataset_id: str
    request_id: str
    request: Mapping[str, Any]
    """Of the tune job."""
    priority: int
    started_at: str
    job_id: str = ""
    """Empty between the decision and the submission."""
    ended_at: str = ""
    outcome: Outcome = ""
    detail: str = ""
    """The model version, or why there is none."""


@dataclass(frozen=True, slots=True)
class Retraining:
    """The stored object of a recipe: its policy, and what has come of it. Changed only by compare-and-swap."""

    policy: Policy
    policy_rev: int
    """Grows when the policy is set, but not with what comes of it."""
    rev: int
    writer: str
    updated_at: str
    candidate: Candidate | None = None
    last: Attempt | None = None
    ready_since: str = ""
    """Since when enough is new; kept for policies with a schedule."""

    def step(self, *, now: str, writer: str, **changes: Any) -> Retraining:
        """The next revision."""
        return replace(self, rev=self.rev + 1, writer=writer, updated_at=now, **changes)

    def to_json(self) -> dict[str, Any]:
        """The object as it is stored."""
        return {
            "policy": {**asdict(self.policy), "settings": dict(self.policy.settings)},
            "policy_rev": self.policy_rev,
            "rev": self.rev,
            "writer": self.writer,
            "updated_at": self.updated_at,
            "candidate": None
            if self.candidate is None
            else {**asdict(self.candidate), "collections": list(self.candidate.collections)},
            "last": None if self.last is None else asdict(self.last),
            "ready_since": self.ready_since,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Retraining:
        """The inverse of `to_json`; raises KeyError, TypeError or ValueError on an object of another shape."""
        candidate, last = row["candidate"], row["last"]
        return Retraining(
            policy=Policy(**row["policy"]),
            policy_rev=int(row["policy_rev"]),
            rev=int(row["rev"]),
            writer=row["writer"],
            updated_at=row["updated_at"],
            candidate=candidate and Candidate(**{**candidate, "collections": tuple(candidate["collections"])}),
            last=last and Attempt(**last),
            ready_since=row["ready_since"],
        )


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision depends on beside the policy and the time."""

    candidate: str = ""
    """Id of the dataset that would be trained on; empty when there is none."""
    num_new: int = 0
    """Its examples that the trained dataset nearest to it has not."""
    num_trained: int = 0
    """Examples of that trained dataset; 0 when no run has ended yet."""
    in_flight: str = ""
    """A job that tunes or judges for the recipe now, whoever started it."""
    last: Attempt | None = None
    ready_since: str = ""


WaitReason = Literal[
    "disabled", "run_in_flight", "no_dataset", "last_run_failed", "too_few_new", "schedule", "cool_down"
]


@dataclass(frozen=True, slots=True)
class Decision:
    """Start a run now, or why not. `until`: the RFC 3339 time at which a wait ends by itself, where it is known."""

    start: bool
    reason: WaitReason | Literal["start"]
    message: str
    until: str = ""


def decide(policy: Policy, situation: Situation, now: datetime) -> Decision:
    """Whether the policy starts a run on the situation's candidate at `now` (UTC). Pure.

    A dataset whose run failed or was cancelled is not tried again by itself: the same inputs would fail again.
    """
    if not policy.enabled:
        return _wait("disabled", "the policy is off")
    if situation.in_flight:
        return _wait("run_in_flight", f"job {situation.in_flight} is under way")
    if not situation.candidate:
        return _wait("no_dataset", "there is no dataset yet")
    last = situation.last
    if last is not None and last.dataset_id == situation.candidate and last.outcome in ("failed", "cancelled"):
        return _wait("last_run_failed", f"the run on {last.dataset_id} {_ended(last)}; waits for other data")
    needed = policy.num_needed(situation.num_trained)
    if situation.num_new < needed:
        return _wait("too_few_new", f"{situation.num_new} of {needed} new examples")
    if policy.every_s:
        slot_s = now.timestamp() // policy.every_s * policy.every_s
        if not situation.ready_since or slot_s <= _moment(situation.ready_since).timestamp():
            return _wait_until("schedule", "schedule", datetime.fromtimestamp(slot_s + policy.every_s, UTC))
    if last is not None and last.ended_at:
        cool_at = _moment(last.ended_at) + timedelta(seconds=policy.cool_down_s)
        if now < cool_at:
            return _wait_until("cool_down", "cool-down", cool_at)
    return Decision(True, "start", f"{situation.num_new} new examples, {needed} are enough")


def is_ready(policy: Policy, situation: Situation) -> bool:
    """Whether enough is new on a candidate that is not being trained on or has failed."""
    tried = situation.last is not None and situation.last.dataset_id == situation.candidate
    enough = situation.num_new >= policy.num_needed(situation.num_trained)
    return policy.enabled and bool(situation.candidate) and not tried and enough


def _wait(reason: WaitReason, message: str) -> Decision:
    return Decision(False, reason, message)


def _wait_until(reason: WaitReason, word: str, moment: datetime) -> Decision:
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return Decision(False, reason, f"{word} until {text[:19]}Z", until=text)


def _ended(last: Attempt) -> str:
    return "was cancelled" if last.outcome == "cancelled" else f"failed ({last.detail})"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
