"""`tunesmith clean`: removes from the store what nothing refers to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import click

from tunesmith.adapters.system_clock import SystemClock
from tunesmith.cli.options import Globals, duration, global_options
from tunesmith.cli.render import Output, table
from tunesmith.leftovers import DEFAULT_AGE_S, LEAST_AGE_S, Leftover, Leftovers
from tunesmith.platform import open_store
from tunesmith.settings import Settings

UPLOADS = "unfinished uploads"


@dataclass
class Row:
    """What was found, and removed, of one kind."""

    kind: str
    objects: int = 0
    size_bytes: int = 0
    removed: int = 0
    examples: list[str] = field(default_factory=list)


def _age(_: click.Context, __: click.Parameter, value: str) -> float:
    age_s = duration(value)
    if age_s < LEAST_AGE_S:
        raise click.BadParameter(
            f"{value!r} is less than an hour: younger objects may belong to what is being made just now"
        )
    return age_s


@click.command("clean")
@click.option(
    "--older-than",
    "older_than_s",
    callback=_age,
    default=f"{DEFAULT_AGE_S / 86_400:.0f}d",
    show_default=True,
    metavar="AGE",
    help="Look only at what is older, such as 12h or 30d; an hour at least.",
)
@click.option("--delete", is_flag=True, help="Remove what was found; otherwise it is only shown.")
@global_options()
@click.pass_obj
def clean(options: Globals, older_than_s: float, delete: bool) -> int:
    """Show, and with --delete remove, what nothing in the store refers to.

    That is what jobs left that were killed, failed or were cancelled, media and uploads of no collection, and uploads
    that never ended. What a running job may use stays. Needs no server, but works beside one; on an S3 store it needs
    keys that may delete in every area.
    """
    out = Output(json=options.json)
    settings = Settings.read(data=options.data)
    leftovers = Leftovers(open_store(settings), SystemClock(), older_than_s=older_than_s)
    rows: dict[str, Row] = {}
    for leftover in leftovers.found:
        row = rows.setdefault(leftover.kind.name, Row(leftover.kind.name))
        row.objects += 1
        row.size_bytes += leftover.object.size_bytes
        row.examples = row.examples or [leftover.object.key]

    def count(leftover: Leftover) -> None:
        rows[leftover.kind.name].removed += 1

    came = leftovers.remove(count) if delete else frozenset[str]()
    for key, ended in _uploads(settings, older_than_s, delete=delete):
        row = rows.setdefault(UPLOADS, Row(UPLOADS))
        row.objects += 1
        row.removed += ended
        row.examples = row.examples or [key]
    _show(out, list(rows.values()), skipped=leftovers.skipped(came), deleted=delete)
    return 0


def _uploads(settings: Settings, older_than_s: float, *, delete: bool) -> Iterator[tuple[str, bool]]:
    """Keys of uploads in parts that were begun that long ago, and whether they were ended; only S3 stores have any."""
    if not settings.store.startswith("s3://"):
        return
    from tunesmith.adapters.minio_uploads import abort_upload, list_uploads
    from tunesmith.platform import open_minio

    connection = open_minio(settings).connection
    for upload in list(list_uploads(connection)):
        if upload.started_s < time.time() - older_than_s:
            if delete:
                abort_upload(connection, upload)
            yield upload.key, delete


def _show(out: Output, rows: list[Row], *, skipped: list[str], deleted: bool) -> None:
    document = {
        "leftovers": [
            {"kind": r.kind, "objects": r.objects, "size_bytes": r.size_bytes, "removed": r.removed} for r in rows
        ],
        "skipped": skipped,
        "deleted": deleted,
    }
    shown = table(
        "",
        ("what", "objects", "MiB", "removed", "such as"),
        [(r.kind, r.objects, f"{r.size_bytes / 2**20:.1f}", r.removed, *r.examples) for r in rows],
    )
    out.result(document, shown if rows else "nothing is left over")
    if skipped:
        out.note(f"not looked at, because running jobs may use them: {', '.join(skipped)}")
    if rows and not deleted:
        out.note("nothing was removed; --delete removes it")
