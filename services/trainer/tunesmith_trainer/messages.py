"""Domain values as the trainer's protobuf messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2

from tunesmith.domain.datasets import Dataset
from tunesmith.domain.models import MAX_PROMPT_CHARS, Champion, Measure, ModelVersion, Report
from tunesmith.domain.parity import PARITY, ParityCheck
from tunesmith.domain.runs import FollowUp, Run
from tunesmith.domain.sweeps import Sweep, Value
from tunesmith.recipes.base import Recipe
from tunesmith.rpc.convert import to_struct, to_timestamp
from tunesmith_proto.trainer.v1 import models_pb2, parity_pb2, sweeps_pb2, trainer_pb2

FOLLOW_UPS: Mapping[int, FollowUp] = {
    trainer_pb2.FOLLOW_UP_UNSPECIFIED: "promote",
    trainer_pb2.FOLLOW_UP_NONE: "none",
    trainer_pb2.FOLLOW_UP_JUDGE: "judge",
    trainer_pb2.FOLLOW_UP_PROMOTE: "promote",
}


def recipe_message(recipe: Recipe) -> trainer_pb2.Recipe:
    """A recipe with its defaults and gates."""
    return trainer_pb2.Recipe(
        name=recipe.name,
        title=recipe.title,
        default_source=recipe.default_source,
        record_fields=recipe.record_fields,
        default_base_model=recipe.default_base_model,
        training_defaults=to_struct(recipe.training.to_json()),
        curation_defaults=to_struct(recipe.curation.to_json()),
        needs=recipe.needs,
        gates=[
            trainer_pb2.GateRule(
                name=gate.name,
                metric=gate.metric,
                comparison=gate.comparison,
                limit=gate.limit,
                relative_to=gate.relative_to or "",
                why=gate.why,
            )
            for gate in recipe.gates
        ],
    )


def dataset_message(dataset: Dataset, *, reused: bool = False) -> trainer_pb2.Dataset:
    """A dataset's manifest."""
    return trainer_pb2.Dataset(
        id=dataset.id,
        recipe=dataset.recipe,
        num_examples=dict(dataset.num_examples),
        num_records=dataset.num_records,
        dropped=dict(dataset.dropped),
        distributions={k: trainer_pb2.Distribution(counts=dict(v)) for k, v in dataset.distributions.items()},
        settings=to_struct(dataset.settings),
        collection_ids=dataset.collections,
        licences=dict(dataset.licences),
        create_time=to_timestamp(dataset.created_at),
        reused=reused,
    )


def run_message(run: Run, *, reused: bool = False, judge_job_id: str = "") -> trainer_pb2.Run:
    """A run."""
    return trainer_pb2.Run(
        id=run.id,
        recipe=run.recipe,
        dataset_id=run.dataset_id,
        base_model=run.base_model,
        base_fingerprint=run.base_fingerprint,
        settings=to_struct(run.settings),
        adapter_hash=run.adapter_hash,
        num_steps=run.num_steps,
        stopped_early=run.stopped_early,
        num_rows_dropped=run.num_rows_dropped,
        train_loss=run.train_loss,
        validation_loss=run.validation_loss,
        create_time=to_timestamp(run.created_at),
        reused=reused,
        judge_job_id=judge_job_id,
    )


def version_message(version: ModelVersion, *, champion: bool) -> models_pb2.ModelVersion:
    """A model version; `champion` says whether the alias points to it."""
    return models_pb2.ModelVersion(
        id=version.id,
        recipe=version.recipe,
        run_id=version.run_id,
        dataset_id=version.dataset_id,
        base_model=version.base_model,
        base_fingerprint=version.base_fingerprint,
        adapter_hash=version.adapter_hash,
        report_id=version.report_id,
        passed=version.passed,
        champion=champion,
        create_time=to_timestamp(version.created_at),
    )


def report_message(report: Report, check: ParityCheck | None = None) -> models_pb2.Report:
    """A report, with what was found about serving since: a check that does not agree is a gate that did not pass."""
    differs = check is not None and check.checked and not check.agrees
    message = models_pb2.Report(
        id=report.id,
        recipe=report.recipe,
        run_id=report.run_id,
        dataset_id=report.dataset_id,
        model_version=report.model_version,
        champion_version=report.champion_version,
        metrics={
            subject: models_pb2.Measures(
                measures={
                    name: models_pb2.Measure(value=m.value, low=m.low, high=m.high, n=m.n) for name, m in row.items()
                }
            )
            for subject, row in report.metrics.items()
        },
        anchors=dict(report.anchors),
        samples={subject: models_pb2.Samples(texts=texts) for subject, texts in report.samples.items()},
        gates=[
            models_pb2.GateResult(
                name=gate.name,
                metric=gate.metric,
                passed=gate.passed,
                value=gate.value,
                comparison=gate.comparison,
                limit=gate.limit,
                detail=gate.detail,
            )
            for gate in report.gates
        ],
        passed=report.passed and not differs,
        create_time=to_timestamp(report.created_at),
        prompts=[prompt for prompt in report.prompts if len(prompt) < MAX_PROMPT_CHARS],
        parity=parity_message(check) if check else None,
    )
    if check is not None and differs:
        message.gates.add(
            name=PARITY,
            metric="largest_difference",
            passed=False,
            value=check.largest_difference,
            comparison="<=",
            limit=check.tolerance,
            detail=check.detail,
        )
    return message


def parity_message(check: ParityCheck) -> parity_pb2.ParityCheck:
    """A comparison of what is served with what was judged."""
    return parity_pb2.ParityCheck(
        checked=check.checked,
        agrees=check.agrees,
        num_prompts=check.num_prompts,
        num_agreeing=check.num_agreeing,
        num_tokens=check.num_tokens,
        num_compared=check.num_compared,
        largest_difference=check.largest_difference,
        tolerance=check.tolerance,
        backend=check.backend,
        detail=check.detail,
        check_time=to_timestamp(check.checked_at),
    )


def champion_message(champion: Champion) -> models_pb2.Champion:
    """A champion alias with its history."""
    return models_pb2.Champion(
        recipe=champion.recipe,
        version=champion.version,
        rev=champion.rev,
        history=[
            models_pb2.AliasChange(
                version=change.version, action=change.action, time=to_timestamp(change.at), cause=change.cause
            )
            for change in champion.history
        ],
    )


def dataset_result(result: Mapping[str, Any]) -> trainer_pb2.Dataset:
    """A curate job's result."""
    return dataset_message(Dataset.from_json(result["dataset"]), reused=result["reused"])


def run_result(result: Mapping[str, Any]) -> trainer_pb2.Run:
    """A tune job's result."""
    return run_message(Run.from_json(result["run"]), reused=result["reused"], judge_job_id=result["judge_job_id"])


def version_result(result: Mapping[str, Any]) -> models_pb2.ModelVersion:
    """A judge job's result."""
    return version_message(ModelVersion.from_json(result["version"]), champion=result["promoted"])


def sweep_message(sweep: Sweep, *, reused: bool = False) -> sweeps_pb2.Sweep:
    """A sweep."""
    return sweeps_pb2.Sweep(
        id=sweep.id,
        recipe=sweep.recipe,
        dataset_id=sweep.dataset_id,
        base_model=sweep.base_model,
        axes=[
            sweeps_pb2.SweepAxis(name=axis.name, values=[_protobuf_value(value) for value in axis.values])
            for axis in sweep.axes
        ],
        objective=sweep.objective,
        higher_is_better=sweep.better == "higher",
        num_samples=sweep.num_samples,
        num_heldout_rows=sweep.num_heldout_rows,
        cells=[
            sweeps_pb2.SweepCell(
                values=to_struct(cell.values),
                run_id=cell.run_id,
                metrics={name: _measure(measure) for name, measure in cell.metrics.items()},
                failed_gates=cell.failed_gates,
                competes=cell.competes,
                difference=_measure(cell.difference) if cell.difference else None,
                p_value=cell.p_value,
                samples=cell.samples,
            )
            for cell in sweep.cells
        ],
        best_cell=sweep.best,
        default_cell=sweep.default,
        chosen_cell=sweep.chosen,
        clear=sweep.clear,
        tied_cells=sweep.tied,
        verdict=sweep.verdict,
        commands=sweep.commands,
        prompts=sweep.prompts,
        create_time=to_timestamp(sweep.created_at),
        reused=reused,
    )


def sweep_result(result: Mapping[str, Any]) -> sweeps_pb2.Sweep:
    """A sweep job's result."""
    return sweep_message(Sweep.from_json(result["sweep"]), reused=result["reused"])


def _measure(measure: Measure) -> models_pb2.Measure:
    return models_pb2.Measure(value=measure.value, low=measure.low, high=measure.high, n=measure.n)


def _protobuf_value(value: Value) -> struct_pb2.Value:
    match value:
        case bool():
            return struct_pb2.Value(bool_value=value)
        case str():
            return struct_pb2.Value(string_value=value)
        case _:
            return struct_pb2.Value(number_value=value)
