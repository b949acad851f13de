"""Chooses the trainer's adapters and puts the service together."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.domain import keys
from tunesmith.domain.events import (
    DATASET_BUILT,
    MODEL_JUDGED,
    MODEL_PROMOTED,
    MODEL_REJECTED,
    PAIRS_WRITTEN,
    RUN_SUCCEEDED,
)
from tunesmith.domain.jobs import Progress
from tunesmith.domain.parity import PARITY
from tunesmith.jobs.reconciler import JobKind
from tunesmith.jobs.ticking import Ticker
from tunesmith.jobs.worker import HandOver, Outcome, Together, Work, WorkContext
from tunesmith.platform import Platform, open_generator, open_language_model, open_replicas, open_serving
from tunesmith.recipes import all_recipes
from tunesmith.rpc.hosting import mount
from tunesmith.rpc.jobs import JobBoard
from tunesmith.rpc.service import Service
from tunesmith.settings import read_settings
from tunesmith_proto.trainer.v1 import (
    catalogues_pb2,
    catalogues_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    pairs_pb2,
    pairs_pb2_grpc,
    policies_pb2,
    policies_pb2_grpc,
    publishing_pb2,
    publishing_pb2_grpc,
    sweeps_pb2,
    sweeps_pb2_grpc,
    trainer_pb2,
    trainer_pb2_grpc,
)
from tunesmith_trainer import messages
from tunesmith_trainer.catalogue_servicer import CatalogueServicer
from tunesmith_trainer.consumer import TOPICS, consumers, judge_job_id
from tunesmith_trainer.handlers import (
    CurateRequest,
    Judged,
    JudgeRequest,
    TuneRequest,
    curate,
    help_tune,
    judge_run,
    promote_judged,
    tune,
)
from tunesmith_trainer.novelty import example_digests
from tunesmith_trainer.pair_servicer import PairServicer, pairs_result
from tunesmith_trainer.pair_writing import WriteRequest, write_pairs
from tunesmith_trainer.parity import ParityGate
from tunesmith_trainer.policy_servicer import PolicyServicer
from tunesmith_trainer.publishing import PublishRequest, publish
from tunesmith_trainer.publishing_servicer import PublishingServicer, publication_result
from tunesmith_trainer.registry import get_version
from tunesmith_trainer.replicas import LOOK_INTERVAL_S, Asker, ReplicaKeeper, Wishes
from tunesmith_trainer.retraining import Policies
from tunesmith_trainer.servicer import ModelServicer, TrainerServicer
from tunesmith_trainer.settings import TrainerSettings
from tunesmith_trainer.sweep_servicer import SweepServicer
from tunesmith_trainer.sweeps import SweepRequest, run_sweep

POLICY_INTERVAL_S = 1.0
"""How often policies are looked at without an event: for cool-downs and schedules."""

PROMOTE = "promote"
"""Stage of a judge job: it waits for servers, so it has neither the judge's GPU nor its place among the trainings."""

MAX_PARALLEL_PROMOTIONS = 8
"""They do little but wait."""


def build(platform: Platform, board: JobBoard) -> Service:
    """The service, ready to be hosted."""
    settings = read_settings(TrainerSettings)
    board.register("curate", messages.dataset_result)
    board.register("tune", messages.run_result)
    board.register("judge", messages.version_result)
    board.register("write", pairs_result)
    board.register("sweep", messages.sweep_result)
    board.register("publish", publication_result)
    argv = (sys.executable, "-m", "tunesmith_trainer", "work")
    policies = Policies(
        platform.store, platform.jobs, platform.clock, scratch=_folder(platform, "scratch"), submitted=board.wake
    )
    policy_loop = Ticker("policies", policies.look_at_all, interval_s=POLICY_INTERVAL_S)
    return Service(
        name="trainer",
        mounts=(
            mount(
                trainer_pb2,
                "TrainerService",
                trainer_pb2_grpc.add_TrainerServiceServicer_to_server,
                TrainerServicer(platform, board),
            ),
            mount(
                sweeps_pb2,
                "SweepService",
                sweeps_pb2_grpc.add_SweepServiceServicer_to_server,
                SweepServicer(platform, board),
            ),
            mount(
                models_pb2, "ModelService", models_pb2_grpc.add_ModelServiceServicer_to_server, ModelServicer(platform)
            ),
            mount(
                pairs_pb2,
                "PairService",
                pairs_pb2_grpc.add_PairServiceServicer_to_server,
                PairServicer(platform, board, settings),
            ),
            mount(
                catalogues_pb2,
                "CatalogueService",
                catalogues_pb2_grpc.add_CatalogueServiceServicer_to_server,
                CatalogueServicer(platform),
            ),
            mount(
                policies_pb2,
                "PolicyService",
                policies_pb2_grpc.add_PolicyServiceServicer_to_server,
                PolicyServicer(policies, policy_loop.wake),
            ),
            mount(
                publishing_pb2,
                "PublishingService",
                publishing_pb2_grpc.add_PublishingServiceServicer_to_server,
                PublishingServicer(platform, board),
            ),
        ),
        topics=TOPICS,
        kinds={
            "curate": JobKind(argv, slot="curate", max_parallel=settings.max_parallel_curations),
            "tune": JobKind(argv, slot="model", max_parallel=settings.max_parallel_trainings, shrinks=True),
            "judge": JobKind(argv, slot="model", max_parallel=settings.max_parallel_trainings),
            PROMOTE: JobKind(argv, slot=PROMOTE, max_parallel=MAX_PARALLEL_PROMOTIONS),
            "write": JobKind(argv, slot="write", max_parallel=settings.max_parallel_writings),
            "sweep": JobKind(argv, slot="model", max_parallel=settings.max_parallel_trainings, shrinks=True),
            "publish": JobKind(
                argv,
                # On one machine it shares the memory with trainings. Pods have their own, and no GPU waits for a merge.
                slot="model" if platform.launcher.scope else "publish",
                max_parallel=settings.max_parallel_trainings,
            ),
        },
        consumers=consumers(platform, board, policies, policy_loop.wake),
        background=(policy_loop, *_keeping(platform)),
    )


def _keeping(platform: Platform) -> Sequence[Ticker]:
    """The loop that keeps servers for versions, where they are started by us."""
    replicas = open_replicas(platform.settings)
    if replicas is None:
        return ()
    keeper = ReplicaKeeper(
        platform.store, platform.clock, replicas, open_generator(platform.settings), recipes=all_recipes
    )
    return (Ticker("replicas", keeper.look, interval_s=LOOK_INTERVAL_S),)


def works(platform: Platform) -> Mapping[str, Work]:
    """What its workers do, by job kind and stage."""
    return {
        "curate": lambda context: _curate(platform, context),
        "tune": lambda context: _tune(platform, context),
        "judge": lambda context: _judge(platform, context),
        PROMOTE: lambda context: _promote(platform, context),
        "write": lambda context: _write(platform, context),
        "sweep": lambda context: _sweep(platform, context),
        "publish": lambda context: _publish(platform, context),
    }


def together(platform: Platform) -> Mapping[str, Together]:
    """The kinds of its work that several processes can do together."""
    return {"tune": Together(lambda context: _help_tune(platform, context), _start_several)}


def _start_several(argv: Sequence[str]) -> int | None:
    settings = read_settings(TrainerSettings)
    if settings.processes * settings.nodes == 1:
        return None
    from tunesmith_trainer.torch_backend.several import run_several

    return run_several(argv, settings)


def _curate(platform: Platform, context: WorkContext) -> Outcome:
    request = CurateRequest.from_json(context.job.request)
    dataset, reused = curate(
        request,
        store=platform.store,
        clock=platform.clock,
        scratch=_folder(platform, "scratch") / f"curate-{context.job.id}",
        report=context.report,
        should_stop=context.should_stop,
    )
    # Made here, where it may take a while, for those who will ask what is new in it.
    example_digests(platform.store, dataset.recipe, dataset.id, scratch=_folder(platform, "scratch"))
    data = {
        "job_id": context.job.id,
        "recipe": dataset.recipe,
        "dataset_id": dataset.id,
        "num_train_examples": dataset.num_examples.get("train", 0),
        "manifest_key": keys.dataset(dataset.recipe, dataset.id),
        "reused": reused,
    }
    return Outcome({"dataset": dataset.to_json(), "reused": reused}, [(DATASET_BUILT, context.job.id, data)])


def _tune(platform: Platform, context: WorkContext) -> Outcome:
    request = TuneRequest.from_json(context.job.request)
    run, reused = tune(
        request,
        store=platform.store,
        clock=platform.clock,
        runs_folder=_folder(platform, "runs"),
        bases_folder=bases_folder(platform),
        keep_checkpoints=read_settings(TrainerSettings).keep_checkpoints,
        report=context.report,
        should_stop=context.should_stop,
        share_checkpoints=read_settings(TrainerSettings).share_checkpoints,
        memory_kills=context.job.memory_kills,
        rank=context.rank,
    )
    data = {
        "job_id": context.job.id,
        "recipe": run.recipe,
        "run_id": run.id,
        "dataset_id": run.dataset_id,
        "adapter_hash": run.adapter_hash,
        "follow_up": request.follow_up,
    }
    judged_by = "" if request.follow_up == "none" else judge_job_id(context.job.id)
    result = {"run": run.to_json(), "reused": reused, "judge_job_id": judged_by}
    return Outcome(result, [(RUN_SUCCEEDED, context.job.id, data)])


def _help_tune(platform: Platform, context: WorkContext) -> None:
    help_tune(
        TuneRequest.from_json(context.job.request),
        store=platform.store,
        runs_folder=_folder(platform, "runs"),
        bases_folder=bases_folder(platform),
        should_stop=context.should_stop,
        share_checkpoints=read_settings(TrainerSettings).share_checkpoints,
        memory_kills=context.job.memory_kills,
        rank=context.rank,
    )


def _judge(platform: Platform, context: WorkContext) -> Outcome | HandOver:
    request = JudgeRequest.from_json(context.job.request)
    judged = judge_run(
        request,
        store=platform.store,
        clock=platform.clock,
        scratch=_folder(platform, "scratch"),
        bases_folder=bases_folder(platform),
        report=context.report,
        should_stop=context.should_stop,
    )
    version, report = judged.version, judged.report
    data = {
        "job_id": context.job.id,
        "recipe": version.recipe,
        "run_id": version.run_id,
        "model_version": version.id,
        "report_id": report.id,
        "passed": report.passed,
    }
    told = (MODEL_JUDGED, context.job.id, data)
    if request.promote and report.passed and judged.champion is None:
        return HandOver(PROMOTE, {"model_version": version.id}, [told])
    return _verdict(context, judged, [told])


def _promote(platform: Platform, context: WorkContext) -> Outcome | HandOver:
    settings = platform.settings

    def waiting(why: str) -> None:
        context.report(Progress("promote", message=f"waiting for the generator: {why}"))

    judged = promote_judged(
        JudgeRequest.from_json(context.job.request).recipe,
        context.job.stages[-1].carried["model_version"],
        store=platform.store,
        clock=platform.clock,
        cause=f"job {context.job.id}",
        parity=ParityGate(
            store=platform.store,
            clock=platform.clock,
            backend=open_serving(settings),
            patience_s=settings.serving_wait_s,
            should_stop=context.should_stop,
            waiting=waiting,
            servers=None
            if settings.serving_replicas == "none"
            else Asker(Wishes(platform.store), platform.clock, settings.serving_start_s, context.should_stop, waiting),
        ),
        report=context.report,
    )
    # Nobody becomes champion without having been measured against the one that is served.
    return HandOver("judge", {}) if judged is None else _verdict(context, judged)


def _verdict(context: WorkContext, judged: Judged, told: Sequence[tuple[str, str, Mapping[str, Any]]] = ()) -> Outcome:
    """What a judgement came to, after what was `told` of it."""
    version, report = judged.version, judged.report
    events = list(told)
    if judged.champion is not None:
        promoted = {
            "recipe": version.recipe,
            "model_version": version.id,
            "adapter_hash": version.adapter_hash,
            "rev": judged.champion.rev,
            "action": "promote",
        }
        events.append((MODEL_PROMOTED, context.job.id, promoted))
    elif judged.refusal is not None or not report.passed:
        failed = [gate.name for gate in report.gates if not gate.passed]
        rejected = {
            "job_id": context.job.id,
            "recipe": version.recipe,
            "model_version": version.id,
            "failed_gates": [*failed, *([PARITY] if judged.refusal else [])],
        }
        events.append((MODEL_REJECTED, context.job.id, rejected))
    result = {
        "version": version.to_json(),
        "promoted": judged.champion is not None,
        "passed": report.passed and judged.refusal is None,
    }
    return Outcome(result, events)


def _write(platform: Platform, context: WorkContext) -> Outcome:
    request = WriteRequest.from_json(context.job.request)
    written = write_pairs(
        request,
        store=platform.store,
        clock=platform.clock,
        open_model=lambda: open_language_model(
            platform.settings, recipe=request.recipe, url=request.llm, with_key=request.with_key
        ),
        concurrency=read_settings(TrainerSettings).max_parallel_questions,
        scratch=_folder(platform, "scratch") / f"write-{context.job.id}",
        report=context.report,
        should_stop=context.should_stop,
    )
    collection = written.collection
    data = {
        "job_id": context.job.id,
        "recipe": collection.recipe,
        "collection_id": collection.id,
        "derived_from": collection.derived_from,
        "num_records": collection.num_records,
        "num_failed": sum(written.bad.values()),
        "manifest_key": keys.collection(collection.recipe, collection.id),
        "reused": written.reused,
    }
    return Outcome(written.to_json(), [(PAIRS_WRITTEN, context.job.id, data)])


def _sweep(platform: Platform, context: WorkContext) -> Outcome:
    sweep, reused = run_sweep(
        SweepRequest.from_json(context.job.request),
        store=platform.store,
        clock=platform.clock,
        scratch=_folder(platform, "scratch"),
        runs_folder=_folder(platform, "runs"),
        bases_folder=bases_folder(platform),
        keep_checkpoints=read_settings(TrainerSettings).keep_checkpoints,
        report=context.report,
        should_stop=context.should_stop,
        share_checkpoints=read_settings(TrainerSettings).share_checkpoints,
        memory_kills=context.job.memory_kills,
    )
    return Outcome({"recipe": sweep.recipe, "sweep_id": sweep.id, "sweep": sweep.to_json(), "reused": reused})


def _publish(platform: Platform, context: WorkContext) -> Outcome:
    request = PublishRequest.from_json(context.job.request)
    publication, reused = publish(
        request,
        store=platform.store,
        clock=platform.clock,
        scratch=_folder(platform, "scratch") / f"publish-{context.job.id}",
        bases_folder=bases_folder(platform),
        report=context.report,
        should_stop=context.should_stop,
    )
    version = get_version(platform.store, request.recipe, request.version)
    return Outcome(
        {
            "recipe": version.recipe,
            "version": version.id,
            "publication": publication.to_json(),
            "passed": version.passed,
            "reused": reused,
        }
    )


def bases_folder(platform: Platform) -> Path:
    """Where base models that were made or fetched here are kept."""
    return _folder(platform, "bases")


def _folder(platform: Platform, name: str) -> Path:
    folder = platform.settings.data / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
