"""The command line as people know it: commands, options, help, typos. A change here is a change for users."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from command_results import Tunesmith

from tunesmith.cli import COMMANDS, root
from tunesmith.cli.options import Globals

GLOBAL = ["--data", "--json", "--server", "--timeout"]
SOURCE = [
    *("--attribute", "--column", "--format", "--join", "--join-column", "--join-on", "--licence", "--licence-url"),
    *("--name", "--preset", "--selector", "--skip-undecodable", "--source"),
]
PARAMETERS = [
    "--do-sample",
    "--frequency-penalty",
    "--max-new-tokens",
    "--no-do-sample",
    "--repetition-penalty",
    "--schema",
    "--seed",
    "--stop",
    "--temperature",
    "--top-k",
    "--top-p",
    "--truncate",
    "--typical-p",
]
PROMPT = ["--input", "--prompt"]

SURFACE = {
    "up": ["--listen"],
    "run RECIPE": [*SOURCE, "--base-model", "--fresh", "--llm", "--samples", "--set"],
    "collect RECIPE": [*SOURCE, "--detach"],
    "caption RECIPE COLLECTION": ["--captioner", "--detach"],
    "write RECIPE": [*SOURCE, "--collection", "--detach", "--llm", "--mode", "--pairs", "--seed"],
    "curate RECIPE": ["--collection", "--detach", "--set"],
    "tune RECIPE [DATASET]": ["--base-model", "--detach", "--priority", "--set", "--then"],
    "sweep RECIPE": ["--axis", "--base-model", "--dataset", "--detach", "--metric", "--priority", "--samples", "--set"],
    "sweeps RECIPE [SWEEP]": ["--limit", "--output", "-o"],
    "judge RECIPE RUN": ["--detach", "--promote"],
    "promote RECIPE VERSION": ["--expect"],
    "rollback RECIPE": ["--expect"],
    "generate RECIPE": [*PARAMETERS, *PROMPT, "--allow-known", "--count", "--model", "--stream", "-n"],
    "compare RECIPE": [*PARAMETERS, *PROMPT, "--count", "--model", "-n"],
    "push RECIPE REPO_ID": ["--although-refused", "--endpoint", "--merged", "--private", "--version"],
    "export RECIPE FOLDER": ["--merged", "--version"],
    "fetch RECIPE VERSION FOLDER": [],
    "report RECIPE [VERSION]": ["--output", "-o"],
    "catalogue RECIPE [FILE]": ["--clear"],
    "lineage RECIPE SUBJECT": ["--max-rows"],
    "policy [RECIPE]": [
        "--base-model",
        "--cool-down",
        "--disable",
        "--enable",
        "--every",
        "--min-growth",
        "--min-new",
        "--priority",
        "--set",
        "--then",
    ],
    "follow [RECIPE]": ["--once"],
    "watch RECIPE SOURCE": [*(option for option in SOURCE if option != "--source"), "--every"],
    "watches [RECIPE]": [],
    "unwatch WATCH_ID": [],
    "dead-letters": [],
    "dead-letters list TOPIC": ["--limit"],
    "dead-letters replay TOPIC": ["--limit", "--offset"],
    "jobs": [],
    "jobs list": ["--active", "--kind", "--limit"],
    "jobs show JOB_ID": [],
    "jobs watch JOB_ID": [],
    "jobs cancel JOB_ID": [],
    "models RECIPE": ["--limit"],
    "recipes": [],
    "recipe": [],
    "recipe check FILE": ["--records"],
    "collections [RECIPE] [COLLECTION]": ["--limit"],
    "datasets [RECIPE] [DATASET]": ["--limit"],
    "runs [RECIPE] [RUN]": ["--limit"],
    "clean": ["--delete", "--older-than"],
    "captioners": [],
    "setup": ["--store-users"],
}


def surface_of(command: click.Command, path: str) -> dict[str, list[str]]:
    context = click.Context(command, info_name=path)
    arguments = [p.make_metavar(context) for p in command.params if isinstance(p, click.Argument)]
    options = sorted(
        name for p in command.params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)
    )
    found = {" ".join([path, *arguments]): options}
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            found |= surface_of(child, f"{path} {name}")
    return found


def test_commands_arguments_and_options_are_the_known_ones() -> None:
    context = click.Context(root)
    found: dict[str, list[str]] = {}
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None
        found |= surface_of(command, name)

    assert found == {name: sorted([*GLOBAL, *options]) for name, options in SURFACE.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_line_in_the_overview_begins_its_own_help(name: str) -> None:
    command = root.get_command(click.Context(root), name)

    assert command is not None
    assert command.help is not None
    assert command.help.split("\n\n")[0].replace("\n", " ") == COMMANDS[name][1]


def test_help_imports_no_grpc_protobuf_rich_or_torch_and_no_command() -> None:
    script = (
        "import sys; from tunesmith.cli import main; assert main(['--help']) == 0; "
        "print(sorted(m for m in sys.modules if m.split('.')[0] in "
        "('grpc', 'google', 'rich', 'torch', 'tunesmith_proto', 'pydantic') or 'cli.commands.' in m))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
    assert "generate" in done.stdout


def test_click_s_own_runner_drives_it_too() -> None:
    result = CliRunner().invoke(root, ["generate", "--help"])

    assert result.exit_code == 0
    assert "--repetition-penalty" in result.output


def test_no_arguments_show_the_help(bare: Tunesmith) -> None:
    ended = bare()

    assert ended.code == 0
    assert "Exit codes" in ended.out


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [(["genrate"], "generate"), (["modles"], "models"), (["jobs", "cansel"], "cancel"), (["runn"], "run")],
)
def test_a_mistyped_command_is_answered_with_the_nearest(bare: Tunesmith, typed: list[str], suggested: str) -> None:
    ended = bare(*typed)

    assert ended.code == 2
    assert suggested in ended.err.split("Did you mean")[1]


def test_a_usage_error_under_json_is_an_object_on_standard_error(bare: Tunesmith) -> None:
    ended = bare("models", "--json")

    assert (ended.code, ended.out) == (2, "")
    assert ended.problem["reason"] == "USAGE"
    assert "RECIPE" in ended.problem["message"]


def test_global_options_stand_before_or_after_the_command_and_the_later_one_wins() -> None:
    before, after, both = Globals(), Globals(), Globals()

    root.main(["--json", "--timeout=3", "up", "--help"], standalone_mode=False, obj=before)
    _parse(["jobs", "--json", "list", "--timeout=3"], after)
    _parse(["--server=a:1", "jobs", "list", "--server=b:2"], both)

    assert (before.json, before.timeout_s) == (True, 3.0)
    assert (after.json, after.timeout_s) == (True, 3.0)
    assert both.server == "b:2"


def _parse(arguments: list[str], options: Globals) -> None:
    """Parse without invoking."""
    context: click.Context | None = None
    command: click.Command | None = root
    while command is not None:
        context = command.make_context(command.name, arguments, parent=context, obj=None if context else options)
        if not isinstance(command, click.Group):
            return
        _, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])


@pytest.mark.parametrize("value", ["local host", "http://a.example/x", ":port", "a b:1"])
def test_a_server_that_is_no_address_is_a_usage_error(bare: Tunesmith, value: str) -> None:
    ended = bare("recipes", "--server", value)

    assert ended.code == 2
    assert "HOST:PORT" in ended.err
