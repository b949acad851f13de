"""Pushing to the Hub with its own client, against a server that speaks its HTTP API."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from doubles.hub_server import READ_TOKEN, TOKEN, serving
from doubles.hub_server import Hub as HubServer
from tunesmith.adapters.hub import Hub
from tunesmith.domain.errors import (
    Conflict,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PermissionRefused,
    TunesmithError,
    Unavailable,
)

# The Hub's client hands its uploads to the HTTP client in a way that this one calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "me/my-model"
CARD = "---\nlicense: mit\n---\n# it\n"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    # What the client reads when it is imported; a test before this one may have imported it.
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with serving() as hub:
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "README.md").write_text(CARD)
    (made / "adapter_config.json").write_text("{}")
    (made / "adapter_model.safetensors").write_bytes(os.urandom(50_000))
    return made


def push(server: HubServer, folder: Path, repo: str = REPO, *, token: str = TOKEN, private: bool = False):
    return Hub(endpoint=server.url, token=token).push(folder, repo, private=private, message="version mv-1")


def commits(server: HubServer) -> int:
    return sum("/commit/" in path for _, path in server.requests)


def test_a_push_makes_the_repository_and_one_commit_with_all_files(server: HubServer, folder: Path) -> None:
    pushed = push(server, folder)

    repository = server.repositories[REPO]
    assert {name: data for name, data in repository.files.items() if name != ".gitattributes"} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    assert repository.commits == ["initial commit", "version mv-1"]
    assert (pushed.url, pushed.commit, pushed.changed) == (f"{server.url}/{REPO}", repository.head, True)
    assert not repository.private


def test_a_private_push_makes_a_private_repository(server: HubServer, folder: Path) -> None:
    push(server, folder, private=True)

    assert server.repositories[REPO].private


def test_the_same_push_again_makes_no_commit(server: HubServer, folder: Path) -> None:
    first = push(server, folder)
    second = push(server, folder)

    assert (second.commit, second.changed) == (first.commit, False)
    assert (commits(server), server.num_uploads) == (1, 1)


def test_weights_of_another_form_go_with_the_new_commit_and_other_files_stay(server: HubServer, folder: Path) -> None:
    push(server, folder)
    server.repositories[REPO].files["notes.md"] = b"mine"
    (folder / "adapter_model.safetensors").rename(folder / "model.safetensors")
    (folder / "adapter_config.json").rename(folder / "config.json")

    push(server, folder)

    assert set(server.repositories[REPO].files) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
        "notes.md",
    }


def test_a_push_that_was_cut_off_after_its_uploads_does_not_upload_again(server: HubServer, folder: Path) -> None:
    server.failures["/commit/"] = 503
    with pytest.raises(Unavailable, match=r"status 503: planned\); push again later, it continues"):
        push(server, folder)

    assert push(server, folder).changed
    assert server.num_uploads == 1


def test_a_commit_whose_answer_was_lost_is_found_by_the_next_push(server: HubServer, folder: Path) -> None:
    server.failures["/commit/"] = 0
    with pytest.raises(Unavailable, match="cannot be reached"):
        push(server, folder)

    assert not push(server, folder).changed
    assert len(server.repositories[REPO].commits) == 2


def test_somebody_elses_commit_in_between_is_a_conflict(server: HubServer, folder: Path) -> None:
    push(server, folder)
    (folder / "README.md").write_text(CARD + "more\n")
    server.failures["/commit/"] = 412

    with pytest.raises(Conflict, match="somebody else changed me/my-model meanwhile"):
        push(server, folder)


@pytest.mark.parametrize(
    ("token", "error", "words"),
    [
        ("hf_wrong", PermissionRefused, r"does not know the token in HF_TOKEN \(401: "),
        (READ_TOKEN, PermissionRefused, r"may not write to me/my-model \(403: "),
        ("", FailedPrecondition, "HF_TOKEN is not set"),
    ],
    ids=["wrong", "reads only", "none"],
)
def test_a_token_that_does_not_do_is_refused_with_the_fix_and_never_shown(
    server: HubServer,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    token: str,
    error: type[TunesmithError],
    words: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(error, match=words) as refused:
        push(server, folder, token=token)

    assert "hf_" not in str(refused.value)
    assert "hf_" not in caplog.text
    assert server.repositories == {}


def test_storage_that_refuses_is_told_with_its_status(server: HubServer, folder: Path) -> None:
    server.failures["/storage/"] = 400
    with pytest.raises(InvalidInput, match=r"does not take the push to me/my-model \(status 400: planned\)"):
        push(server, folder)


def test_uploads_go_to_storage_without_the_token(server: HubServer, folder: Path) -> None:
    push(server, folder)

    assert server.tokens_elsewhere == []


@pytest.mark.parametrize("name", ["no-owner", "me/a/b", "me/..", "me/-x", "me/" + "x" * 97, "me/a b", "", "/x"])
def test_a_name_that_the_hub_would_not_take_is_refused_before_anything_is_sent(
    server: HubServer, folder: Path, name: str
) -> None:
    with pytest.raises(InvalidInput, match="is no repository of the Hub"):
        push(server, folder, name)

    assert server.requests == []


@pytest.mark.parametrize("endpoint", ["ftp://host", "host", "https://me:secret@host", "http://hub.example"])
def test_an_endpoint_that_is_none_or_would_leak_the_token_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidInput, match="the Hub's endpoint") as refused:
        Hub(endpoint=endpoint, token=TOKEN)
    assert TOKEN not in str(refused.value)


def test_a_hub_that_is_away_is_unavailable(folder: Path, server: HubServer) -> None:
    away = HubServer(url="http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=r"the Hub at http://127\.0\.0\.1:9 cannot be reached"):
        push(away, folder)


def test_a_repository_that_disappears_is_not_found(server: HubServer, folder: Path) -> None:
    server.failures["/api/models/"] = 404
    with pytest.raises((NotFound, InvalidInput)):
        push(server, folder)
