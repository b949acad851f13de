"""Model versions, the reports that judge them, and the gates that decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from tunesmith.domain.parity import Probes

Subject = Literal["base", "candidate", "champion"]
Unit = Literal["share", "ratio", "bits", "characters", "count"]

MAX_PROMPT_CHARS = 4_000
"""Of one prompt in a report: a longer one is cut there."""


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a person needs to read one metric of a report."""

    title: str
    unit: Unit
    better: Literal["higher", "lower"]
    explanation: str


@dataclass(frozen=True, slots=True)
class Measure:
    """A measured value with its 95 % confidence interval and the number of observations behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Gate:
    """A rule on a report: `subject`'s `metric` compared with `limit`, or with another subject's value plus `limit`.

    A gate relative to a subject that is not in the report (no champion yet) passes and says so. A metric that is
    missing or not a number fails the gate.
    """

    name: str
    metric: str
    comparison: Literal[">=", "<="]
    limit: float
    why: str
    """What a failure means, for the person who reads the refusal."""
    relative_to: Subject | None = None
    bound: Literal["value", "low", "high"] = "value"
    """Which end of the candidate's confidence interval is compared."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate's verdict on one report."""

    name: str
    metric: str
    passed: bool
    value: float | None
    comparison: str
    limit: float
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """The measured comparison of a candidate with the base and the champion.

    `metrics[subject][name]` are Measures; `anchors` are model-free reference values on the same rows;
    `samples[subject]` are generated answers in prompt order; `distributions[subject]` count answers by attribute value.
    """

    id: str
    recipe: str
    run_id: str
    dataset_id: str
    model_version: str
    champion_version: str
    """The champion that the candidate was compared with; empty when there was none."""
    metrics: Mapping[str, Mapping[str, Measure]]
    anchors: Mapping[str, float]
    samples: Mapping[str, tuple[str, ...]]
    distributions: Mapping[str, Mapping[str, Mapping[str, int]]]
    gates: tuple[GateResult, ...]
    passed: bool
    created_at: str
    prompts: tuple[str, ...] = ()
    """The prompts of `samples`, shortened; empty where the recipe makes them from seed numbers."""
    probes: Probes | None = None
    """What the version must answer when it is served; None in reports that were made before there were probes."""

    def to_json(self) -> dict[str, Any]:
        """The report as its JSON object."""
        return {
            "id": self.id,
            "recipe": self.recipe,
            "run_id": self.run_id,
            "dataset_id": self.dataset_id,
            "model_version": self.model_version,
            "champion_version": self.champion_version,
            "metrics": {s: {k: asdict(m) for k, m in row.items()} for s, row in self.metrics.items()},
            "anchors": dict(self.anchors),
            "samples": {s: list(rows) for s, rows in self.samples.items()},
            "distributions": {s: {a: dict(c) for a, c in row.items()} for s, row in self.distributions.items()},
            "gates": [asdict(g) for g in self.gates],
            "passed": self.passed,
            "created_at": self.created_at,
            "prompts": list(self.prompts),
            "probes": self.probes.to_json() if self.probes else None,
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Report:
        """The inverse of `to_json`."""
        return Report(
            id=row["id"],
            recipe=row["recipe"],
            run_id=row["run_id"],
            dataset_id=row["dataset_id"],
            model_version=row["model_version"],
            champion_version=row["champion_version"],
            metrics={s: {k: Measure(**m) for k, m in ms.items()} for s, ms in row["metrics"].items()},
            anchors=dict(row["anchors"]),
            samples={s: tuple(rows) for s, rows in row["samples"].items()},
            distributions=row["distributions"],
            gates=tuple(GateResult(**g) for g in row["gates"]),
            passed=row["passed"],
            created_at=row["created_at"],
            prompts=tuple(row.get("prompts", ())),
            probes=Probes.from_json(row["probes"]) if row.get("probes") else None,
        )


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """An adapter with its report and lineage. Immutable; which one is served is the champion alias' business."""

    id: str
    recipe: str
    run_id: str
    dataset_id: str
    base_model: str
    base_fingerprint: str
    adapter_key: str
    adapter_hash: str
    report_id: str
    passed: bool
    """Whether every gate passed; only then may it become champion."""
    created_at: str

    def to_json(self) -> dict[str, Any]:
        """The version as its object in the store."""
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> ModelVersion:
        """The inverse of `to_json`."""
        return ModelVersion(**{f.name: row[f.name] for f in fields(ModelVersion)})


@dataclass(frozen=True, slots=True)
class AliasChange:
    """One move of the champion alias. `action` is `promote` or `rollback`."""

    version: str
    action: Literal["promote", "rollback"]
    at: str
    cause: str
    """The job or request that moved it."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The alias object of a recipe: which model version is served, and how it came to be."""

    recipe: str
    version: str
    rev: int
    """Grows by one with every move."""
    writer: str
    """Random nonce of the writer, so that two writes never have equal bytes."""
    history: tuple[AliasChange, ...]
    """Oldest first, the current one last; at most 100."""

    def to_json(self) -> dict[str, Any]:
        """The alias as its object in the store."""
        return asdict(self)

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Champion:
        """The inverse of `to_json`."""
        return Champion(
            recipe=row["recipe"],
            version=row["version"],
            rev=row["rev"],
            writer=row["writer"],
            history=tuple(AliasChange(**c) for c in row["history"]),
        )
