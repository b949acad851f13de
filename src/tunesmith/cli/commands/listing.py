"""`tunesmith recipes`, `models`, `collections`, `datasets` and `runs`: what is there."""

from __future__ import annotations

import click
from rich.console import RenderableType

from tunesmith.cli.connection import Connection, connect
from tunesmith.cli.options import Globals, global_options, limit_option, recipe_argument
from tunesmith.cli.render import Output, ago, counts, facts, number, settings_text, table
from tunesmith_proto.scraper.v1 import scraper_pb2
from tunesmith_proto.trainer.v1 import models_pb2, trainer_pb2


@click.command("recipes")
@global_options()
@click.pass_obj
def recipes(options: Globals) -> None:
    """List the recipes."""
    out = Output(json=options.json)
    with connect(options) as connection:
        reply = _recipes(connection)
    rows = [[one.name, one.title, one.default_source, one.default_base_model, len(one.gates)] for one in reply.recipes]
    shown = table("", ["recipe", "what it does", "default source", "base model", "gates"], rows)
    out.result(reply, shown, *(f"not loaded: {problem}" for problem in reply.not_loaded))


def _recipes(connection: Connection) -> trainer_pb2.ListRecipesResponse:
    reply: trainer_pb2.ListRecipesResponse = connection.call(
        connection.trainer.ListRecipes, trainer_pb2.ListRecipesRequest()
    )
    return reply


def _names(connection: Connection, recipe: str) -> list[str]:
    """The recipe that was named, else all of them."""
    return [recipe] if recipe else [one.name for one in _recipes(connection).recipes]


@click.command("models")
@recipe_argument
@limit_option
@global_options()
@click.pass_obj
def models(options: Globals, recipe: str, limit: int) -> None:
    """List the model versions of RECIPE and their verdicts."""
    out = Output(json=options.json)
    with connect(options) as connection:
        request = models_pb2.ListModelsRequest(recipe=recipe)
        found: list[models_pb2.ModelVersion] = connection.pages(
            connection.models.ListModels, request, "models", limit=limit
        )
    rows = [
        [
            "champion" if one.champion else "",
            one.id,
            "passed" if one.passed else "refused",
            one.base_model,
            one.dataset_id,
            one.run_id,
            ago(one.create_time),
        ]
        for one in found
    ]
    out.result({"models": found}, table("", ["", "model", "verdict", "base", "dataset", "run", "made"], rows))


@click.command("collections")
@click.argument("recipe", default="")
@click.argument("collection", default="")
@limit_option
@global_options()
@click.pass_obj
def collections(options: Globals, recipe: str, collection: str, limit: int) -> None:
    """List collections, or show one."""
    out = Output(json=options.json)
    with connect(options) as connection:
        if collection:
            reply: scraper_pb2.GetCollectionResponse = connection.call(
                connection.scraper.GetCollection,
                scraper_pb2.GetCollectionRequest(recipe=recipe, collection_id=collection),
            )
            return out.result(reply.collection, _collection_facts(reply.collection))
        found: list[scraper_pb2.Collection] = []
        for name in _names(connection, recipe):
            request = scraper_pb2.ListCollectionsRequest(recipe=name)
            found += connection.pages(connection.scraper.ListCollections, request, "collections", limit=limit)
    rows = [
        [one.id, one.recipe, one.source, one.num_records, counts(one.licences), ago(one.create_time)] for one in found
    ]
    columns = ["collection", "recipe", "source", "records", "licences", "collected"]
    return out.result({"collections": found}, table("", columns, rows))


def _collection_facts(one: scraper_pb2.Collection) -> RenderableType:
    return facts(
        {
            "collection": one.id,
            "recipe": one.recipe,
            "source": one.source,
            "records": one.num_records,
            "licences": counts(one.licences),
            "skipped": counts(one.skipped),
            "collected": ago(one.create_time),
        }
    )


@click.command("datasets")
@click.argument("recipe", default="")
@click.argument("dataset", default="")
@limit_option
@global_options()
@click.pass_obj
def datasets(options: Globals, recipe: str, dataset: str, limit: int) -> None:
    """List datasets, or show one."""
    out = Output(json=options.json)
    with connect(options) as connection:
        if dataset:
            reply: trainer_pb2.GetDatasetResponse = connection.call(
                connection.trainer.GetDataset, trainer_pb2.GetDatasetRequest(recipe=recipe, dataset_id=dataset)
            )
            return out.result(reply.dataset, _dataset_facts(reply.dataset))
        found: list[trainer_pb2.Dataset] = []
        for name in _names(connection, recipe):
            request = trainer_pb2.ListDatasetsRequest(recipe=name)
            found += connection.pages(connection.trainer.ListDatasets, request, "datasets", limit=limit)
    rows = [
        [one.id, one.recipe, counts(one.num_examples), sum(one.dropped.values()), ago(one.create_time)] for one in found
    ]
    return out.result({"datasets": found}, table("", ["dataset", "recipe", "examples", "dropped", "built"], rows))


def _dataset_facts(one: trainer_pb2.Dataset) -> RenderableType:
    return facts(
        {
            "dataset": one.id,
            "recipe": one.recipe,
            "examples": counts(one.num_examples),
            "records": one.num_records,
            "dropped": counts(one.dropped),
            "licences": counts(one.licences),
            "collections": ", ".join(one.collection_ids),
            "settings": settings_text(one.settings),
            "built": ago(one.create_time),
        }
    )


@click.command("runs")
@click.argument("recipe", default="")
@click.argument("run", default="")
@limit_option
@global_options()
@click.pass_obj
def runs(options: Globals, recipe: str, run: str, limit: int) -> None:
    """List runs, or show one."""
    out = Output(json=options.json)
    with connect(options) as connection:
        if run:
            reply: trainer_pb2.GetRunResponse = connection.call(
                connection.trainer.GetRun, trainer_pb2.GetRunRequest(recipe=recipe, run_id=run)
            )
            return out.result(reply.run, _run_facts(reply.run))
        found: list[trainer_pb2.Run] = []
        for name in _names(connection, recipe):
            request = trainer_pb2.ListRunsRequest(recipe=name)
            found += connection.pages(connection.trainer.ListRuns, request, "runs", limit=limit)
    rows = [
        [
            one.id,
            one.recipe,
            one.dataset_id,
            one.base_model,
            one.num_steps,
            number(one.validation_loss),
            ago(one.create_time),
        ]
        for one in found
    ]
    columns = ["run", "recipe", "dataset", "base", "steps", "validation loss", "tuned"]
    return out.result({"runs": found}, table("", columns, rows))


def _run_facts(one: trainer_pb2.Run) -> RenderableType:
    return facts(
        {
            "run": one.id,
            "recipe": one.recipe,
            "dataset": one.dataset_id,
            "base model": one.base_model,
            "base fingerprint": one.base_fingerprint,
            "adapter hash": one.adapter_hash,
            "steps": f"{one.num_steps}{' (stopped early)' if one.stopped_early else ''}",
            "train loss": number(one.train_loss),
            "validation loss": number(one.validation_loss),
            "rows too long": one.num_rows_dropped,
            "settings": settings_text(one.settings),
            "judge job": one.judge_job_id,
            "tuned": ago(one.create_time),
        }
    )
