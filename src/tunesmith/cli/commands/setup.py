"""`tunesmith setup`: makes what the services find and do not make themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from tunesmith.cli.options import Globals, global_options
from tunesmith.cli.render import Output, table
from tunesmith.domain.errors import InvalidSettings
from tunesmith.settings import Settings


@click.command("setup")
@click.option(
    "--store-users",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Make a user with least rights for each service on MinIO, with keys in FOLDER/SERVICE.env.",
)
@global_options()
@click.pass_obj
def setup(options: Globals, store_users: Path | None) -> int:
    """Make the buckets and users that the settings name.

    TUNESMITH_STORE tells which; the store is also told to remove the parts of abandoned uploads. May be run again at
    any time: what is there stays as it is. Needs no server.
    """
    out = Output(json=options.json)
    settings = Settings.read(data=options.data)
    steps = list(_store_steps(settings, store_users))
    out.result(
        {"steps": [{"part": part, "name": name, "outcome": outcome} for part, name, outcome in steps]},
        table("", ("part", "name", "outcome"), steps),
    )
    return 0


def _store_steps(settings: Settings, users: Path | None) -> Iterator[tuple[str, str, str]]:
    """Part, name and outcome of each step."""
    if not settings.store.startswith("s3://"):
        if users is not None:
            raise InvalidSettings("--store-users needs an S3 store in TUNESMITH_STORE; a folder has no users")
        yield "store", settings.store or str(settings.data / "store"), "a folder needs no setup"
        return
    from tunesmith.adapters.minio_setup import end_abandoned_uploads, make_buckets, make_users
    from tunesmith.platform import open_minio

    connection = open_minio(settings).connection
    made = make_buckets(connection)
    for bucket in connection.address.buckets():
        yield "bucket", bucket, "made" if bucket in made else "there already"
    ruled = end_abandoned_uploads(connection)
    yield "rule", "abandoned uploads", "removed after a day" if ruled else "left to the store's own clearing"
    if users is not None:
        for service, user in make_users(connection, users).items():
            yield "user", user, f"keys in {users / service}.env"
