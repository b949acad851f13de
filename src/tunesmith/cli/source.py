"""The source that a command names: a URL as it is, or a local file that is sent to the server."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from tunesmith.cli.connection import UPLOAD_TIMEOUT_S, Connection
from tunesmith.cli.options import pairs
from tunesmith_proto.scraper.v1 import scraper_pb2

CHUNK_BYTES = 1 << 20
"""Most that one message of UploadSource may carry."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)

_FORMATS = {
    "text": scraper_pb2.SOURCE_FORMAT_TEXT,
    "csv": scraper_pb2.SOURCE_FORMAT_CSV,
    "json": scraper_pb2.SOURCE_FORMAT_JSON,
    "html": scraper_pb2.SOURCE_FORMAT_HTML,
    "jspf": scraper_pb2.SOURCE_FORMAT_JSPF,
}
_FORMAT_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".jspf": "jspf",
    ".html": "html",
    ".htm": "html",
}
"""Upload forgets the file's name, so what the name says is sent as the format. `.txt` says too little."""


@dataclass(frozen=True, slots=True)
class GivenSource:
    """The source options of a command, checked: local files are known to exist and to be readable."""

    source: scraper_pb2.Source
    """Its URL, and its join's, is empty for a local file; its URL also for the recipe's own source."""
    file: Path | None
    join_file: Path | None

    @staticmethod
    def read(
        *,
        source: str,
        source_format: str | None,
        columns: Sequence[str],
        preset: str,
        join: str,
        join_on: str,
        join_columns: Sequence[str],
        skip_undecodable: bool,
        selector: str,
        attribute: str,
        licence: str,
        licence_url: str,
        display_name: str,
    ) -> GivenSource:
        """The options as given. A usage error names a file that is not there, before anything starts.

        A folder is not sent: the server reads it where it lies, if it may.
        """
        if source and not _URL.match(source) and Path(source).expanduser().is_dir():
            source = Path(source).expanduser().resolve().as_uri()
        file = _local(source, option="--source")
        join_file = _local(join, option="--join")
        if (join_on or join_columns) and not join:
            raise click.UsageError("--join-on and --join-column go with --join, which names the second table")
        message = scraper_pb2.Source(
            url=source if file is None else "",
            format=_format(source_format, file),
            columns=pairs(columns, option="--column"),
            css_selector=selector,
            attribute=attribute,
            licence_id=licence,
            licence_url=licence_url,
            display_name=display_name or (file.name if file else ""),
            preset=preset,
            skip_undecodable=skip_undecodable,
        )
        if join:
            key, other_key = next(iter(pairs([join_on] if join_on else [], option="--join-on").items()), ("", ""))
            message.join.url = join if join_file is None else ""
            message.join.format = _format(None, join_file)
            message.join.key, message.join.other_key = key, other_key
            message.join.columns.update(pairs(join_columns, option="--join-column"))
            message.join.display_name = join_file.name if join_file else ""
        return GivenSource(message, file, join_file)

    def resolved(self, connection: Connection, *, default_url: str) -> scraper_pb2.Source:
        """The source as the server takes it; sends the local files."""
        made = scraper_pb2.Source()
        made.CopyFrom(self.source)
        made.url = upload(connection, self.file) if self.file else self.source.url or default_url
        if self.join_file:
            made.join.url = upload(connection, self.join_file)
        return made

    def content_key(self) -> str:
        """What the source is, for telling runs apart: local files by their content, a URL by its text."""
        own = _digest(self.file) if self.file else self.source.url
        return f"{own} {_digest(self.join_file)}" if self.join_file else own


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(file):
        digest.update(chunk)
    return digest.hexdigest()


def on_server(source: str) -> str:
    """A URL as it is; a path as the file:/// URL under which a server on this machine reads it."""
    return source if not source or _URL.match(source) else Path(source).expanduser().absolute().as_uri()


def _local(source: str, *, option: str) -> Path | None:
    return None if not source or _URL.match(source) else _readable(Path(source), option)


def _format(given: str | None, file: Path | None) -> scraper_pb2.SourceFormat:
    name = given or (_FORMAT_BY_SUFFIX.get(file.suffix.lower()) if file else None)
    return _FORMATS[name] if name else scraper_pb2.SOURCE_FORMAT_UNSPECIFIED


def upload(connection: Connection, file: Path) -> str:
    """Send a file; the `upload:SHA256` URL under which the server keeps it."""
    requests = (scraper_pb2.UploadSourceRequest(chunk=chunk) for chunk in _chunks(file))
    reply: scraper_pb2.UploadSourceResponse = connection.call_stream(
        connection.scraper.UploadSource, requests, timeout_s=UPLOAD_TIMEOUT_S
    )
    return reply.url


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            yield chunk


def _readable(file: Path, option: str) -> Path:
    file = file.expanduser()
    if not file.is_file():
        found = "is not a file" if file.exists() else "does not exist"
        raise click.BadParameter(
            f"the source {str(file)!r} {found}; give a file, or a URL such as sample:genres or https://…",
            param_hint=option,
        )
    try:
        file.open("rb").close()
    except OSError as error:
        raise click.BadParameter(
            f"the source {str(file)!r} cannot be read: {error.strerror}", param_hint=option
        ) from error
    return file
