"""protobuf <-> catalogues."""

from __future__ import annotations

import asyncio
from typing import Any

from tunesmith.platform import Platform
from tunesmith.recipes import recipe_named
from tunesmith.rpc.convert import to_timestamp
from tunesmith_proto.trainer.v1 import catalogues_pb2, catalogues_pb2_grpc
from tunesmith_trainer import catalogues
from tunesmith_trainer.catalogues import Catalogue

NUM_SHOWN = 20
"""Names that an answer shows."""


class CatalogueServicer(catalogues_pb2_grpc.CatalogueServiceServicer):
    """Sets, shows and clears catalogues."""

    def __init__(self, platform: Platform) -> None:
        self._store = platform.store
        self._clock = platform.clock

    async def SetCatalogue(
        self, request: catalogues_pb2.SetCatalogueRequest, context: Any
    ) -> catalogues_pb2.SetCatalogueResponse:
        recipe = recipe_named(request.recipe)
        made = await asyncio.to_thread(catalogues.set_catalogue, self._store, self._clock, recipe.name, request.url)
        return catalogues_pb2.SetCatalogueResponse(catalogue=await asyncio.to_thread(self._message, made))

    async def GetCatalogue(
        self, request: catalogues_pb2.GetCatalogueRequest, context: Any
    ) -> catalogues_pb2.GetCatalogueResponse:
        recipe = recipe_named(request.recipe)
        found = await asyncio.to_thread(catalogues.find_catalogue, self._store, recipe.name)
        if found is None:
            return catalogues_pb2.GetCatalogueResponse()
        return catalogues_pb2.GetCatalogueResponse(catalogue=await asyncio.to_thread(self._message, found))

    async def ClearCatalogue(
        self, request: catalogues_pb2.ClearCatalogueRequest, context: Any
    ) -> catalogues_pb2.ClearCatalogueResponse:
        recipe = recipe_named(request.recipe)
        await asyncio.to_thread(catalogues.clear_catalogue, self._store, recipe.name)
        return catalogues_pb2.ClearCatalogueResponse()

    def _message(self, catalogue: Catalogue) -> catalogues_pb2.Catalogue:
        return catalogues_pb2.Catalogue(
            recipe=catalogue.recipe,
            hash=catalogue.hash,
            num_names=catalogue.num_names,
            create_time=to_timestamp(catalogue.created_at),
            sample=catalogues.names_of(self._store, catalogue)[:NUM_SHOWN],
        )
