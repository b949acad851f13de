"""`tunesmith run`: the whole chain, from a source to a champion and its answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
import grpc
from google.protobuf.message import Message
from rich.console import RenderableType

from tunesmith.cli.asking import answers
from tunesmith.cli.connection import Connection
from tunesmith.cli.hosting import force_on_next_interrupt, running_or_own
from tunesmith.cli.needs import derivation
from tunesmith.cli.options import (
    Globals,
    global_options,
    recipe_argument,
    set_option,
    setting_values,
    sort_settings,
    source_options,
)
from tunesmith.cli.problems import (
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    JobFailed,
    Problem,
    print_problem,
    problem_of,
)
from tunesmith.cli.render import Output, answers_table, gates_table, measures_table, parity_lines, plain, refusal_lines
from tunesmith.cli.session import RunSession, write_atomically
from tunesmith.cli.source import GivenSource
from tunesmith.cli.steps import (
    Result,
    champion_of,
    collected_line,
    curated_line,
    judged_model,
    recipe_of,
    report_of,
    report_page,
    result_of,
    submit,
    tuned_line,
)
from tunesmith.domain.errors import TunesmithError
from tunesmith.recipes import recipe_named
from tunesmith_proto.generator.v1 import generator_pb2
from tunesmith_proto.scraper.v1 import scraper_pb2
from tunesmith_proto.trainer.v1 import models_pb2, trainer_pb2

M = TypeVar("M", bound=Message)

REPORTS_FOLDER = "reports"


@dataclass(slots=True)
class Chain:
    """What a run was asked to do, and how far it has come."""

    recipe: str
    given: GivenSource
    base_model: str
    settings: Mapping[str, float | bool | str]
    num_samples: int
    llm: str
    """Language model that writes pairs between collecting and curating; empty for none."""
    data: Path
    session: RunSession
    saved: list[str] = field(default_factory=list)
    """What is there already, for the line that Ctrl-C prints."""
    current_job: str = ""
    """The job that is being waited for."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a run came to."""

    collection: Result[scraper_pb2.Collection]
    derived: Result[Message] | None
    """The same records with what the recipe needs; None for a recipe that needs nothing."""
    dataset: Result[trainer_pb2.Dataset]
    run: Result[trainer_pb2.Run]
    model: models_pb2.ModelVersion
    report: models_pb2.Report
    page: Path
    champion: str
    """The version that is served now; empty when there is none."""
    answers: Sequence[generator_pb2.Answer]


@click.command("run")
@recipe_argument
@source_options
@click.option("--base-model", default="", help="builtin:tiny, builtin:tiny-text, a Hub id or a folder.")
@set_option
@click.option("--samples", type=click.IntRange(0, 10_000), default=20, show_default=True, help="Answers at the end.")
@click.option("--llm", default="", metavar="URL", help="Have this language model write pairs (see `tunesmith write`).")
@click.option("--fresh", is_flag=True, help="Do not continue an interrupted run; equal results are still reused.")
@global_options()
@click.pass_obj
def run(
    options: Globals,
    /,
    recipe: str,
    base_model: str,
    settings: tuple[str, ...],
    samples: int,
    llm: str,
    fresh: bool,
    **source: Any,
) -> int:
    """Do the whole chain for RECIPE: from a source to a champion and its answers.

    Uses the running server of the data folder, or runs the services inside this process. After Ctrl-C the same
    command continues. Exit code 3 when the gates refuse the candidate.
    """
    out = Output(json=options.json)
    given = GivenSource.read(**source)
    values = setting_values(settings)
    identity = {
        "recipe": recipe,
        "server": options.server,
        "content": given.content_key(),
        "source": plain(given.source),
        "base_model": base_model,
        "settings": values,
        **({"llm": llm} if llm else {}),
    }
    with running_or_own(options, before_start=lambda: recipe_named(recipe)) as (connection, own):
        session = RunSession.begin(options.data, identity, fresh=fresh)
        chain = Chain(recipe, given, base_model, values, samples, llm, options.data, session)
        if session.continued:
            out.note("continuing the interrupted run of the same command")
        try:
            made = _make(connection, out, chain)
        except KeyboardInterrupt:
            # Said at once: leaving the services takes a moment.
            print_problem(_interrupted(connection, chain, own=own), as_json=options.json)
            if own:
                force_on_next_interrupt()
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        except (JobFailed, TunesmithError, grpc.RpcError, click.ClickException) as error:
            if not _may_continue(error):
                session.end()
            raise
        session.end()
    out.document(_document(chain, made))
    out.show(*_screen(chain, made))
    return 0 if made.report.passed else EXIT_REFUSED


def _make(connection: Connection, out: Output, chain: Chain) -> Made:
    """Collect, add what the recipe needs, curate, tune, judge, and ask the champion."""
    connection.require("scraper", "trainer", "generator")
    known = recipe_of(connection, chain.recipe)
    training, curation = sort_settings(
        chain.settings, training=list(known.training_defaults), curation=list(known.curation_defaults)
    )
    ids = chain.session.request_ids

    collect = scraper_pb2.CollectRequest(
        recipe=chain.recipe,
        source=chain.given.resolved(connection, default_url=known.default_source),
        request_id=ids["collect"],
    )
    collection = _step(connection, out, chain, connection.scraper.Collect, collect, scraper_pb2.Collection)
    out.show(collected_line(collection))

    to_curate = collection.message.id
    derived: Result[Message] | None = None
    if derive := derivation(connection, known, to_curate, request_id=ids["derive"], llm=chain.llm):
        derived = _step(connection, out, chain, derive.method, derive.request, derive.kind)
        out.show(derive.line(derived))
        to_curate = _id_of(derived.message)

    curate = trainer_pb2.BuildDatasetRequest(recipe=chain.recipe, collection_ids=[to_curate], request_id=ids["curate"])
    curate.settings.update(curation)
    dataset = _step(connection, out, chain, connection.trainer.BuildDataset, curate, trainer_pb2.Dataset)
    out.show(curated_line(dataset))

    tune = trainer_pb2.StartRunRequest(
        recipe=chain.recipe,
        dataset_id=dataset.message.id,
        base_model=chain.base_model,
        follow_up=trainer_pb2.FOLLOW_UP_PROMOTE,
        request_id=ids["tune"],
    )
    tune.settings.update(training)
    tuned = _step(connection, out, chain, connection.trainer.StartRun, tune, trainer_pb2.Run)
    out.show(tuned_line(tuned))

    chain.current_job = tuned.message.judge_job_id
    model = judged_model(connection, out, tuned, promote=True, request_id=ids["judge"])
    chain.saved.append(f"model {model.id}")
    chain.current_job = ""

    report = report_of(connection, chain.recipe, model.id)
    page = chain.data / REPORTS_FOLDER / f"{model.id}.html"
    write_atomically(page, report_page(connection, chain.recipe, model.id))
    champion = champion_of(connection, chain.recipe)
    said = _ask(connection, chain, champion, report.prompts) if champion else ()
    return Made(collection, derived, dataset, tuned, model, report, page, champion, said)


def _step(
    connection: Connection, out: Output, chain: Chain, method: Callable[..., Any], request: Message, kind: type[M]
) -> Result[M]:
    submitted = submit(connection, method, request)
    chain.current_job = submitted.job.id
    result = result_of(connection, out, submitted, kind)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.DESCRIPTOR.name).lower()
    chain.saved.append(f"{words} {_id_of(result.message)}")
    chain.current_job = ""
    return result


def _id_of(message: Message) -> str:
    return str(getattr(message, "id", ""))


def _ask(connection: Connection, chain: Chain, model: str, prompts: Sequence[str]) -> list[generator_pb2.Answer]:
    """The answers at the end, with seeds from 1: every run that ends with the same model shows the same.

    A recipe that does not make its prompts from seeds is asked the held-out `prompts` of its report, in turn.
    """

    def question(seed: int) -> generator_pb2.GenerateRequest:
        return generator_pb2.GenerateRequest(
            recipe=chain.recipe,
            prompt=prompts[(seed - 1) % len(prompts)] if prompts else "",
            parameters=generator_pb2.GenerationParameters(seed=seed),
            model=model,
        )

    return answers(connection, question, start=1, count=chain.num_samples)


def _may_continue(error: Exception) -> bool:
    """Whether the same run can go on later: only the connection was lost, not the work."""
    problem = problem_of(error)
    lost = problem is not None and problem.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    return lost and not isinstance(error, JobFailed)


def _interrupted(connection: Connection, chain: Chain, *, own: bool) -> Problem:
    """The one line that Ctrl-C prints."""
    saved = [*chain.saved, *([f"the work of job {chain.current_job} so far"] if chain.current_job else [])]
    line = f"interrupted; saved: {', '.join(saved) or 'nothing yet'}; the same command continues"
    if chain.current_job and not own:
        job = chain.current_job
        line += f" (meanwhile job {job} goes on at {connection.address}; `tunesmith jobs cancel {job}` stops it)"
    return Problem("CANCELLED", "INTERRUPTED", line, EXIT_INTERRUPTED)


def _document(chain: Chain, made: Made) -> Mapping[str, Any]:
    return {
        "recipe": chain.recipe,
        "passed": made.report.passed,
        "champion": made.champion or None,
        "champion_before": made.report.champion_version or None,
        "collection": made.collection.message,
        "dataset": made.dataset.message,
        "run": made.run.message,
        "model": made.model,
        "reused": {"collection": made.collection.reused, "dataset": made.dataset.reused, "run": made.run.reused},
        **({"derived": made.derived.message} if made.derived else {}),
        "report": made.report,
        "report_page": str(made.page),
        "answers": made.answers,
    }


def _screen(chain: Chain, made: Made) -> list[RenderableType]:
    items: list[RenderableType] = [""]
    if not made.report.passed:
        items += [*refusal_lines(made.report), gates_table(made.report), ""]
    items += [_champion_line(chain, made), *parity_lines(made.report), "", measures_table(made.report, only_gated=True)]
    items += [f"more: tunesmith report {chain.recipe} {made.model.id}", ""]
    if made.answers:
        items += [answers_table(f"{len(made.answers)} answers of {made.champion}", made.answers), ""]
    return [*items, f"report: {made.page}"]


def _champion_line(chain: Chain, made: Made) -> str:
    before = made.report.champion_version
    if not made.champion:
        return "champion: none yet, so there are no answers to show"
    if made.champion == made.model.id:
        return f"champion: {made.champion}" + (f" (before: {before})" if before not in ("", made.champion) else "")
    if made.report.passed:
        return (
            f"champion: {made.champion}; {made.model.id} passed but is not served: "
            f"`tunesmith promote {chain.recipe} {made.model.id}` makes it the champion"
        )
    return f"champion: still {made.champion}; the answers are from that older champion"
