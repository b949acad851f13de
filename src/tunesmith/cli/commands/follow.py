"""`tunesmith follow`: what goes on, step by step, from new records to the model that is served."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import click
import grpc

from tunesmith.cli.commands.policy import waiting_line
from tunesmith.cli.connection import Connection, connect
from tunesmith.cli.options import Globals, global_options
from tunesmith.cli.problems import EXIT_ERROR, EXIT_REFUSED, code_of
from tunesmith.cli.progress import Display, display, is_terminal
from tunesmith.cli.render import Output, counts, phase_name, plain
from tunesmith_proto.common.v1 import jobs_pb2
from tunesmith_proto.generator.v1 import generator_pb2
from tunesmith_proto.trainer.v1 import models_pb2, policies_pb2

LOOK_EVERY_S = 0.2
"""Shorter than any job: its process takes longer to start."""
POLICIES_EVERY_S = 1.0

MAX_ACTIVE = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened."""

    name: str
    """`queued`, `started`, `collected`, `captioned`, `curated`, `tuned`, `ended` (other jobs), `promoted`, `passed`,
    `refused`, `failed`, `cancelled`, `policy` or `served`."""
    recipe: str
    text: str
    job_id: str = ""
    model: str = ""

    def to_json(self) -> dict[str, str]:
        """The step as a JSON line."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return {
            "time": now,
            "step": self.name,
            "recipe": self.recipe,
            "message": self.text,
            "job_id": self.job_id,
            "model": self.model,
        }


@click.command("follow")
@click.argument("recipe", default="")
@click.option("--once", is_flag=True, help="End after one model is served or refused, or a job fails.")
@global_options()
@click.pass_obj
def follow(options: Globals, recipe: str, once: bool) -> int:
    """Show each step of RECIPE (of all recipes) as it happens, until Ctrl-C.

    From collected records over dataset, run and verdict to the model that is served, and why a policy waits. With
    --json a line for every step. With --once exit code 3 after a refusal, 1 after a failure.
    """
    out = Output(json=options.json)
    with connect(options) as connection, display(out) as shown:
        for step in Followed(connection, recipe, shown).steps():
            out.document(step.to_json())
            if not out.json:
                out.note(f"{datetime.now().astimezone():%H:%M:%S}  {step.name:<9}  {step.recipe}  {step.text}")
            if once and step.name in _ENDS:
                return _ENDS[step.name]
    return 0


_ENDS = {"served": 0, "passed": 0, "refused": EXIT_REFUSED, "failed": EXIT_ERROR, "cancelled": EXIT_ERROR}


@dataclass(slots=True)
class Followed:
    """What was seen so far."""

    connection: Connection
    recipe: str
    """Empty for all."""
    shown: Display
    pause: Callable[[float], None] = time.sleep
    _phases: dict[str, str] = field(default_factory=dict)
    """Of the jobs that have not ended."""
    _promoted: dict[str, Step] = field(default_factory=dict)
    """By recipe: a promotion that the generator does not serve yet."""
    _policies: dict[str, str] = field(default_factory=dict)
    _policies_at_s: float = 0.0
    _barred: str = ""
    """The job whose progress is shown."""

    def steps(self) -> Iterator[Step]:
        """Steps as they happen, without end."""
        while True:
            yield from self.look()
            self.pause(LOOK_EVERY_S)

    def look(self) -> Iterator[Step]:
        """What has happened since the last look."""
        request = jobs_pb2.ListJobsRequest(active_only=True)
        active: list[jobs_pb2.Job] = self.connection.pages(
            self.connection.jobs.ListJobs, request, "jobs", limit=MAX_ACTIVE
        )
        jobs = {job.id: job for job in reversed(active)}
        for job in jobs.values():
            if self.recipe in ("", _recipe(job)):
                yield from self._step_of(job)
        for job_id in [known for known in self._phases if known not in jobs]:
            ended = self._job(job_id)
            if ended is not None and is_terminal(ended):
                self.shown.show(ended)
                yield from self._end_of(ended)
        yield from self._served()
        if time.monotonic() >= self._policies_at_s:
            self._policies_at_s = time.monotonic() + POLICIES_EVERY_S
            yield from self._policy_steps()

    def _step_of(self, job: jobs_pb2.Job) -> Iterator[Step]:
        phase = "queued" if job.phase == jobs_pb2.JOB_PHASE_QUEUED else "started"
        before = self._phases.get(job.id, "")
        self._phases[job.id] = phase
        if phase != before and (phase == "started" or not before):
            yield Step(phase, _recipe(job), f"{job.kind} job {job.id}", job.id)
        if phase == "started" and self._barred in ("", job.id):
            self._barred = job.id
            self.shown.show(job)

    def _end_of(self, job: jobs_pb2.Job) -> Iterator[Step]:
        del self._phases[job.id]
        if self._barred == job.id:
            self._barred = ""
        result = plain(job.result)
        if job.phase != jobs_pb2.JOB_PHASE_SUCCEEDED:
            text = f"{job.kind} job {job.id}: {job.error.message}"
            yield Step(phase_name(job), _recipe(job), text, job.id)
            return
        step = _ENDINGS.get(job.kind, _other_ending)(job, result)
        if step.name == "promoted":
            self._promoted[step.recipe] = step
        elif step.name == "refused":
            step = self._with_gates(step)
        yield step
        if expected := result.get("judge_job_id"):
            self._phases.setdefault(expected, "")

    def _with_gates(self, step: Step) -> Step:
        request = models_pb2.GetReportRequest(recipe=step.recipe, version=step.model)
        reply: models_pb2.GetReportResponse = self.connection.call(self.connection.models.GetReport, request)
        failed = ", ".join(gate.name for gate in reply.report.gates if not gate.passed)
        return Step(step.name, step.recipe, f"{step.text}, gates not passed: {failed}", step.job_id, step.model)

    def _served(self) -> Iterator[Step]:
        if not self._promoted:
            return
        reply: generator_pb2.ListServedResponse = self.connection.call(
            self.connection.generator.ListServed, generator_pb2.ListServedRequest()
        )
        for served in reply.models:
            waited = self._promoted.get(served.recipe)
            if served.champion and waited is not None and waited.model == served.model_version:
                del self._promoted[served.recipe]
                yield Step("served", served.recipe, f"model {waited.model} answers now", model=waited.model)

    def _policy_steps(self) -> Iterator[Step]:
        reply: policies_pb2.ListPoliciesResponse = self.connection.call(
            self.connection.policies.ListPolicies, policies_pb2.ListPoliciesRequest()
        )
        for entry in reply.policies:
            name = entry.policy.recipe
            text = waiting_line(entry.standing) if entry.policy.enabled else ""
            if self.recipe in ("", name) and text != self._policies.get(name, ""):
                self._policies[name] = text
                yield Step("policy", name, text or "is off")

    def _job(self, job_id: str) -> jobs_pb2.Job | None:
        try:
            reply: jobs_pb2.GetJobResponse = self.connection.call(
                self.connection.jobs.GetJob, jobs_pb2.GetJobRequest(job_id=job_id)
            )
        except grpc.RpcError as error:
            if code_of(error) != "NOT_FOUND":
                raise
            return None  # its event is still on the way
        return reply.job


def _recipe(job: jobs_pb2.Job) -> str:
    return str(plain(job.request).get("recipe", ""))


def _collected(job: jobs_pb2.Job, result: Mapping[str, Any]) -> Step:
    made = result["collection"]
    text = f"collection {made['id']}, {made['num_records']} records"
    return Step("collected", _recipe(job), text + (", nothing new in it" if result["reused"] else ""), job.id)


def _curated(job: jobs_pb2.Job, result: Mapping[str, Any]) -> Step:
    made = result["dataset"]
    return Step("curated", _recipe(job), f"dataset {made['id']}, {counts(made['num_examples'])}", job.id)


def _tuned(job: jobs_pb2.Job, result: Mapping[str, Any]) -> Step:
    made = result["run"]
    return Step("tuned", _recipe(job), f"run {made['id']}, {made['num_steps']} steps", job.id)


def _judged(job: jobs_pb2.Job, result: Mapping[str, Any]) -> Step:
    model = result["version"]["id"]
    name = "promoted" if result["promoted"] else "passed" if result["passed"] else "refused"
    return Step(name, _recipe(job), f"model {model}", job.id, model)


def _other_ending(job: jobs_pb2.Job, result: Mapping[str, Any]) -> Step:  # noqa: ARG001
    return Step("captioned" if job.kind == "caption" else "ended", _recipe(job), f"{job.kind} job {job.id}", job.id)


_ENDINGS = {"collect": _collected, "curate": _curated, "tune": _tuned, "judge": _judged}
