"""protobuf <-> publishing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from google.longrunning import operations_pb2

import tunesmith
from tunesmith.domain import keys
from tunesmith.domain.errors import InvalidInput, NotFound
from tunesmith.domain.jobs import checked_priority
from tunesmith.domain.publications import Form, Publication
from tunesmith.platform import Platform
from tunesmith.recipes import recipe_named
from tunesmith.rpc.convert import checked_request_id
from tunesmith.rpc.jobs import JobBoard
from tunesmith.stored_collections import read_collection
from tunesmith_proto.trainer.v1 import publishing_pb2, publishing_pb2_grpc
from tunesmith_trainer import handlers, parity, publishing, registry
from tunesmith_trainer.model_card import CardFacts, model_card

CHUNK_BYTES = 1024 * 1024

_FORMS: Mapping[int, Form] = {
    publishing_pb2.PUBLICATION_FORM_UNSPECIFIED: "adapter",
    publishing_pb2.PUBLICATION_FORM_ADAPTER: "adapter",
    publishing_pb2.PUBLICATION_FORM_MERGED: "merged",
}


class PublishingServicer(publishing_pb2_grpc.PublishingServiceServicer):
    """Accepts publications as jobs, and hands out their files."""

    def __init__(self, platform: Platform, board: JobBoard) -> None:
        self._platform = platform
        self._store = platform.store
        self._board = board

    async def Publish(self, request: publishing_pb2.PublishRequest, context: Any) -> operations_pb2.Operation:
        return await asyncio.to_thread(self._publish, request)

    def _publish(self, request: publishing_pb2.PublishRequest) -> operations_pb2.Operation:
        recipe = recipe_named(request.recipe)
        version = registry.get_version(
            self._store, recipe.name, registry.chosen_version(self._store, recipe.name, request.version)
        )
        plan = publishing.PublishRequest(recipe.name, version.id, _form(request.form))
        job, created = self._board.jobs.submit_by_content(
            kind="publish",
            service="trainer",
            request=plan.to_json(),
            request_id=checked_request_id(request.request_id),
            priority=checked_priority(request.priority),
        )
        return self._board.submitted(job, created=created)

    async def ReadFile(
        self, request: publishing_pb2.ReadFileRequest, context: Any
    ) -> AsyncIterator[publishing_pb2.ReadFileResponse]:
        found = await asyncio.to_thread(publishing.get_publication, self._store, request.publication_id)
        if request.name not in {file.name for file in found.files}:
            raise NotFound(
                f"publication {found.id} has no file {request.name[:80]!r}",
                metadata={"known": ",".join(file.name for file in found.files), "value": request.name[:80]},
            )
        folder = self._platform.settings.data / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="published-") as name:
            # Through a file, because a store hands out whole objects and weights may be larger than memory.
            path = Path(name) / "file"
            await asyncio.to_thread(self._store.get_file, keys.published_file(found.id, request.name), path)
            with path.open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                    yield publishing_pb2.ReadFileResponse(chunk=chunk)

    async def GetModelCard(
        self, request: publishing_pb2.GetModelCardRequest, context: Any
    ) -> publishing_pb2.GetModelCardResponse:
        return publishing_pb2.GetModelCardResponse(text=await asyncio.to_thread(self._card, request))

    def _card(self, request: publishing_pb2.GetModelCardRequest) -> str:
        recipe = recipe_named(request.recipe)
        version = registry.get_version(
            self._store, recipe.name, registry.chosen_version(self._store, recipe.name, request.version)
        )
        dataset = handlers.get_dataset(self._store, recipe.name, version.dataset_id)
        collections = [read_collection(self._store, recipe.name, name) for name in dataset.collections]
        origins = dict.fromkeys(c.derived_from for c in collections if c.derived_from)
        check = parity.find_check(self._store, recipe.name, version.id)
        facts = CardFacts(
            recipe=recipe,
            version=version,
            report=registry.get_report(self._store, recipe.name, version.report_id),
            run=handlers.get_run(self._store, recipe.name, version.run_id),
            dataset=dataset,
            collections=[*collections, *(read_collection(self._store, recipe.name, name) for name in origins)],
            form=_form(request.form),
            base_name=publishing.published_base_name(version.base_model),
            served=check.detail if check else "",
            repo_id=request.repo_id[:200],
            software=f"tunesmith {tunesmith.__version__}",
        )
        return model_card(facts)


def publication_result(result: Mapping[str, Any]) -> publishing_pb2.Publication:
    """A publish job's result."""
    found = Publication.from_json(result["publication"])
    return publishing_pb2.Publication(
        id=found.id,
        recipe=result["recipe"],
        version=result["version"],
        form=_form_number(found.form),
        files=[
            publishing_pb2.PublishedFile(name=file.name, size_bytes=file.size_bytes, sha256=file.sha256)
            for file in found.files
        ],
        dtype=found.dtype,
        passed=result["passed"],
        reused=result["reused"],
    )


def _form(number: int) -> Form:
    if number not in _FORMS:
        raise InvalidInput(f"form={number} is unknown; known: 0 to {len(_FORMS) - 1}", metadata={"field": "form"})
    return _FORMS[number]


def _form_number(form: Form) -> Any:
    merged, adapter = publishing_pb2.PUBLICATION_FORM_MERGED, publishing_pb2.PUBLICATION_FORM_ADAPTER
    return merged if form == "merged" else adapter
