"""protobuf <-> handlers of the trainer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from google.longrunning import operations_pb2

from tunesmith.domain import keys
from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.events import MODEL_PROMOTED, Event, topic_of
from tunesmith.domain.ids import check_name, derived_uuid
from tunesmith.domain.jobs import checked_priority
from tunesmith.domain.models import Champion
from tunesmith.platform import Platform, open_serving
from tunesmith.ports.clock import rfc3339
from tunesmith.recipes import all_recipes, failed_plugins, recipe_named, with_code
from tunesmith.rpc.convert import checked_request_id, from_struct, page, page_size
from tunesmith.rpc.jobs import JobBoard
from tunesmith.telemetry import current_trace
from tunesmith_proto.trainer.v1 import models_pb2, models_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from tunesmith_trainer import handlers, lineage, parity, registry
from tunesmith_trainer.evaluation.checked_page import with_check
from tunesmith_trainer.handlers import JudgeRequest
from tunesmith_trainer.messages import (
    FOLLOW_UPS,
    champion_message,
    dataset_message,
    recipe_message,
    report_message,
    run_message,
    version_message,
)
from tunesmith_trainer.replicas import Asker, Wishes

PAGE_CHUNK_BYTES = 256 * 1024

PROMOTE_PATIENCE_S = 20.0
"""How long a promotion by hand waits for a generator: somebody looks on."""

_Submitted = trainer_pb2.BuildDatasetRequest | trainer_pb2.StartRunRequest | trainer_pb2.JudgeRunRequest


class TrainerServicer(trainer_pb2_grpc.TrainerServiceServicer):
    """Accepts curations, runs and judgements as jobs, and shows what they made."""

    def __init__(self, platform: Platform, board: JobBoard) -> None:
        self._platform = platform
        self._store = platform.store
        self._board = board

    async def ListRecipes(
        self, request: trainer_pb2.ListRecipesRequest, context: Any
    ) -> trainer_pb2.ListRecipesResponse:
        return trainer_pb2.ListRecipesResponse(
            recipes=[recipe_message(recipe) for recipe in all_recipes().values()],
            not_loaded=[error.message for error in failed_plugins()],
        )

    async def BuildDataset(self, request: trainer_pb2.BuildDatasetRequest, context: Any) -> operations_pb2.Operation:
        return await asyncio.to_thread(self._build_dataset, request)

    def _build_dataset(self, request: trainer_pb2.BuildDatasetRequest) -> operations_pb2.Operation:
        collection_ids = [check_name(c, what="collection_id") for c in request.collection_ids]
        plan = handlers.plan_curation(self._store, request.recipe, collection_ids, from_struct(request.settings))
        return self._submit("curate", plan.to_json(), request)

    async def StartRun(self, request: trainer_pb2.StartRunRequest, context: Any) -> operations_pb2.Operation:
        return await asyncio.to_thread(self._start_run, request)

    def _start_run(self, request: trainer_pb2.StartRunRequest) -> operations_pb2.Operation:
        if request.follow_up not in FOLLOW_UPS:
            raise InvalidInput(
                f"follow_up={request.follow_up} is unknown; known: 0 to 3", metadata={"field": "follow_up"}
            )
        if request.dataset_id:
            check_name(request.dataset_id, what="dataset_id")
        plan = handlers.plan_run(
            self._store,
            request.recipe,
            request.dataset_id,
            request.base_model,
            from_struct(request.settings),
            FOLLOW_UPS[request.follow_up],
        )
        return self._submit("tune", plan.to_json(), request)

    async def JudgeRun(self, request: trainer_pb2.JudgeRunRequest, context: Any) -> operations_pb2.Operation:
        return await asyncio.to_thread(self._judge_run, request)

    def _judge_run(self, request: trainer_pb2.JudgeRunRequest) -> operations_pb2.Operation:
        recipe = recipe_named(request.recipe)
        run = handlers.get_run(self._store, recipe.name, check_name(request.run_id, what="run_id"))
        champion = registry.champion(self._store, recipe.name)
        plan = JudgeRequest(recipe.name, run.id, request.promote).to_json()
        # A judgement is against the champion of its day: after a promotion the same request is another question.
        return self._submit("judge", {**plan, "against": champion.version if champion else ""}, request)

    def _submit(self, kind: str, plan: Mapping[str, Any], request: _Submitted) -> operations_pb2.Operation:
        job, created = self._board.jobs.submit_by_content(
            kind=kind,
            service="trainer",
            request=with_code(plan),
            request_id=checked_request_id(request.request_id),
            priority=checked_priority(request.priority),
        )
        return self._board.submitted(job, created=created)

    async def GetDataset(self, request: trainer_pb2.GetDatasetRequest, context: Any) -> trainer_pb2.GetDatasetResponse:
        recipe = recipe_named(request.recipe)
        dataset_id = check_name(request.dataset_id, what="dataset_id")
        dataset = await asyncio.to_thread(handlers.get_dataset, self._store, recipe.name, dataset_id)
        return trainer_pb2.GetDatasetResponse(dataset=dataset_message(dataset))

    async def ListDatasets(
        self, request: trainer_pb2.ListDatasetsRequest, context: Any
    ) -> trainer_pb2.ListDatasetsResponse:
        recipe, size = recipe_named(request.recipe), page_size(request.page_size)
        found = await asyncio.to_thread(handlers.list_datasets, self._store, recipe.name)
        shown, token = page(found, token=request.page_token, size=size)
        return trainer_pb2.ListDatasetsResponse(datasets=[dataset_message(d) for d in shown], next_page_token=token)

    async def GetRun(self, request: trainer_pb2.GetRunRequest, context: Any) -> trainer_pb2.GetRunResponse:
        recipe, run_id = recipe_named(request.recipe), check_name(request.run_id, what="run_id")
        run = await asyncio.to_thread(handlers.get_run, self._store, recipe.name, run_id)
        return trainer_pb2.GetRunResponse(run=run_message(run))

    async def ListRuns(self, request: trainer_pb2.ListRunsRequest, context: Any) -> trainer_pb2.ListRunsResponse:
        recipe, size = recipe_named(request.recipe), page_size(request.page_size)
        found = await asyncio.to_thread(handlers.list_runs, self._store, recipe.name)
        shown, token = page(found, token=request.page_token, size=size)
        return trainer_pb2.ListRunsResponse(runs=[run_message(run) for run in shown], next_page_token=token)


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    """The registry: versions, reports, champion and lineage."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._store = platform.store

    async def ListModels(self, request: models_pb2.ListModelsRequest, context: Any) -> models_pb2.ListModelsResponse:
        recipe, size = recipe_named(request.recipe), page_size(request.page_size)
        found = await asyncio.to_thread(registry.list_versions, self._store, recipe.name)
        champion = await asyncio.to_thread(registry.champion, self._store, recipe.name)
        shown, token = page(found, token=request.page_token, size=size)
        return models_pb2.ListModelsResponse(
            models=[version_message(v, champion=bool(champion and champion.version == v.id)) for v in shown],
            next_page_token=token,
        )

    async def GetModel(self, request: models_pb2.GetModelRequest, context: Any) -> models_pb2.GetModelResponse:
        recipe = recipe_named(request.recipe)
        version_id = await asyncio.to_thread(registry.chosen_version, self._store, recipe.name, request.version)
        version = await asyncio.to_thread(registry.get_version, self._store, recipe.name, version_id)
        champion = await asyncio.to_thread(registry.champion, self._store, recipe.name)
        return models_pb2.GetModelResponse(
            model=version_message(version, champion=bool(champion and champion.version == version.id))
        )

    async def GetReport(self, request: models_pb2.GetReportRequest, context: Any) -> models_pb2.GetReportResponse:
        recipe = recipe_named(request.recipe)
        report_id = await asyncio.to_thread(self._report_id, recipe.name, request.version)
        report = await asyncio.to_thread(registry.get_report, self._store, recipe.name, report_id)
        check = await asyncio.to_thread(parity.find_check, self._store, recipe.name, report.model_version)
        return models_pb2.GetReportResponse(report=report_message(report, check))

    async def GetReportPage(
        self, request: models_pb2.GetReportPageRequest, context: Any
    ) -> AsyncIterator[models_pb2.GetReportPageResponse]:
        recipe = recipe_named(request.recipe)
        report_id = await asyncio.to_thread(self._report_id, recipe.name, request.version)
        page = await asyncio.to_thread(self._report_page, recipe.name, report_id)
        for start in range(0, len(page), PAGE_CHUNK_BYTES):
            yield models_pb2.GetReportPageResponse(chunk=page[start : start + PAGE_CHUNK_BYTES])

    async def PromoteModel(
        self, request: models_pb2.PromoteModelRequest, context: Any
    ) -> models_pb2.PromoteModelResponse:
        recipe, version = recipe_named(request.recipe), check_name(request.version, what="version")
        champion, changed = await asyncio.to_thread(
            registry.promote,
            self._store,
            self._platform.clock,
            recipe.name,
            version,
            cause="PromoteModel",
            expected=request.expected_champion or None,
            served_as_judged=self._parity().require,
        )
        if changed:
            await asyncio.to_thread(self._announce, champion)
        return models_pb2.PromoteModelResponse(champion=champion_message(champion), changed=changed)

    async def RollbackModel(
        self, request: models_pb2.RollbackModelRequest, context: Any
    ) -> models_pb2.RollbackModelResponse:
        recipe = recipe_named(request.recipe)
        champion = await asyncio.to_thread(
            registry.rollback,
            self._store,
            self._platform.clock,
            recipe.name,
            cause="RollbackModel",
            expected=request.expected_champion or None,
        )
        await asyncio.to_thread(self._announce, champion)
        return models_pb2.RollbackModelResponse(champion=champion_message(champion))

    async def GetChampion(self, request: models_pb2.GetChampionRequest, context: Any) -> models_pb2.GetChampionResponse:
        recipe = recipe_named(request.recipe)
        champion = await asyncio.to_thread(registry.champion, self._store, recipe.name)
        return models_pb2.GetChampionResponse(champion=champion_message(champion) if champion else None)

    async def TraceLineage(
        self, request: models_pb2.TraceLineageRequest, context: Any
    ) -> models_pb2.TraceLineageResponse:
        recipe = recipe_named(request.recipe)
        trace = await asyncio.to_thread(
            lineage.trace, self._store, recipe, request.subject, max_rows=lineage.checked_max_rows(request.max_rows)
        )
        return models_pb2.TraceLineageResponse(
            nodes=[
                models_pb2.LineageNode(kind=node.kind, id=node.id, summary=node.summary, facts=dict(node.facts))
                for node in trace.nodes
            ],
            edges=[models_pb2.LineageEdge(from_id=derived, to_id=origin) for derived, origin in trace.edges],
            truncated=trace.truncated,
        )

    def _report_id(self, recipe: str, version: str) -> str:
        return registry.get_version(
            self._store, recipe, registry.chosen_version(self._store, recipe, version)
        ).report_id

    def _report_page(self, recipe: str, report_id: str) -> bytes:
        """The page as it was drawn by the judge, with what was found since about serving."""
        page = self._store.get(keys.report_page(recipe, report_id)).data
        version = registry.get_report(self._store, recipe, report_id).model_version
        check = parity.find_check(self._store, recipe, version)
        return with_check(page, check)

    def _parity(self) -> parity.ParityGate:
        settings, clock = self._platform.settings, self._platform.clock
        started_by_us = settings.serving_replicas != "none"
        return parity.ParityGate(
            store=self._store,
            clock=clock,
            backend=open_serving(settings),
            patience_s=min(settings.serving_wait_s, PROMOTE_PATIENCE_S),
            servers=Asker(Wishes(self._store), clock, PROMOTE_PATIENCE_S) if started_by_us else None,
        )

    def _announce(self, champion: Champion) -> None:
        """Publish ModelPromoted for an alias moved by hand. Generators also look at the alias, should this get lost."""
        version = registry.get_version(self._store, champion.recipe, champion.version)
        last = champion.history[-1]
        event = Event(
            id=derived_uuid("alias", champion.recipe, champion.rev, champion.writer),
            type=MODEL_PROMOTED,
            source="/tunesmith/trainer",
            subject=champion.recipe,
            time=rfc3339(self._platform.clock.now()),
            data={
                "recipe": champion.recipe,
                "model_version": version.id,
                "adapter_hash": version.adapter_hash,
                "rev": champion.rev,
                "action": last.action,
            },
            trace=current_trace(),
        )
        self._platform.bus.publish(topic_of("trainer"), [event])
