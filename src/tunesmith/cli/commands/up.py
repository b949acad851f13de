"""`tunesmith up`: all services in this process."""

from __future__ import annotations

import json
import sys

import click

from tunesmith.cli.hosting import embedded_serve
from tunesmith.cli.options import Globals, global_options
from tunesmith.settings import Settings
from tunesmith.telemetry import configure_logging


@click.command("up")
@click.option("--listen", default="127.0.0.1:50400", show_default=True, metavar="HOST:PORT", help="Port 0: any.")
@global_options()
@click.pass_obj
def up(options: Globals, listen: str) -> int:
    """Run all services in this process until Ctrl-C.

    Other commands find this server by the data folder. Settings come from TUNESMITH_ variables as well.
    """
    settings = Settings.read(data=options.data, listen=listen)
    readable = sys.stderr.isatty() and "log_format" not in settings.model_fields_set
    configure_logging(level=settings.log_level, log_format="text" if readable else settings.log_format)

    def on_ready(address: str) -> None:
        # Not through `render`: its tables take a moment to import, and nobody waits for a server gladly.
        if options.json:
            click.echo(json.dumps({"address": address, "data": str(settings.data)}))
        else:
            click.echo(f"Tunesmith answers at {address}; data in {settings.data}; Ctrl-C stops it")

    return embedded_serve(options.data, listen, on_ready)
