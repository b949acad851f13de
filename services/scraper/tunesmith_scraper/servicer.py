"""protobuf <-> handlers of the scraper."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.longrunning import operations_pb2

from tunesmith.catalogue import list_objects
from tunesmith.domain.errors import InvalidInput
from tunesmith.domain.ids import check_name, derived_uuid
from tunesmith.domain.records import Collection
from tunesmith.platform import Platform
from tunesmith.recipes import recipe_named
from tunesmith.rpc.convert import checked_request_id, page, page_size, to_timestamp
from tunesmith.rpc.jobs import JobBoard
from tunesmith.stored_collections import read_collection
from tunesmith_proto.scraper.v1 import scraper_pb2, scraper_pb2_grpc
from tunesmith_scraper import handlers
from tunesmith_scraper.handlers import Collected, CollectRequest
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import Format, JoinSpec, SourceSpec

MAX_CHUNK_BYTES = 2**20

_FORMATS: Mapping[int, Format] = {
    scraper_pb2.SOURCE_FORMAT_UNSPECIFIED: "auto",
    scraper_pb2.SOURCE_FORMAT_TEXT: "text",
    scraper_pb2.SOURCE_FORMAT_CSV: "csv",
    scraper_pb2.SOURCE_FORMAT_JSON: "json",
    scraper_pb2.SOURCE_FORMAT_HTML: "html",
    scraper_pb2.SOURCE_FORMAT_JSPF: "jspf",
}


def collection_message(collected: Collected) -> scraper_pb2.Collection:
    """A collection as clients see it."""
    collection = collected.collection
    return scraper_pb2.Collection(
        id=collection.id,
        recipe=collection.recipe,
        source=collection.source,
        num_records=collection.num_records,
        licences=dict(collection.licences),
        skipped=dict(collected.skipped),
        create_time=to_timestamp(collection.created_at),
        reused=collected.reused,
        derived_from=collection.derived_from,
        derived_by=collection.derived_by,
    )


def collect_request(request: scraper_pb2.CollectRequest) -> CollectRequest:
    """The use case's request; InvalidInput for a format number that is not known."""
    source = request.source
    if not source.url:
        raise InvalidInput("source.url is empty; send for example sample:genres", metadata={"field": "source.url"})
    spec = SourceSpec(
        url=source.url,
        format=_format(source.format, "source.format"),
        columns=dict(source.columns),
        selector=source.css_selector,
        attribute=source.attribute,
        licence=source.licence_id,
        licence_url=source.licence_url,
        name=source.display_name,
        join=_join_spec(source.join) if source.HasField("join") else None,
        preset=source.preset,
        skip_undecodable=source.skip_undecodable,
    )
    return CollectRequest(request.recipe, spec)


def source_message(spec: SourceSpec) -> scraper_pb2.Source:
    """The inverse of what `collect_request` does with a source."""
    message = scraper_pb2.Source(
        url=spec.url,
        format=_format_name(spec.format),
        columns=dict(spec.columns),
        css_selector=spec.selector,
        attribute=spec.attribute,
        licence_id=spec.licence,
        licence_url=spec.licence_url,
        display_name=spec.name,
        preset=spec.preset,
        skip_undecodable=spec.skip_undecodable,
    )
    if spec.join is not None:
        message.join.CopyFrom(
            scraper_pb2.Join(
                url=spec.join.url,
                key=spec.join.key,
                other_key=spec.join.other_key,
                columns=dict(spec.join.columns),
                format=_format_name(spec.join.format),
                display_name=spec.join.name,
            )
        )
    return message


def _format_name(known: Format) -> str:
    return f"SOURCE_FORMAT_{'UNSPECIFIED' if known == 'auto' else known.upper()}"


def _join_spec(join: scraper_pb2.Join) -> JoinSpec:
    if not join.url:
        raise InvalidInput(
            "source.join.url is empty; send the address of the second table", metadata={"field": "source.join.url"}
        )
    return JoinSpec(
        url=join.url,
        key=join.key,
        other_key=join.other_key,
        columns=dict(join.columns),
        format=_format(join.format, "source.join.format"),
        name=join.display_name,
    )


def _format(number: int, field: str) -> Format:
    if number not in _FORMATS:
        raise InvalidInput(f"{field}={number} is unknown; known: 0 to {max(_FORMATS)}", metadata={"field": field})
    return _FORMATS[number]


class ScraperServicer(scraper_pb2_grpc.ScraperServiceServicer):
    """Collects, takes uploads, and shows collections."""

    def __init__(self, platform: Platform, board: JobBoard, settings: ScraperSettings, scratch: Path) -> None:
        self._platform = platform
        self._board = board
        self._settings = settings
        self._scratch = scratch

    async def Collect(self, request: scraper_pb2.CollectRequest, context: Any) -> operations_pb2.Operation:
        return await asyncio.to_thread(self._collect, request)

    def _collect(self, message: scraper_pb2.CollectRequest) -> operations_pb2.Operation:
        request = collect_request(message)
        handlers.validate(request, settings=self._settings, store=self._platform.store)
        # A source may have changed since it was collected, so only an explicit request id joins an earlier job.
        request_id = checked_request_id(message.request_id) or str(uuid.uuid4())
        job, created = self._board.jobs.submit(
            job_id=derived_uuid("collect", request_id), kind="collect", service="scraper", request=request.to_json()
        )
        return self._board.submitted(job, created=created)

    async def UploadSource(
        self, request_iterator: AsyncIterator[scraper_pb2.UploadSourceRequest], context: Any
    ) -> scraper_pb2.UploadSourceResponse:
        loop = asyncio.get_running_loop()
        size_bytes = 0

        async def next_chunk() -> bytes | None:
            message = await anext(aiter(request_iterator), None)
            return None if message is None else message.chunk

        def chunks() -> Iterator[bytes]:
            """Pulls from the call in the thread that writes, so that a slow disk slows the sender down."""
            nonlocal size_bytes
            while (chunk := asyncio.run_coroutine_threadsafe(next_chunk(), loop).result()) is not None:
                if len(chunk) > MAX_CHUNK_BYTES:
                    raise InvalidInput(
                        f"a chunk of {len(chunk)} bytes is too large; send at most {MAX_CHUNK_BYTES} at a time"
                    )
                size_bytes += len(chunk)
                yield chunk

        sha256 = await asyncio.to_thread(
            handlers.save_upload,
            self._platform.store,
            chunks(),
            max_bytes=self._settings.max_upload_bytes,
            scratch=self._scratch,
        )
        return scraper_pb2.UploadSourceResponse(url=f"upload:{sha256}", size_bytes=size_bytes)

    async def GetCollection(
        self, request: scraper_pb2.GetCollectionRequest, context: Any
    ) -> scraper_pb2.GetCollectionResponse:
        recipe_named(request.recipe)
        collection_id = check_name(request.collection_id, what="collection_id")
        collection = await asyncio.to_thread(read_collection, self._platform.store, request.recipe, collection_id)
        return scraper_pb2.GetCollectionResponse(collection=collection_message(Collected(collection, False, {})))

    async def ListCollections(
        self, request: scraper_pb2.ListCollectionsRequest, context: Any
    ) -> scraper_pb2.ListCollectionsResponse:
        recipe_named(request.recipe)
        size = page_size(request.page_size)
        collections = await asyncio.to_thread(
            list_objects,
            self._platform.store,
            f"collections/{request.recipe}/",
            Collection.from_json,
            what="collection",
        )
        collections.sort(key=lambda collection: collection.created_at, reverse=True)
        shown, token = page(collections, token=request.page_token, size=size)
        return scraper_pb2.ListCollectionsResponse(
            collections=[collection_message(Collected(collection, False, {})) for collection in shown],
            next_page_token=token,
        )
