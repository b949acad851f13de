"""Policies over a real store and bus: events in any order and number, crashes and replicas start each run once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from contract.deadline import eventually
from doubles.fake_clock import FakeClock
from doubles.recording_launcher import RecordingLauncher
from fixtures_places import Place
from tunesmith.domain import keys
from tunesmith.domain.errors import Conflict, InvalidInput, Unavailable
from tunesmith.domain.events import CLIPS_CAPTIONED, DATASET_BUILT, JOB_FAILED, RECORDS_COLLECTED, Event
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.jobs import Job, JobError
from tunesmith.domain.policies import Policy
from tunesmith.domain.records import Collection, Licence, Provenance, Record
from tunesmith.domain.runs import Run
from tunesmith.jobs.consuming import ConsumerLoop
from tunesmith.jobs.state import JobStore
from tunesmith.ports.clock import rfc3339
from tunesmith.ports.store import Store
from tunesmith.recipes import recipe_named
from tunesmith_trainer.consumer import TOPICS, judge_job_id, policy_handlers
from tunesmith_trainer.curation.build import build_dataset
from tunesmith_trainer.handlers import CurateRequest, TuneRequest
from tunesmith_trainer.novelty import example_digests
from tunesmith_trainer.retraining import JUDGE_LOST_S, Policies

RECIPE = recipe_named("micro_genre")
WORDS = ("acid", "baroque", "cosmic", "dust", "ember", "frozen", "ghost", "harbour", "iron", "jade")
NAMES = tuple(f"{a} {b}" for a in WORDS for b in ("jazz", "mambo", "polka", "techno", "waltz", "grindcore"))
OLD, NEW = NAMES[:40], NAMES[40:]


@dataclass
class Plant:
    """A trainer without processes: its jobs wait until the test does their work by hand."""

    folder: Path
    place: Place
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.store = self.place.store(self.folder)
        self.bus = self.place.bus(self.folder, clock=self.clock)
        self.bus.ensure_topics(TOPICS)
        self.launcher = RecordingLauncher()
        self.jobs = JobStore(self.store, self.clock)
        self.policies = self.replica()
        self.numbers = itertools.count()

    def replica(self, jobs: JobStore | None = None) -> Policies:
        """One more process over the same store."""
        return Policies(self.store, jobs or self.jobs, self.clock, scratch=self.folder)

    def enable(self, **changes: Any) -> None:
        policy = Policy(RECIPE.name, enabled=True, min_new_examples=10, cool_down_s=0)
        self.policies.set(replace(policy, **changes))

    def collect(self, names: tuple[str, ...]) -> Event:
        """A collection is stored; the event that tells of it."""
        number = next(self.numbers)
        licence = Licence("CC0-1.0")
        provenance = Provenance(f"list:{number}", "u", "u", licence, rfc3339(self.clock.now()), "0" * 64)
        records = [Record.make({"name": name}, provenance) for name in names]
        collection_id = f"col-{number:04d}"
        shard = keys.record_shard(RECIPE.name, collection_id, 0)
        self.store.put(shard, b"".join(canonical_json(record.to_json()) + b"\n" for record in records))
        self.clock.advance(1)
        made = Collection(
            collection_id,
            RECIPE.name,
            f"list:{number}",
            len(records),
            (shard,),
            {"CC0-1.0": len(records)},
            rfc3339(self.clock.now()),
        )
        self.store.put(keys.collection(RECIPE.name, collection_id), canonical_json(made.to_json()))
        data = {"job_id": f"collect-{number}", "recipe": RECIPE.name, "collection_id": collection_id, "reused": False}
        return Event(
            f"event-{number}",
            RECORDS_COLLECTED,
            "/tunesmith/scraper",
            f"collect-{number}",
            rfc3339(self.clock.now()),
            data,
        )

    def waiting(self, kind: str) -> list[Job]:
        """Jobs of a kind that nobody has worked on, oldest first."""
        found = [self.jobs.get(job_id) for job_id in self.jobs.all_ids()]
        return sorted(
            (job for job in found if job.kind == kind and job.phase == "queued"), key=lambda job: job.created_at
        )

    def curate(self, job: Job) -> Event:
        """Do a curate job; the event that tells of its dataset."""
        request = CurateRequest.from_json(job.request)
        collections = [
            Collection.from_json(_row(self.store, keys.collection(RECIPE.name, i))) for i in request.collection_ids
        ]
        dataset, reused = build_dataset(
            RECIPE,
            collections,
            request.settings,
            store=self.store,
            clock=self.clock,
            work_dir=self.folder / "work",
            report=lambda _: None,
            should_stop=lambda: False,
        )
        example_digests(self.store, RECIPE.name, dataset.id, scratch=self.folder)
        self.finish(job, result={"dataset": dataset.to_json(), "reused": reused})
        data = {"job_id": job.id, "recipe": RECIPE.name, "dataset_id": dataset.id, "reused": reused}
        return Event(f"built-{job.id}", DATASET_BUILT, "/tunesmith/trainer", job.id, rfc3339(self.clock.now()), data)

    def tune(self, job: Job) -> None:
        """Do a tune job as far as the store can tell."""
        request = TuneRequest.from_json(job.request)
        run = Run(
            request.run_id, RECIPE.name, request.dataset_id, request.base_model, {}, "a/", "h", "f", "m", 1, False, 0,
            1.0, 1.0, rfc3339(self.clock.now()),
        )  # fmt: skip
        self.store.put(keys.run(RECIPE.name, run.id), canonical_json(run.to_json()))
        judged_by = "" if request.follow_up == "none" else judge_job_id(job.id)
        self.finish(job, result={"run": run.to_json(), "reused": False, "judge_job_id": judged_by})

    def judge(self, tuned: Job, *, promoted: bool = False) -> None:
        """The judge job that follows a tune job, from beginning to end."""
        job, _ = self.jobs.submit(
            job_id=judge_job_id(tuned.id), kind="judge", service="trainer", request={"recipe": RECIPE.name}
        )
        self.finish(job, result={"version": {"id": "mv-1"}, "promoted": promoted, "passed": promoted})

    def finish(self, job: Job, *, phase: str = "succeeded", **changes: Any) -> None:
        self.jobs.change(job.id, lambda current: self.jobs.step(current, phase=phase, **changes))
        self.jobs.settle(job.id)

    def hear(self, *events: Event, policies: Policies | None = None) -> None:
        """Let a consumer have the events in this order, and the loop look once after each."""
        policies = policies or self.policies
        handlers = policy_handlers(policies, lambda: None)
        for event in events:
            handlers[event.type](event)
            policies.look_at_all()

    def trained_on_old_names(self) -> None:
        """A policy that has seen a first collection, and a run on it."""
        self.enable()
        self.hear(self.collect(OLD))
        self.hear(self.curate(self.waiting("curate")[0]))
        job = self.waiting("tune")[0]
        self.tune(job)
        self.judge(job)
        self.look()

    def look(self) -> str:
        """One look; why it waits."""
        return self.policies.look(RECIPE.name).reason


def _row(store: Store, key: str) -> Any:
    return json.loads(store.get(key).data)


@pytest.fixture
def plant(place: Place, tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path, place)
    yield made
    made.bus.close()


def test_a_collection_leads_to_a_dataset_and_a_run_of_the_policys_settings(plant: Plant) -> None:
    plant.enable(settings={"epochs": 2}, priority=7, follow_up="judge")

    plant.hear(plant.collect(OLD))
    (curation,) = plant.waiting("curate")
    plant.hear(plant.curate(curation))

    (job,) = plant.waiting("tune")
    request = TuneRequest.from_json(job.request)
    assert (request.settings.epochs, request.follow_up, job.priority) == (2, "judge", 7)
    assert request.dataset_id == plant.jobs.get(curation.id).result["dataset"]["id"]
    assert curation.priority == 7


def test_without_a_policy_events_start_nothing(plant: Plant) -> None:
    plant.hear(plant.collect(OLD))

    assert plant.waiting("curate") == []
    assert not plant.store.exists(keys.policy(RECIPE.name))


def test_turning_a_policy_on_takes_up_what_was_collected_before(plant: Plant) -> None:
    plant.collect(OLD)

    plant.enable()

    (curation,) = plant.waiting("curate")
    plant.hear(plant.curate(curation))
    assert len(plant.waiting("tune")) == 1


def test_turning_a_policy_on_takes_up_a_dataset_that_is_there(plant: Plant) -> None:
    event = plant.collect(OLD)
    plant.enable()
    plant.curate(plant.waiting("curate")[0])
    plant.policies.set(Policy(RECIPE.name))
    plant.hear(event)

    plant.enable()

    assert plant.look() == "start"


def test_new_examples_are_counted_against_what_was_trained_on(plant: Plant) -> None:
    plant.trained_on_old_names()

    plant.hear(plant.collect((*OLD[5:], *NEW[:9])))
    plant.hear(plant.curate(plant.waiting("curate")[0]))

    standing = plant.policies.standing(RECIPE.name)
    assert standing.decision.message == "9 of 10 new examples"
    assert standing.situation.num_trained == len(OLD)
    assert plant.waiting("tune") == []

    plant.hear(plant.collect(NEW[:10]))
    plant.hear(plant.curate(plant.waiting("curate")[0]))

    assert len(plant.waiting("tune")) == 1


def test_rows_that_are_only_written_otherwise_are_not_new(plant: Plant) -> None:
    plant.trained_on_old_names()

    plant.hear(plant.collect(tuple(f"  {name.upper()} " for name in OLD)))
    plant.hear(plant.curate(plant.waiting("curate")[0]))

    assert plant.policies.standing(RECIPE.name).situation.num_new == 0


def test_a_recipe_that_needs_captions_is_curated_from_captioned_collections_alone(plant: Plant) -> None:
    plant.policies.set(Policy("video_tags", enabled=True))
    collected = Collection("col-clips", "video_tags", "folder", 1, (), {}, "2026-11-21T10:00:00.000000Z")
    captioned = replace(collected, id="col-captions", derived_from="col-clips", derived_by="signal 1")

    def stored(collection: Collection, kind: str) -> Event:
        plant.store.put(keys.collection("video_tags", collection.id), canonical_json(collection.to_json()))
        data = {"job_id": "j", "recipe": "video_tags", "collection_id": collection.id}
        return Event(f"e-{collection.id}", kind, "s", "j", rfc3339(plant.clock.now()), data)

    first = stored(collected, RECORDS_COLLECTED)
    plant.hear(first)
    assert plant.waiting("curate") == []
    second = stored(captioned, CLIPS_CAPTIONED)
    plant.hear(second, first, second)

    (job,) = plant.waiting("curate")
    assert job.request["collection_ids"] == ["col-captions"]


def test_events_that_come_twice_start_nothing_twice(plant: Plant) -> None:
    plant.enable()
    collected = plant.collect(OLD)
    plant.hear(collected, collected)
    (curation,) = plant.waiting("curate")
    built = plant.curate(curation)
    plant.hear(built, built, collected, built)
    (job,) = plant.waiting("tune")
    plant.tune(job)
    plant.judge(job)

    plant.hear(collected, built, collected, built)

    assert plant.waiting("curate") == plant.waiting("tune") == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_events_in_any_order_lead_to_one_run_on_everything(plant: Plant, order: tuple[int, ...]) -> None:
    plant.enable(min_new_examples=50)
    first, second = plant.collect(OLD), plant.collect(NEW)
    plant.policies.curate(RECIPE.name, cause="both")
    both = plant.curate(plant.waiting("curate")[0])
    narrow, _ = plant.jobs.submit(
        job_id="narrow",
        kind="curate",
        service="trainer",
        request=CurateRequest(RECIPE.name, ("col-0000",), RECIPE.curation).to_json(),
    )
    events = [first, second, both, plant.curate(narrow)]

    plant.hear(*(events[n] for n in order))

    (job,) = plant.waiting("tune")
    assert TuneRequest.from_json(job.request).dataset_id == both.data["dataset_id"]
    plant.tune(job)
    plant.judge(job)
    plant.hear(*(events[n] for n in reversed(order)))
    assert plant.waiting("tune") == []


def test_collections_that_come_while_one_is_curated_are_curated_together_afterwards(plant: Plant) -> None:
    plant.enable()
    plant.hear(plant.collect(OLD))
    (first,) = plant.waiting("curate")
    plant.hear(*(plant.collect((name,)) for name in NEW))
    assert plant.waiting("curate") == [first]

    plant.hear(plant.curate(first))

    (second,) = plant.waiting("curate")
    assert len(second.request["collection_ids"]) == 1 + len(NEW)


def test_a_curation_that_fails_is_not_repeated_but_what_came_meanwhile_is_curated(plant: Plant) -> None:
    plant.enable()
    plant.hear(plant.collect(OLD[:5]))
    (first,) = plant.waiting("curate")
    plant.finish(first, phase="failed", error=JobError("FAILED_PRECONDITION", "NO_USABLE_ROWS", "too few"))
    failed = Event("f", JOB_FAILED, "s", first.id, rfc3339(plant.clock.now()), {"job_id": first.id, "kind": "curate"})
    plant.hear(failed, failed)
    assert plant.waiting("curate") == []

    event = plant.collect(OLD)
    plant.hear(failed, event, failed, event)

    assert len(plant.waiting("curate")) == 1


def test_a_start_takes_up_a_collection_whose_event_was_lost(plant: Plant) -> None:
    plant.enable()
    plant.collect(OLD)

    for _ in range(2):
        plant.replica().look_at_all()

    assert len(plant.waiting("curate")) == 1


def test_a_dataset_curated_with_other_settings_or_of_other_collections_is_no_candidate(plant: Plant) -> None:
    plant.trained_on_old_names()
    plant.collect(NEW)
    settings = RECIPE.curation.changed({"drop_near_duplicates": True})
    for number, request in enumerate(
        (
            CurateRequest(RECIPE.name, ("col-0000", "col-0001"), settings),
            CurateRequest(RECIPE.name, ("col-0001",), RECIPE.curation),
        )
    ):
        job, _ = plant.jobs.submit(
            job_id=f"by-hand-{number}", kind="curate", service="trainer", request=request.to_json()
        )
        if request.collection_ids == ("col-0001",):  # too few rows to build; the event is what matters
            data = {"job_id": job.id, "recipe": RECIPE.name, "dataset_id": "ds-narrow"}
            plant.hear(Event("e", DATASET_BUILT, "s", job.id, rfc3339(plant.clock.now()), data))
        else:
            plant.hear(plant.curate(job))

    assert plant.policies.standing(RECIPE.name).situation.num_new == 0


def test_an_interactive_run_of_the_same_data_and_settings_is_the_policys_run_too(plant: Plant) -> None:
    """What `tunesmith run` asks for and what the policy starts are one job; whoever comes second joins."""
    plant.enable()
    plant.hear(plant.collect(OLD))
    (curation,) = plant.waiting("curate")
    _, created = plant.jobs.submit_by_content(
        kind="curate",
        service="trainer",
        request={k: v for k, v in curation.request.items() if k != "request_id"},
        request_id="by-hand",
    )
    assert not created
    plant.hear(plant.curate(curation))
    (job,) = plant.waiting("tune")

    joined, created = plant.jobs.submit_by_content(
        kind="tune",
        service="trainer",
        request={k: v for k, v in job.request.items() if k != "request_id"},
        request_id="by-hand",
    )

    assert (joined.id, created) == (job.id, False)


def test_a_run_that_somebody_else_started_is_waited_for(plant: Plant) -> None:
    plant.trained_on_old_names()
    other, _ = plant.jobs.submit(job_id="other", kind="tune", service="trainer", request={"recipe": RECIPE.name})
    plant.hear(plant.collect(NEW))
    plant.hear(plant.curate(plant.waiting("curate")[0]))
    assert plant.look() == "run_in_flight"

    plant.finish(other, phase="failed", error=JobError("INTERNAL", "X", "broke"))

    assert plant.look() == "start"


def test_a_run_lasts_until_it_is_judged_and_then_the_cool_down_begins(plant: Plant) -> None:
    plant.trained_on_old_names()
    plant.enable(cool_down_s=60)
    plant.hear(plant.collect(NEW))
    plant.hear(plant.curate(plant.waiting("curate")[0]))
    assert plant.look() == "cool_down"
    plant.clock.advance(60)
    assert plant.look() == "start"
    (job,) = plant.waiting("tune")
    plant.tune(job)
    assert plant.look() == "run_in_flight"

    plant.clock.advance(JUDGE_LOST_S - 1)
    plant.judge(job, promoted=True)

    assert plant.look() == "too_few_new"
    last = plant.policies.get(RECIPE.name).last
    assert last is not None
    assert (last.outcome, last.detail, last.ended_at) == ("promoted", "mv-1", rfc3339(plant.clock.now()))


def test_a_judgement_that_never_comes_does_not_hold_up_the_policy_for_ever(plant: Plant) -> None:
    plant.enable()
    plant.hear(plant.collect(OLD))
    plant.hear(plant.curate(plant.waiting("curate")[0]))
    plant.tune(plant.waiting("tune")[0])
    plant.clock.advance(JUDGE_LOST_S + 1)

    assert plant.look() == "last_run_failed"


def test_a_run_that_fails_leaves_its_examples_new_and_waits_for_other_data(plant: Plant) -> None:
    plant.enable()
    plant.hear(plant.collect(OLD))
    plant.hear(plant.curate(plant.waiting("curate")[0]))
    (job,) = plant.waiting("tune")
    plant.finish(job, phase="failed", error=JobError("INVALID_ARGUMENT", "BASE", "no such base"))
    assert plant.look() == "last_run_failed"
    assert plant.look() == "last_run_failed"

    plant.hear(plant.collect(NEW[:1]))
    plant.hear(plant.curate(plant.waiting("curate")[0]))

    (again,) = plant.waiting("tune")
    assert again.id != job.id


def test_what_the_schedule_held_back_starts_at_its_slot_after_a_restart_too(plant: Plant) -> None:
    plant.enable(every_s=3600)
    plant.hear(plant.collect(OLD))
    plant.hear(plant.curate(plant.waiting("curate")[0]))
    assert plant.look() == "schedule"

    plant.clock.advance(3600)

    assert plant.replica().look(RECIPE.name).reason == "start"
    assert len(plant.waiting("tune")) == 1


class DiesBeforeSubmitting(JobStore):
    """A process that is killed between its decision and the job."""

    def submit_by_content(self, **_: Any) -> tuple[Job, bool]:
        raise Killed


class Killed(BaseException):
    """kill -9, as far as the code after it can tell."""


def decided_on_but_not_submitted(plant: Plant) -> None:
    plant.enable()
    plant.hear(plant.collect(OLD))
    event = plant.curate(plant.waiting("curate")[0])
    plant.policies.note_dataset(RECIPE.name, event.data["dataset_id"], event.data["job_id"])
    with pytest.raises(Killed):
        plant.replica(DiesBeforeSubmitting(plant.store, plant.clock)).look(RECIPE.name)
    assert plant.waiting("tune") == []


def test_a_crash_between_decision_and_submission_is_made_up_for_once(plant: Plant) -> None:
    decided_on_but_not_submitted(plant)

    for _ in range(3):
        plant.replica().look(RECIPE.name)

    (job,) = plant.waiting("tune")
    last = plant.policies.get(RECIPE.name).last
    assert last is not None
    assert last.job_id == job.id


def test_a_policy_changed_after_the_decision_does_not_make_a_second_run(plant: Plant) -> None:
    decided_on_but_not_submitted(plant)
    before = plant.policies.get(RECIPE.name)
    plant.replica().look(RECIPE.name)
    # The one that died had submitted after all, but not yet said so.
    lost_note = replace(before, rev=plant.policies.get(RECIPE.name).rev + 1, writer="w")
    plant.store.put(keys.policy(RECIPE.name), canonical_json(lost_note.to_json()))

    plant.enable(settings={"epochs": 3}, priority=9)
    plant.look()

    assert len(plant.waiting("tune")) == 1


def test_two_replicas_that_decide_at_once_start_one_run(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.enable()
    plant.hear(plant.collect(OLD))
    event = plant.curate(plant.waiting("curate")[0])
    plant.policies.note_dataset(RECIPE.name, event.data["dataset_id"], event.data["job_id"])
    one, other = plant.replica(), plant.replica()
    begin: Callable[..., None] = one._start

    def later(record: Any, situation: Any) -> None:
        other.look(RECIPE.name)
        begin(record, situation)

    monkeypatch.setattr(one, "_start", later)

    one.look(RECIPE.name)
    one.look(RECIPE.name)

    assert len(plant.waiting("tune")) == 1


def test_a_policy_that_is_turned_off_while_it_decides_starts_nothing(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.enable()
    plant.hear(plant.collect(OLD))
    event = plant.curate(plant.waiting("curate")[0])
    plant.policies.note_dataset(RECIPE.name, event.data["dataset_id"], event.data["job_id"])
    begin: Callable[..., None] = plant.policies._start

    def later(record: Any, situation: Any) -> None:
        plant.replica().set(Policy(RECIPE.name))
        begin(record, situation)

    monkeypatch.setattr(plant.policies, "_start", later)

    plant.look()

    assert plant.waiting("tune") == []
    assert plant.policies.get(RECIPE.name).last is None


def test_a_write_whose_outcome_is_unknown_starts_one_run(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.enable()
    plant.hear(plant.collect(OLD))
    event = plant.curate(plant.waiting("curate")[0])
    plant.policies.note_dataset(RECIPE.name, event.data["dataset_id"], event.data["job_id"])
    replace_object = plant.store.replace

    def written_but_not_answered(key: str, data: bytes, *, version: str) -> str:
        replace_object(key, data, version=version)
        raise Unavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(plant.store, "replace", written_but_not_answered)
        plant.look()
    plant.look()

    assert len(plant.waiting("tune")) == 1


def test_a_base_that_is_gone_ends_the_attempt_and_says_so(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.enable()
    plant.hear(plant.collect(OLD))

    def refuse(*_: object) -> None:
        raise InvalidInput("there is no such base")

    monkeypatch.setattr("tunesmith_trainer.retraining.plan_run", refuse)
    plant.hear(plant.curate(plant.waiting("curate")[0]))

    assert plant.waiting("tune") == []
    assert "there is no such base" in plant.policies.standing(RECIPE.name).decision.message


def test_a_corrupt_policy_does_not_hold_up_the_loop(plant: Plant, caplog: pytest.LogCaptureFixture) -> None:
    plant.enable()
    plant.store.put(keys.policy(RECIPE.name), b"{")
    plant.policies.look_at_all()
    plant.policies.look_at_all()

    assert len([r for r in caplog.records if "held up" in r.message]) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"epochs": -1}}, "epochs=-1"),
        ({"settings": {"hope": 1}}, "'hope' is unknown"),
        ({"recipe": "polka"}, "polka"),
        ({"min_new_examples": -1}, "between 0 and"),
    ],
)
def test_a_wrong_policy_is_refused_and_nothing_is_stored(plant: Plant, change: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        plant.enable(**change)

    assert not plant.store.exists(keys.policy(RECIPE.name))


def test_a_policy_that_somebody_else_has_set_meanwhile_is_not_overwritten(plant: Plant) -> None:
    plant.policies.set(Policy(RECIPE.name), expected_rev=0)

    with pytest.raises(Conflict, match="revision 1, not 0"):
        plant.policies.set(Policy(RECIPE.name), expected_rev=0)


def test_events_of_recipes_that_are_not_installed_here_are_passed_over(plant: Plant) -> None:
    event = plant.collect(OLD)

    plant.hear(replace(event, data={**event.data, "recipe": "from_elsewhere"}))

    assert plant.bus.dead_letters("tunesmith.scraper") == []


def test_the_event_of_a_collection_reaches_the_policy_over_the_bus(plant: Plant) -> None:
    plant.enable()
    plant.bus.publish("tunesmith.scraper", [plant.collect(OLD)])
    consumer = ConsumerLoop(
        bus=plant.bus,
        clock=plant.clock,
        group="trainer-policies",
        topics=TOPICS,
        handlers=policy_handlers(plant.policies, lambda: None),
    )
    subscription = plant.bus.subscribe("trainer-policies", TOPICS)

    eventually(lambda: consumer.handle_batch(subscription))
    subscription.close()

    assert len(plant.waiting("curate")) == 1
