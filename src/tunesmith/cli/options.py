"""Options that several commands share. Light on purpose: `tunesmith --help` imports this file."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from tunesmith.addresses import read_servers

_F = TypeVar("_F", bound=Callable[..., Any])

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([smhd]?)")


@dataclass(slots=True)
class Globals:
    """The options that may stand before or after the sub-command."""

    json: bool = False
    server: str = ""
    """Where the services are (`addresses.read_servers`); empty for the running server of the data folder."""
    data: Path = Path(".tunesmith")
    timeout_s: float | None = None
    """Seconds that one call may take; None for each call's own default."""


class SuggestingGroup(click.Group):
    """Answers a mistyped command with the nearest ones."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name.startswith("-") or name in self.list_commands(ctx) or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        message = f"No such command {name[:80]!r}."
        nearest = difflib.get_close_matches(name, self.list_commands(ctx), n=3, cutoff=0.5)
        if nearest:
            message += f" Did you mean {' or '.join(nearest)}?"
        raise click.UsageError(message, ctx)


def global_options(*, environment: bool = False) -> Callable[[_F], _F]:
    """`--json`, `--server`, `--data` and `--timeout`; with `environment`, read from variables too.

    Only the top reads the environment, so that an option before the sub-command is not overruled by a variable.
    """

    def variable(name: str) -> str | None:
        return name if environment else None

    options = (
        click.option("--json", is_flag=True, help="Only JSON on standard output.", **_stored()),
        click.option(
            "--server",
            metavar="HOST[:PORT]",
            envvar=variable("TUNESMITH_SERVER"),
            show_envvar=True,
            help="Server to talk to (default: that of the data folder); without a port, services that run alone there; "
            "or service=HOST:PORT,...",
            **_stored(_checked_address),
        ),
        click.option(
            "--data",
            type=click.Path(file_okay=False, path_type=Path),
            envvar=variable("TUNESMITH_DATA"),
            show_envvar=True,
            help="Data folder (default ./.tunesmith).",
            **_stored(),
        ),
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="Longest that one call may take; watching a job has no limit.",
            **_stored(),
        ),
    )

    def decorate(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _stored(check: Callable[[str], str] | None = None) -> dict[str, Any]:
    """Arguments of click.option that put a given value into the Globals instead of the function's parameters."""

    def store(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        options = ctx.ensure_object(Globals)
        if value not in (None, False, ""):
            setattr(options, str(parameter.name), check(value) if check else value)

    return {"expose_value": False, "callback": store}


def _checked_address(value: str) -> str:
    try:
        read_servers(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


recipe_argument = click.argument("recipe")

detach_option = click.option("--detach", is_flag=True, help="Print the job's id and return; the job runs on.")

limit_option = click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most.")


def duration(value: str) -> float:
    """Seconds of a number with a unit: `90`, `90s`, `10m`, `6h`, `1d`. An option's type."""
    match = _DURATION.fullmatch(value.strip())
    if not match:
        raise click.BadParameter(f"{value[:60]!r} is not a duration; write for example 90s, 10m, 6h or 1d")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]


priority_option = click.option(
    "--priority",
    type=click.IntRange(-100, 100),
    default=0,
    show_default=True,
    help="Before others that wait; equal ones go by age.",
)

set_option = click.option(
    "--set", "settings", metavar="NAME=VALUE", multiple=True, help="A setting that differs from the recipe's."
)


def source_options(function: _F) -> _F:
    """Where records come from and how to read them."""
    return click.option("--source", metavar="URL_OR_PATH", default="", help="Default: the recipe's own sample.")(
        reading_options(function)
    )


def reading_options(function: _F) -> _F:
    """How to read the records of a source."""
    options = (
        click.option(
            "--format",
            "source_format",
            type=click.Choice(["text", "csv", "json", "html", "jspf"]),
            help="Default: by file name, content type and content.",
        ),
        click.option(
            "--column",
            "columns",
            metavar="FIELD=COLUMN",
            multiple=True,
            help="Column that a record field is read from, where the names differ.",
        ),
        click.option("--preset", default="", help="A known table shape: lyrics-pair (songs, joined with artists)."),
        click.option("--join", metavar="URL_OR_PATH", default="", help="A second table that gives some fields."),
        click.option("--join-on", metavar="COLUMN=OTHER", default="", help="Column of each table that must be equal."),
        click.option(
            "--join-column",
            "join_columns",
            metavar="FIELD=COLUMN",
            multiple=True,
            help="Field that is read from the second table.",
        ),
        click.option("--skip-undecodable", is_flag=True, help="Skip and count rows that are not UTF-8."),
        click.option("--selector", metavar="CSS", default="", help="Which elements of a page hold the items."),
        click.option("--attribute", metavar="NAME", default="", help="Attribute of those elements, not their text."),
        click.option("--licence", metavar="SPDX_ID", default="", help="Licence of the data, if the source has none."),
        click.option("--licence-url", metavar="URL", default=""),
        click.option("--name", "display_name", metavar="TEXT", default="", help="Name of the source, for people."),
    )
    for option in reversed(options):
        function = option(function)
    return function


MAX_SCHEMA_CHARS = 1 << 20
"""Read of a schema's file; the server's own limit is lower, and says so."""


def parameter_options(function: _F) -> _F:
    """Sampling parameters, under the names of text-generation-inference."""
    options = (
        click.option("--max-new-tokens", type=int),
        click.option("--temperature", type=float, help="> 0"),
        click.option("--top-k", type=int, help=">= 1"),
        click.option("--top-p", type=float, help="between 0 and 1"),
        click.option("--typical-p", type=float, help="between 0 and 1"),
        click.option("--repetition-penalty", type=float, help="> 0"),
        click.option("--frequency-penalty", type=float, help="between -2 and 2"),
        click.option(
            "--schema",
            "json_schema",
            metavar="FILE",
            type=click.File(),
            callback=lambda _context, _option, file: None if file is None else file.read(MAX_SCHEMA_CHARS),
            help="JSON Schema of the answer: one document that it allows. An empty file leaves the recipe's off.",
        ),
        click.option("--do-sample/--no-do-sample", default=None, help="Sample, or take the likeliest token."),
        click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Of the first answer; default: random."),
        click.option("--stop", multiple=True, help="A further stop sequence; at most 4."),
        click.option("--truncate", type=int, help="Keep only the last so many prompt tokens."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def prompt_options(function: _F) -> _F:
    """What to ask: the recipe's inputs, or a raw prompt."""
    options = (
        click.option("--input", "inputs", metavar="NAME=VALUE", multiple=True, help="An input of the recipe."),
        click.option("--prompt", default="", help="A raw prompt instead of inputs."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def pairs(values: Sequence[str], *, option: str) -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping; a usage error names the one that is none."""
    found: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{value!r} is not of the form NAME=VALUE", param_hint=option)
        if name in found:
            raise click.BadParameter(f"{name!r} is given twice", param_hint=option)
        found[name] = text
    return found


def setting_values(values: Sequence[str]) -> dict[str, float | bool | str]:
    """The `--set` options: numbers and true/false as such, everything else as text."""
    return {name: _scalar(text) for name, text in pairs(values, option="--set").items()}


def _scalar(text: str) -> float | bool | str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, bool):
        return value
    return value if isinstance(value, int | float) and math.isfinite(value) else text


def sort_settings(
    settings: Mapping[str, float | bool | str], *, training: Sequence[str], curation: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Which of `settings` are the training's and which the curation's, by the names that a recipe knows.

    A name that both know (`seed`) is the training's, unless written `curation.seed`.
    """
    for_training: dict[str, Any] = {}
    for_curation: dict[str, Any] = {}
    for name, value in settings.items():
        group, _, rest = name.rpartition(".")
        if group == "curation" or (not group and rest in curation and rest not in training):
            for_curation[rest] = value
        elif group == "training" or (not group and (rest in training or not training)):
            for_training[rest] = value
        else:
            _unknown_setting(name, sorted({*training, *curation}))
    return for_training, for_curation


def _unknown_setting(name: str, known: Sequence[str]) -> NoReturn:
    nearest = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known settings: {', '.join(known)}"
    raise click.BadParameter(f"setting {name!r} is unknown; {hint}", param_hint="--set")
