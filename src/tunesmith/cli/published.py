"""A model version's published files, fetched into a folder that is there as a whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from tunesmith.cli.connection import UPLOAD_TIMEOUT_S, Connection
from tunesmith.cli.render import Output
from tunesmith.cli.steps import leaving_running, result_of, submit
from tunesmith.domain.errors import DataLoss, FailedPrecondition
from tunesmith_proto.trainer.v1 import publishing_pb2

CARD = "README.md"


def publication_of(
    connection: Connection, out: Output, *, recipe: str, version: str, merged: bool
) -> publishing_pb2.Publication:
    """The files of a model version, put together by the server; follows the job that does it."""
    request = publishing_pb2.PublishRequest(
        recipe=recipe, version=version, form=_form(merged), request_id=str(uuid.uuid4())
    )
    submitted = submit(connection, connection.publishing.Publish, request)
    with leaving_running(connection, submitted.job.id):
        return result_of(connection, out, submitted, publishing_pb2.Publication).message


def check_absent(folder: Path) -> None:
    """FailedPrecondition when `folder` holds something: nothing there is ever overwritten."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise FailedPrecondition(
            f"{folder} exists already and is not an empty folder; name another one, or move it away",
            reason="FOLDER_EXISTS",
            metadata={"folder": str(folder)},
        )


def fetch(
    connection: Connection,
    publication: publishing_pb2.Publication,
    folder: Path,
    *,
    repo_id: str = "",
    fetched: Callable[[str], None] = lambda _: None,
) -> None:
    """Write the publication's files and its model card into `folder`; `fetched` is told the name of each.

    They are written beside it and moved there when all are whole, so that a full disk or a kill leaves no half of it.
    DataLoss when a file is not the one that the server told of.
    """
    check_absent(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir()
        for file in publication.files:
            _fetch_file(connection, publication.id, file, unfinished)
            fetched(file.name)
        request = publishing_pb2.GetModelCardRequest(
            recipe=publication.recipe, version=publication.version, form=publication.form, repo_id=repo_id
        )
        card: publishing_pb2.GetModelCardResponse = connection.call(connection.publishing.GetModelCard, request)
        (unfinished / CARD).write_text(card.text, "utf-8")
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _fetch_file(connection: Connection, publication_id: str, file: publishing_pb2.PublishedFile, folder: Path) -> None:
    if Path(file.name).name != file.name or file.name in (".", ".."):
        raise DataLoss(f"the server names a file {file.name[:80]!r} that is none; ask another server")
    request = publishing_pb2.ReadFileRequest(publication_id=publication_id, name=file.name)
    digest = hashlib.sha256()
    size_bytes = 0
    with (folder / file.name).open("wb") as target:
        for reply in connection.call(connection.publishing.ReadFile, request, timeout_s=UPLOAD_TIMEOUT_S):
            size_bytes += len(reply.chunk)
            if size_bytes > file.size_bytes:
                break
            digest.update(reply.chunk)
            target.write(reply.chunk)
        target.flush()
        os.fsync(target.fileno())
    if size_bytes != file.size_bytes or digest.hexdigest() != file.sha256:
        raise DataLoss(
            f"{file.name} of publication {publication_id} came with {size_bytes} bytes of SHA-256 "
            f"{digest.hexdigest()[:16]}, not {file.size_bytes} of {file.sha256[:16]}; try again",
            reason="PUBLICATION_CORRUPT",
            metadata={"file": file.name},
        )


def _form(merged: bool) -> publishing_pb2.PublicationForm:
    return publishing_pb2.PUBLICATION_FORM_MERGED if merged else publishing_pb2.PUBLICATION_FORM_ADAPTER
