"""The `tunesmith` command: a gRPC client with progress bars and tables, and JSON for programs.

Exit codes: 0 done; 1 the server (or a job) answered with an error; 2 wrong usage; 3 a candidate was refused by its
gates; 69 no server answers (EX_UNAVAILABLE of sysexits.h); 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
from collections.abc import Sequence

import click

from tunesmith.cli.options import Globals, SuggestingGroup, global_options

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up", "Run all services in this process until Ctrl-C."),
    "run": ("run", "Do the whole chain for RECIPE: from a source to a champion and its answers."),
    "collect": ("collect", "Collect the records of a source for RECIPE."),
    "caption": ("caption", "Caption the clips of COLLECTION."),
    "write": ("write", "Have a language model write training pairs for RECIPE."),
    "curate": ("curate", "Curate the records of RECIPE into a dataset."),
    "tune": ("tune", "Tune an adapter for RECIPE on DATASET (the newest one by default)."),
    "sweep": ("sweep", "Compare settings for RECIPE: a grid of trainings and generations."),
    "judge": ("judge", "Measure the adapter of RUN against the base and the champion."),
    "promote": ("promote", "Make VERSION the champion of RECIPE."),
    "rollback": ("promote", "Give RECIPE back the champion before this one."),
    "generate": ("generate", "Ask the champion of RECIPE, or another model, for answers."),
    "compare": ("compare", "Ask several models the same, side by side."),
    "export": ("export", "Write the champion of RECIPE, or another model, into FOLDER for other programs."),
    "push": ("push", "Push the champion of RECIPE, or another model, to a repository of the Hugging Face Hub."),
    "fetch": ("fetch", "Fetch from the store into FOLDER what a server of VERSION is started with."),
    "report": ("report", "Show the report of VERSION (the champion by default)."),
    "catalogue": ("catalogue", "Set or show the names that exist for RECIPE, for the judge."),
    "lineage": ("lineage", "Trace where SUBJECT came from and what came of it."),
    "policy": ("policy", "Show or set when RECIPE is retrained by itself (all recipes by default)."),
    "follow": ("follow", "Show each step of RECIPE (of all recipes) as it happens, until Ctrl-C."),
    "watch": ("watch", "Collect SOURCE for RECIPE again whenever it has changed."),
    "watches": ("watch", "List the watched sources (of RECIPE)."),
    "unwatch": ("watch", "Watch a source no longer; what was collected stays."),
    "dead-letters": ("dead_letters", "List and replay the events that a service gave up."),
    "jobs": ("jobs", "List, show, watch and cancel jobs."),
    "models": ("listing", "List the model versions of RECIPE and their verdicts."),
    "recipes": ("listing", "List the recipes."),
    "recipe": ("recipe", "Check a recipe of your own."),
    "collections": ("listing", "List collections, or show one."),
    "datasets": ("listing", "List datasets, or show one."),
    "sweeps": ("sweep", "List the sweeps of RECIPE, or show one."),
    "runs": ("listing", "List runs, or show one."),
    "setup": ("setup", "Make the topics, buckets and users that the settings name."),
    "clean": ("clean", "Show, and with --delete remove, what nothing in the store refers to."),
    "captioners": ("caption", "List the captioners that the server can run."),
}
"""Module below `tunesmith.cli.commands` and one-line help by command: `--help` needs no import of the modules."""

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


class LazyGroup(SuggestingGroup):
    """Imports a command's module only when that command is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"tunesmith.cli.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 error from the server, 2 usage, 3 refused by gates, 69 no server, 130 interrupted.",
)
@click.version_option(package_name="tunesmith", message="%(prog)s %(version)s")
@global_options(environment=True)
def root() -> None:
    """Turns music data into small fine-tuned language models and keeps them fresh."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (that of the process by default); returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    options = Globals()
    # An answer in a script that the terminal's encoding lacks must not end the program.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        result = root.main(arguments, prog_name="tunesmith", standalone_mode=False, obj=options)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        if options.json or "--json" in arguments:
            problem = {"code": "INVALID_ARGUMENT", "reason": "USAGE", "message": error.format_message(), "metadata": {}}
            print(json.dumps(problem), file=sys.stderr)
        else:
            error.show()
        return error.exit_code
    except click.Abort:
        if not options.json:
            print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) went away; keep the interpreter's last flush from complaining about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except Exception as error:
        from tunesmith.cli.problems import print_problem, problem_of

        problem_found = problem_of(error)
        if problem_found is None:
            raise
        print_problem(problem_found, as_json=options.json)
        return problem_found.exit_code
