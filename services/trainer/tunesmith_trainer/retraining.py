"""Retraining by itself: events say what is there, the policy decides, and a loop starts what has become due.

What was decided stands in the policy's object before the job is submitted, and the job's id follows from it, so a
crash, a repeated event or a second replica never starts a run twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tunesmith.domain import keys
from tunesmith.domain.datasets import CurationSettings
from tunesmith.domain.errors import Conflict, DataLoss, FailedPrecondition, InvalidInput, NotFound, TunesmithError
from tunesmith.domain.ids import check_name, derived_uuid
from tunesmith.domain.jobs import Job
from tunesmith.domain.policies import (
    Attempt,
    Candidate,
    Decision,
    Outcome,
    Policy,
    Retraining,
    Situation,
    decide,
    is_ready,
)
from tunesmith.jobs.state import JobStore
from tunesmith.ports.clock import Clock, rfc3339
from tunesmith.ports.store import Store
from tunesmith.recipes import all_recipes, recipe_named, with_code
from tunesmith.state_objects import change_object, find_object, new_writer
from tunesmith_trainer.bases import base_fingerprint
from tunesmith_trainer.handlers import get_run, plan_curation, plan_run
from tunesmith_trainer.novelty import Novelty

log = logging.getLogger(__name__)

MODEL_KINDS = ("tune", "judge", "sweep")
"""Jobs of which a recipe has one at a time, where its policy starts them."""

JUDGE_LOST_S = 600.0
"""How long after a run its judge job may take to appear before the policy goes on without it."""

MAX_SETTINGS = 64


@dataclass(frozen=True, slots=True)
class Standing:
    """A policy, where it stands, and what it does next."""

    record: Retraining
    situation: Situation
    decision: Decision


class Policies:
    """The use cases of policies, over the store and its jobs. Thread-safe; several processes may work on one store."""

    def __init__(
        self,
        store: Store,
        jobs: JobStore,
        clock: Clock,
        *,
        scratch: Path,
        submitted: Callable[[], None] = lambda: None,
    ) -> None:
        """`submitted` is called after each job that was submitted, to have it started at once."""
        self._store = store
        self._jobs = jobs
        self._clock = clock
        self._submitted = submitted
        self._novelty = Novelty(store, scratch)
        self._dataset_of_run: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()
        self._complained: dict[str, str] = {}
        self._caught_up: set[str] = set()
        """Recipes whose collections were looked through since this process began."""

    def get(self, recipe: str) -> Retraining:
        """The recipe's policy; one that is off when none was set. UnknownRecipe, DataLoss."""
        recipe_named(recipe)
        return self._find(recipe) or _unset(Policy(recipe))

    def set(self, policy: Policy, *, expected_rev: int | None = None) -> Retraining:
        """Store a policy in place of the recipe's former one, and see to it that there is a dataset to decide on.

        InvalidInput for a value out of its range, a setting the recipe does not have, a base that cannot be one;
        Conflict when the policy is not at `expected_rev` any more.
        """
        recipe = recipe_named(policy.recipe)
        policy.check()
        if len(policy.settings) > MAX_SETTINGS:
            raise InvalidInput(f"{len(policy.settings)} settings are given, the limit is {MAX_SETTINGS}")
        recipe.training.changed(policy.settings)
        if policy.base_model:
            base_fingerprint(policy.base_model)

        def step(current: Retraining | None) -> Retraining:
            rev = current.policy_rev if current else 0
            if expected_rev is not None and rev != expected_rev:
                raise Conflict(
                    f"the policy of {recipe.name} is at revision {rev}, not {expected_rev}; look at it and try again",
                    reason="POLICY_CHANGED",
                    metadata={"recipe": recipe.name, "rev": str(rev), "expected_rev": str(expected_rev)},
                )
            return self._step(current or _unset(policy), policy=policy, policy_rev=rev + 1, ready_since="")

        record, _ = self._change(recipe.name, step)
        assert record is not None
        if policy.enabled:
            self.curate(recipe.name, cause=f"revision {record.policy_rev}")
        return self.get(recipe.name)

    def enabled(self, recipe: str) -> bool:
        """Whether the recipe is known here and its policy is on."""
        record = self._find(recipe) if recipe in all_recipes() else None
        return record is not None and record.policy.enabled

    def curate(self, recipe: str, *, cause: str = "") -> None:
        """Have a dataset made of all fitting collections; nothing happens when it is there or being made.

        While one of fewer collections is being made, its end is waited for (see `curation_ended`), so that many
        collections in a row make few datasets. `cause` names what asks: a curation that failed is tried again by
        another cause, not by the same one.
        """
        try:
            plan = plan_curation(self._store, recipe, (), {})
        except FailedPrecondition:
            return  # no collection, or none with what the recipe needs yet
        for job in self._active(recipe, ("curate",)):
            if set(job.request["collection_ids"]) < set(plan.collection_ids):
                return
        job, created = self._jobs.submit_by_content(
            kind="curate",
            service="trainer",
            request=with_code(plan.to_json()),
            request_id=derived_uuid("curate-for-policy", recipe, cause),
            priority=self.get(recipe).policy.priority,
        )
        if created:
            self._submitted()
        elif job.phase == "succeeded" and job.result is not None:
            self.note_dataset(recipe, job.result["dataset"]["id"], job.id)

    def curation_ended(self, job_id: str) -> None:
        """Curate again what was collected while a curation was going on, however that one ended."""
        job = self._jobs.find(job_id)
        if job is None or job.kind != "curate" or not self.enabled(job.request["recipe"]):
            return
        recipe = job.request["recipe"]
        try:
            now = plan_curation(self._store, recipe, (), {})
        except FailedPrecondition:
            return
        if set(now.collection_ids) > set(job.request["collection_ids"]):
            self.curate(recipe, cause=job_id)

    def note_dataset(self, recipe: str, dataset_id: str, job_id: str) -> None:
        """Take a dataset for the candidate if it was curated like the policy would, from no less than the former one.

        Any order of calls, and any number of them, leaves the same candidate.
        """
        job = self._jobs.find(job_id)
        if job is None or job.kind != "curate" or not self.enabled(recipe):
            return
        if CurationSettings.from_json(job.request["settings"]) != recipe_named(recipe).curation:
            return
        check_name(dataset_id, what="dataset id")
        collections = tuple(job.request["collection_ids"])

        def step(current: Retraining | None) -> Retraining | None:
            if current is None or not current.policy.enabled:
                return None
            known = current.candidate
            if known is not None and (known.dataset_id == dataset_id or not known.is_covered_by(collections)):
                return None
            noted = Candidate(dataset_id, collections, rfc3339(self._clock.now()))
            return self._step(current, candidate=noted)

        self._change(recipe, step)

    def standing(self, recipe: str) -> Standing:
        """The policy and what it would do now; changes nothing."""
        record = self.get(recipe)
        situation = self._situation(record)
        return Standing(record, situation, decide(record.policy, situation, self._clock.now()))

    def recipes(self) -> Iterator[str]:
        """Names of the recipes that have a policy and are known here."""
        prefix, _, suffix = keys.policy("|").partition("|")
        for info in list(self._store.list(prefix)):
            name = info.key.removeprefix(prefix).removesuffix(suffix)
            if name in all_recipes():
                yield name

    def look_at_all(self) -> None:
        """One look at every policy. An error of one does not hold up the others, and is logged once."""
        for recipe in self.recipes():
            try:
                if recipe not in self._caught_up and self.enabled(recipe):
                    self.curate(recipe, cause="start of the process")
                self._caught_up.add(recipe)
                self.look(recipe)
            except TunesmithError as error:
                if self._complained.get(recipe) != error.message:
                    log.error("the policy of %s is held up: %s", recipe, error)
                self._complained[recipe] = error.message
            else:
                self._complained.pop(recipe, None)

    def look(self, recipe: str) -> Decision:
        """Note how the last run ended, decide, and start a run where the policy says so."""
        record = self._with_outcome(self.get(recipe))
        situation = self._situation(record)
        if record.policy.enabled and record.policy.every_s:
            record = self._with_readiness(record, situation)
            situation = replace(situation, ready_since=record.ready_since)
        decision = decide(record.policy, situation, self._clock.now())
        if decision.start:
            self._start(record, situation)
        return decision

    def _start(self, record: Retraining, situation: Situation) -> None:
        """Write down the decision, then submit. Whoever finds it written without a job submits the very same one."""
        policy, recipe, dataset_id = record.policy, record.policy.recipe, situation.candidate
        now = rfc3339(self._clock.now())
        attempt = Attempt(
            dataset_id,
            request_id=derived_uuid("policy-run", recipe, dataset_id, record.rev),
            request={},
            priority=policy.priority,
            started_at=now,
        )
        try:
            plan = plan_run(self._store, recipe, dataset_id, policy.base_model, policy.settings, policy.follow_up)
        except (InvalidInput, NotFound) as error:  # such a run can never begin
            attempt = replace(attempt, outcome="failed", detail=error.message[:1000], ended_at=now)
        else:
            attempt = replace(attempt, request=with_code(plan.to_json()))

        def step(current: Retraining | None) -> Retraining | None:
            unchanged = current is not None and (current.rev, current.writer) == (record.rev, record.writer)
            return self._step(current, last=attempt, ready_since="") if current and unchanged else None

        decided, written = self._change(recipe, step)
        if written and decided is not None and not attempt.outcome:
            log.info("policy of %s starts a run on %s", recipe, dataset_id)
            self._submit(decided)

    def _submit(self, record: Retraining) -> Retraining:
        """Submit the job of a decision; submitting it again finds the same job."""
        attempt = record.last
        assert attempt is not None
        job, _ = self._jobs.submit_by_content(
            kind="tune",
            service="trainer",
            request=attempt.request,
            request_id=attempt.request_id,
            priority=attempt.priority,
        )
        self._submitted()
        return self._with_attempt(record, job_id=job.id)

    def _with_outcome(self, record: Retraining) -> Retraining:
        """The record after its last run was looked at: submitted if it was only decided on, ended if it has ended."""
        attempt = record.last
        if attempt is None or attempt.outcome:
            return record
        if not attempt.job_id:
            return self._submit(record)
        ending = self._ending(attempt)
        return record if ending is None else self._ended(record, *ending)

    def _ending(self, attempt: Attempt) -> tuple[Outcome, str] | None:
        """How the run's jobs ended; None while they go on."""
        tune = self._jobs.find(attempt.job_id)
        if tune is None:
            return "failed", f"job {attempt.job_id} does not exist any more"
        if tune.phase != "succeeded":
            return _bad_ending(tune)
        assert tune.result is not None
        judge_id = tune.result["judge_job_id"]
        if not judge_id:
            return "tuned", tune.result["run"]["id"]
        judge = self._jobs.find(judge_id)
        if judge is None:
            waited = self._clock.now() - datetime.fromisoformat(tune.updated_at)
            lost = waited > timedelta(seconds=JUDGE_LOST_S)
            return ("failed", f"judge job {judge_id} did not appear") if lost else None
        if judge.phase != "succeeded":
            return _bad_ending(judge)
        assert judge.result is not None
        version = judge.result["version"]["id"]
        if judge.result["promoted"]:
            return "promoted", version
        return ("passed" if judge.result["passed"] else "refused"), version

    def _ended(self, record: Retraining, outcome: Outcome, detail: str) -> Retraining:
        return self._with_attempt(record, outcome=outcome, detail=detail[:1000], ended_at=rfc3339(self._clock.now()))

    def _with_attempt(self, record: Retraining, **changes: Any) -> Retraining:
        """The record with its last attempt changed, unless another process has done so or gone on."""
        attempt = record.last
        assert attempt is not None

        def step(current: Retraining | None) -> Retraining | None:
            if current is None or current.last is None or current.last.request_id != attempt.request_id:
                return None
            changed = replace(current.last, **changes)
            if changed == current.last or current.last.outcome:
                return None
            return self._step(current, last=changed)

        changed, _ = self._change(record.policy.recipe, step)
        return changed or record

    def _with_readiness(self, record: Retraining, situation: Situation) -> Retraining:
        ready = is_ready(record.policy, situation)
        if ready == bool(record.ready_since):
            return record

        def step(current: Retraining | None) -> Retraining | None:
            if current is None or current.rev != record.rev:
                return None
            return self._step(current, ready_since=rfc3339(self._clock.now()) if ready else "")

        changed, _ = self._change(record.policy.recipe, step)
        return changed or record

    def _situation(self, record: Retraining) -> Situation:
        recipe, candidate = record.policy.recipe, record.candidate
        num_new, num_trained = 0, 0
        if candidate is not None:
            with self._lock:
                num_new, num_trained = self._novelty.against(recipe, candidate.dataset_id, self._trained(recipe))
        return Situation(
            candidate=candidate.dataset_id if candidate else "",
            num_new=num_new,
            num_trained=num_trained,
            in_flight=self._in_flight(record),
            last=record.last,
            ready_since=record.ready_since,
        )

    def _in_flight(self, record: Retraining) -> str:
        """A job that tunes or judges for the recipe now; whoever started it."""
        for job in self._active(record.policy.recipe, MODEL_KINDS):
            return job.id
        last = record.last
        # Between a run and its judgement, or a decision and its job, none is active.
        return (last.job_id or "that was decided on") if last is not None and not last.outcome else ""

    def _active(self, recipe: str, kinds: tuple[str, ...]) -> Iterator[Job]:
        for job_id in self._jobs.active_ids():
            job = self._jobs.find(job_id)
            if job is None or job.kind not in kinds or job.is_terminal:
                continue
            if job.request.get("recipe") == recipe:
                yield job

    def _trained(self, recipe: str) -> list[str]:
        """Ids of the datasets that runs were made on, newest run first."""
        prefix, suffix = keys.run(recipe, "|").split("|")
        for info in self._store.list(prefix):
            if info.key.endswith(suffix) and info.key not in self._dataset_of_run:
                try:
                    run = get_run(self._store, recipe, info.key.removeprefix(prefix).removesuffix(suffix))
                except (NotFound, DataLoss) as error:
                    log.error("run left out of account: %s", error)
                    self._dataset_of_run[info.key] = ("", "")
                else:
                    self._dataset_of_run[info.key] = (run.created_at, run.dataset_id)
        rows = [row for key, row in self._dataset_of_run.items() if key.startswith(prefix) and row[1]]
        return [dataset_id for _, dataset_id in sorted(rows, reverse=True)]

    def _find(self, recipe: str) -> Retraining | None:
        return find_object(self._store, keys.policy(recipe), Retraining.from_json, what=f"policy of {recipe}")

    def _change(
        self, recipe: str, step: Callable[[Retraining | None], Retraining | None]
    ) -> tuple[Retraining | None, bool]:
        return change_object(
            self._store, keys.policy(recipe), step, parse=Retraining.from_json, what=f"policy of {recipe}"
        )

    def _step(self, record: Retraining, **changes: Any) -> Retraining:
        return record.step(now=rfc3339(self._clock.now()), writer=new_writer(), **changes)


def _unset(policy: Policy) -> Retraining:
    return Retraining(policy, policy_rev=0, rev=0, writer="", updated_at="")


def _bad_ending(job: Job) -> tuple[Outcome, str] | None:
    if not job.is_terminal:
        return None
    message = job.error.message if job.error else ""
    return ("cancelled" if job.phase == "cancelled" else "failed"), f"{job.kind} job {job.id}: {message}"
