"""What must hold after an episode, read from store and bus past the services."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from chaos.fleet import Fleet
from chaos.workload import RECIPE
from tunesmith.domain.events import topic_of
from tunesmith.domain.jobs import Job
from tunesmith.jobs.reconciler import FORGET_MARKER_S
from tunesmith.leftovers import Leftovers
from tunesmith.platform import Platform
from tunesmith.settings import Settings

SETTLE_S = 60.0
"""How long after the last fault, and the last request, every job may take to end."""

QUIET_S = 4.0
"""An event that is still on its way to a consumer may begin another job within this."""

EXIT_S = 10.0
"""How long a worker whose job has ended may take to end itself: its interpreter has things to put away."""

_ENVIRONMENT = threading.Lock()
"""Held while this process's environment is that of a fleet."""

TOPICS = tuple(topic_of(service) for service in ("scraper", "captioner", "trainer"))


@dataclass
class Findings:
    """What an episode, or all of them, came to. All but the first four counts must be zero."""

    kills: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    attempts: int = 0
    longest_job_s: float = 0.0
    """From the creation of a job to its last change."""
    lost_replies: int = 0
    """Writes to the store whose reply was lost, or that were carried out twice."""
    settled_s: float = 0.0
    """The longest time from the last fault until every job had ended and said so."""
    unsettled: int = 0
    """Jobs that had not ended SETTLE_S after the last fault."""
    lost: int = 0
    """Acknowledged jobs that do not exist, or that failed."""
    doubled_launches: int = 0
    """Attempts of which more than one process was started."""
    doubled_effects: int = 0
    """Jobs with more than one outcome told, and model versions beyond one for each judged run."""
    untold: int = 0
    """Jobs that ended without an event."""
    dead_letters: int = 0
    orphans: int = 0
    """Unreferenced objects that are there after one clean-up, and workers that are left."""
    notes: list[str] = field(default_factory=list)

    FAULTS = ("unsettled", "lost", "doubled_launches", "doubled_effects", "untold", "dead_letters", "orphans")

    def add(self, other: Findings) -> None:
        """Take in another episode's."""
        self.kills += other.kills
        self.jobs += other.jobs
        self.attempts += other.attempts
        self.longest_job_s = max(self.longest_job_s, other.longest_job_s)
        self.lost_replies += other.lost_replies
        self.settled_s = max(self.settled_s, other.settled_s)
        for name in self.FAULTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.notes += other.notes

    @property
    def num_kills(self) -> int:
        """Processes that were killed."""
        return sum(self.kills.values())

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, doubled or left."""
        return not any(getattr(self, name) for name in self.FAULTS) and not self.notes


def await_settled(fleet: Fleet, findings: Findings) -> None:
    """Wait until every job has ended, published its events and lost its marker.

    A marker whose submitter died before it wrote the job is nobody's job: it is an orphan if the reconcilers leave it.
    """
    began_s = time.monotonic()
    quiet_since_s = None
    with _opened(fleet) as platform:
        while True:
            now_s = time.monotonic()
            marked = list(platform.jobs.active_ids())
            open_jobs = [job for job_id in marked if (job := platform.jobs.find(job_id)) is not None]
            if open_jobs or not _all_terminal(platform):
                quiet_since_s = None
            elif quiet_since_s is None:
                quiet_since_s = now_s
            elif now_s - quiet_since_s >= QUIET_S:
                findings.settled_s = quiet_since_s - began_s
                if not marked:
                    return
            if quiet_since_s is None and now_s - began_s > SETTLE_S:
                findings.settled_s = now_s - began_s
                findings.unsettled += max(1, len(open_jobs))
                findings.notes += [f"unsettled: {job.id} {job.kind} {job.phase}" for job in open_jobs[:3]]
                return
            if now_s - began_s > SETTLE_S + FORGET_MARKER_S:
                findings.orphans += len(marked)
                findings.notes += [f"orphan: marker of {job_id}" for job_id in marked[:3]]
                return
            time.sleep(0.1)


def _all_terminal(platform: Platform) -> bool:
    """Whether all has ended, the judgements included that events are still to bring about."""
    jobs = {job_id: platform.jobs.get(job_id) for job_id in platform.jobs.all_ids()}
    to_come = {job.result["judge_job_id"] for job in jobs.values() if job.kind == "tune" and job.result} - {""}
    return to_come <= jobs.keys() and all(job.is_terminal for job in jobs.values())


def check(fleet: Fleet, acknowledged: Sequence[str], findings: Findings) -> None:
    """Look at jobs, launches, events and models; fills `findings`."""
    with _opened(fleet) as platform:
        jobs = {job_id: platform.jobs.get(job_id) for job_id in platform.jobs.all_ids()}
        findings.jobs = len(jobs)
        findings.attempts = sum(job.attempt for job in jobs.values())
        findings.longest_job_s = max(map(_lasted_s, jobs.values()), default=0.0)
        for job_id in acknowledged:
            job = jobs.get(job_id)
            if job is None or job.phase != "succeeded":
                findings.lost += 1
                why = f"{job.kind} {job.phase} {job.error.reason if job.error else ''}" if job else "does not exist"
                findings.notes.append(f"lost: {job_id} {why}")
        for job in jobs.values():
            if job.phase == "failed" and job.id not in acknowledged:
                findings.lost += 1
                findings.notes.append(f"lost: {job.kind} {job.id} {job.error.reason if job.error else ''}")
        _check_launches(fleet, findings)
        _check_events(platform, jobs, findings)
        judged = {job.result["version"]["id"] for job in jobs.values() if job.kind == "judge" and job.result}
        versions = [info.key for info in platform.store.list(f"models/{RECIPE}/versions/")]
        findings.doubled_effects += max(0, len(versions) - len(judged))
        _check_orphans(fleet, platform, findings)


def _lasted_s(job: Job) -> float:
    began, ended = map(datetime.fromisoformat, (job.created_at, job.updated_at))
    return (ended - began).total_seconds()


def _check_orphans(fleet: Fleet, platform: Platform, findings: Findings) -> None:
    """Workers without a job, and what nothing refers to after one clean-up, however young it is."""
    deadline_s = time.monotonic() + EXIT_S
    while (workers := fleet.workers()) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    Leftovers(platform.store, platform.clock, older_than_s=-SETTLE_S).remove(lambda _: None)
    objects = Leftovers(platform.store, platform.clock, older_than_s=-SETTLE_S).found
    findings.orphans += len(workers) + len(objects)
    findings.notes += [f"orphan: process {worker.pid}" for worker in workers]
    findings.notes += [f"orphan: {found}" for found in objects[:3]]


def _check_launches(fleet: Fleet, findings: Findings) -> None:
    started: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    with contextlib.suppress(FileNotFoundError):
        for line in (fleet.folder / "workers").read_text().splitlines():
            job_id, epoch, pid = line.split()
            started[job_id, epoch].add(pid)
    doubled = [f"{job}/{epoch}" for (job, epoch), pids in started.items() if len(pids) > 1]
    findings.doubled_launches += len(doubled)
    findings.notes += [f"doubled launch: {which}" for which in doubled[:3]]


def _check_events(platform: Platform, jobs: Mapping[str, Job], findings: Findings) -> None:
    told: defaultdict[str, set[str]] = defaultdict(set)
    subscription = platform.bus.subscribe(f"chaos-check-{os.getpid()}", TOPICS)
    try:
        silent = 0
        while silent < 3:
            messages = subscription.poll(timeout_s=1.0, max_messages=256)
            silent = 0 if messages else silent + 1
            for message in messages:
                if message.event is not None and "job_id" in message.event.data:
                    told[message.event.data["job_id"]].add(message.event.id)
    finally:
        subscription.close()
    # A judgement tells two things: that it judged, and what became of the champion.
    allowed = {job_id: 2 if job.kind == "judge" else 1 for job_id, job in jobs.items()}
    doubled = [job_id for job_id, limit in allowed.items() if len(told[job_id]) > limit]
    untold = [job_id for job_id in allowed if not told[job_id]]
    findings.doubled_effects += len(doubled)
    findings.untold += len(untold)
    findings.notes += [f"told twice: {job_id}" for job_id in doubled[:3]] + [
        f"untold: {job_id}" for job_id in untold[:3]
    ]
    for topic in TOPICS:
        letters = platform.bus.dead_letters(topic)
        findings.dead_letters += len(letters)
        findings.notes += [f"dead letter of {topic}: {letter.error[:200]}" for letter in letters[:3]]


@contextlib.contextmanager
def _opened(fleet: Fleet) -> Iterator[Platform]:
    """The episode's store and bus, opened by this process under the settings that its services have."""
    with _ENVIRONMENT:
        before = {name: os.environ.get(name) for name in fleet.settings}
        os.environ.update(fleet.settings)
        try:
            data = fleet.folder / "outside"
            given = {} if "TUNESMITH_DATA" in fleet.settings else {"data": data}
            platform = Platform.open(Settings.read(**given))
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
    try:
        yield platform
    finally:
        platform.close()
