"""Gates: rules on a report's metrics that decide whether a candidate may be served."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tunesmith.domain.models import Gate, GateResult, Measure, MetricInfo
from tunesmith_trainer.evaluation.metrics import difference_name, formatted

SHARED_GATES = (
    Gate("leak", "leaked_share", "<=", 0.0, "the model was trained on rows that were to be held out"),
    # Without the trained end, which no base expects: with it, a model that lost its language would still look better.
    Gate(
        "regressed",
        "answer_bits_per_char",
        "<=",
        0.10,
        "bare held-out answers are less likely than under the base: training destroyed more than it taught",
        relative_to="base",
    ),
)
"""Gates that every recipe has beside its own."""

_WANTED = {">=": "at least", "<=": "at most"}
_BOUND = {"value": "it", "low": "the lower end of its interval", "high": "the upper end of its interval"}


def decide(
    gates: Sequence[Gate], metrics: Mapping[str, Mapping[str, Measure]], described: Mapping[str, MetricInfo]
) -> tuple[GateResult, ...]:
    """The verdict of each gate on the candidate's metrics (by subject and name), in the order of the gates.

    `described` says how each metric is called and written.

    A metric of the candidate that is missing or not a number fails, also when the gate is relative to a subject that
    is not there; otherwise such a gate passes.
    """
    return tuple(_decide(gate, metrics, described.get(gate.metric)) for gate in gates)


def _decide(gate: Gate, metrics: Mapping[str, Mapping[str, Measure]], info: MetricInfo | None) -> GateResult:
    title = info.title if info else gate.metric
    measure = _measured(metrics, "candidate", gate.metric)
    if measure is None:
        return _result(gate, None, f"{title} could not be measured for the candidate, so the gate fails: {gate.why}.")
    said = f"{title} is {_with_interval(measure, info)}"
    compared: float = {"value": measure.value, "low": measure.low, "high": measure.high}[gate.bound]
    if not math.isfinite(compared):
        return _result(gate, None, f"{said}; {_BOUND[gate.bound]} is not a number, so the gate fails: {gate.why}.")

    limit = gate.limit
    source = ""
    if gate.relative_to is not None:
        if gate.relative_to not in metrics:
            return _result(gate, compared, f"{said}; there is no {gate.relative_to} to compare with.", passed=True)
        other = _measured(metrics, gate.relative_to, gate.metric)
        if other is None:
            detail = f"{said}, but it could not be measured for the {gate.relative_to}, so the gate fails: {gate.why}."
            return _result(gate, compared, detail)
        limit += other.value
        source = (
            f" (the {gate.relative_to}'s {formatted(other.value, info)} "
            f"{'plus' if gate.limit >= 0 else 'minus'} {formatted(abs(gate.limit), info)})"
        )
        difference = _measured(metrics, "candidate", difference_name(gate.metric, gate.relative_to))
        if difference is not None:
            by = formatted(difference.value, info, signed=True)
            said += f", {by} from the {gate.relative_to} ({_interval(difference, info, signed=True)})"

    passed = compared >= limit if gate.comparison == ">=" else compared <= limit
    at = "" if gate.bound == "value" else f", {formatted(compared, info)},"
    detail = (
        f"{said}; {_BOUND[gate.bound]}{at} {'is' if passed else 'must be'} {_WANTED[gate.comparison]} "
        f"{formatted(limit, info)}{source}"
    )
    return _result(gate, compared, f"{detail}." if passed else f"{detail}: {gate.why}.", passed=passed, limit=limit)


def _measured(metrics: Mapping[str, Mapping[str, Measure]], subject: str, metric: str) -> Measure | None:
    measure = metrics.get(subject, {}).get(metric)
    return measure if measure is not None and math.isfinite(measure.value) else None


def _with_interval(measure: Measure, info: MetricInfo | None) -> str:
    return f"{formatted(measure.value, info)} ({_interval(measure, info)}, n = {measure.n})"


def _interval(measure: Measure, info: MetricInfo | None, *, signed: bool = False) -> str:
    low, high = formatted(measure.low, info, signed=signed), formatted(measure.high, info, signed=signed)
    return f"95 % interval {low} to {high}"


def _result(
    gate: Gate, value: float | None, detail: str, *, passed: bool = False, limit: float | None = None
) -> GateResult:
    return GateResult(
        name=gate.name,
        metric=gate.metric,
        passed=passed,
        value=value,
        comparison=gate.comparison,
        limit=gate.limit if limit is None else limit,
        detail=detail,
    )
