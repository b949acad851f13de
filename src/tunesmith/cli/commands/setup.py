"""`tunesmith setup`: makes what the services find and do not make themselves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from tunesmith.adapters.cloud_events import dead_letter_topic
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.cli.options import Globals, global_options
from tunesmith.cli.render import Output, table
from tunesmith.domain.errors import InvalidSettings, Unavailable
from tunesmith.domain.events import TOPICS
from tunesmith.platform import open_bus
from tunesmith.settings import Settings

LOOK_AGAIN_S = 1.0

Step = tuple[str, str, str]


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
    """Make the topics, buckets and users that the settings name.

    TUNESMITH_BUS and TUNESMITH_STORE tell which; the store is also told to remove the parts of abandoned uploads. May
    be run again at any time: what is there stays as it is. Needs no server, but users that may make topics and buckets;
    waits TUNESMITH_START_TIMEOUT_S for bus and store to answer.
    """
    out = Output(json=options.json)
    settings = Settings.read(data=options.data)
    steps = _when_answered(lambda: [*_bus_steps(settings), *_store_steps(settings, store_users)], settings, out)
    out.result(
        {"steps": [{"part": part, "name": name, "outcome": outcome} for part, name, outcome in steps]},
        table("", ("part", "name", "outcome"), steps),
    )
    return 0


def _when_answered(make: Callable[[], Sequence[Step]], settings: Settings, out: Output) -> Sequence[Step]:
    """What `make` returns once bus and store answer; its Unavailable when they do not in time."""
    began_s = time.monotonic()
    said = False
    while True:
        try:
            return make()
        except Unavailable as error:
            if time.monotonic() - began_s + LOOK_AGAIN_S > settings.start_timeout_s:
                raise
            if not said:
                out.note(f"waiting up to {settings.start_timeout_s:g} s: {error.message}")
                said = True
            time.sleep(LOOK_AGAIN_S)


def _bus_steps(settings: Settings) -> Iterator[Step]:
    """Part, name and outcome of each step."""
    with contextlib.closing(open_bus(settings, SystemClock(), creates=True)) as bus:
        made = bus.ensure_topics(TOPICS)
    for topic in TOPICS:
        for name in (topic, dead_letter_topic(topic)):
            yield "topic", name, "made" if name in made else "there already"


def _store_steps(settings: Settings, users: Path | None) -> Iterator[Step]:
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
