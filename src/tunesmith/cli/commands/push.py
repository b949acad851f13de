"""`tunesmith push`: a model version to a repository of the Hugging Face Hub."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from tunesmith.cli.commands.export import merged_option, version_option
from tunesmith.cli.connection import connect
from tunesmith.cli.options import Globals, global_options, recipe_argument
from tunesmith.cli.problems import EXIT_REFUSED
from tunesmith.cli.published import fetch, publication_of
from tunesmith.cli.render import Output

TOKEN_VARIABLE = "HF_TOKEN"


@click.command("push")
@recipe_argument
@click.argument("repo_id", metavar="REPO_ID")
@version_option
@merged_option
@click.option("--private", is_flag=True, help="Make the repository private where it does not exist yet.")
@click.option("--endpoint", default="", metavar="URL", help="Another Hub than huggingface.co (or HF_ENDPOINT).")
@click.option("--although-refused", is_flag=True, help="Push a version that did not pass its gates, too.")
@global_options()
@click.pass_obj
def push(
    options: Globals,
    recipe: str,
    repo_id: str,
    version: str,
    merged: bool,
    private: bool,
    endpoint: str,
    although_refused: bool,
) -> int:
    """Push the champion of RECIPE, or another model, to a repository of the Hugging Face Hub.

    All files go in one commit; where the repository holds them already, none is made. The token comes from HF_TOKEN and
    is sent to the Hub alone. Exit code 3 when the version did not pass its gates.
    """
    from tunesmith.adapters.hub import Hub

    out = Output(json=options.json)
    hub = Hub(endpoint=endpoint, token=os.environ.get(TOKEN_VARIABLE, ""))
    hub.check_name(repo_id)
    with connect(options) as connection, tempfile.TemporaryDirectory(prefix="tunesmith-push-") as scratch:
        publication = publication_of(connection, out, recipe=recipe, version=version, merged=merged)
        if not publication.passed and not although_refused:
            out.result(
                {"pushed": None, "version": publication.version},
                f"refused: model {publication.version} did not pass its gates (`tunesmith report {recipe} "
                f"{publication.version}`); --although-refused pushes it all the same",
            )
            return EXIT_REFUSED
        folder = Path(scratch) / "model"
        fetch(connection, publication, folder, repo_id=repo_id)
        pushed = hub.push(folder, repo_id, private=private, message=f"{recipe}: model version {publication.version}")
    out.result(
        {"pushed": pushed.url, "commit": pushed.commit, "changed": pushed.changed, "version": publication.version},
        f"{'pushed' if pushed.changed else 'unchanged'}: model {publication.version} at {pushed.url}, "
        f"commit {pushed.commit[:12] or 'none'}",
    )
    return 0
