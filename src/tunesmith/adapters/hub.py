"""Model folders pushed to the Hugging Face Hub, or to another server that speaks its HTTP API."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from tunesmith.domain.errors import (
    Conflict,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PermissionRefused,
    TunesmithError,
    Unavailable,
    Unsupported,
)

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

HUB = "https://huggingface.co"

OURS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "adapter_config.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer*",
)
"""Files that a push owns: of these, what the folder does not hold is deleted, so that no weights of another form stay
beside the new ones. Other files of the repository are left alone."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push came to."""

    url: str
    commit: str
    """The newest commit of the repository."""
    changed: bool
    """False when the repository held the very files, and no commit was made."""


class Hub:
    """Pushes folders with a token that is sent to the Hub alone and appears in no message."""

    def __init__(self, *, endpoint: str, token: str) -> None:
        """InvalidInput for an endpoint that is no address, or that would get the token unencrypted."""
        self._endpoint = _checked_endpoint(endpoint or os.environ.get("HF_ENDPOINT") or HUB)
        self._token = token

    def check_name(self, repo_id: str) -> None:
        """InvalidInput unless `repo_id` is `owner/name` as the Hub writes them; FailedPrecondition without a token."""
        _load()
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        try:
            validate_repo_id(repo_id)
        except HFValidationError as error:
            raise _bad_name(repo_id, str(error)) from None
        if repo_id.count("/") != 1:
            raise _bad_name(repo_id, "it has no owner")
        if not self._token:
            raise FailedPrecondition(
                "HF_TOKEN is not set; make a token with write access in the Hub's settings and set HF_TOKEN to it",
                reason="NO_TOKEN",
            )

    def push(self, folder: Path, repo_id: str, *, private: bool, message: str) -> Pushed:
        """Put the folder's files into the repository in one commit, which is made unless it holds them already.

        The repository is made where there is none. Whoever was cut off may push again: what was uploaded is not
        uploaded again, and a commit whose answer was lost is found. Raises PermissionRefused (401, 403), NotFound,
        Conflict (somebody else pushed meanwhile), InvalidInput, Unavailable.
        """
        self.check_name(repo_id)
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        api = HfApi(endpoint=self._endpoint, token=self._token)
        files = sorted(path for path in folder.iterdir() if path.is_file())
        self._asked(repo_id, lambda: api.create_repo(repo_id, private=private or None, exist_ok=True))
        before = str(self._asked(repo_id, lambda: api.repo_info(repo_id)).sha or "")
        there = self._asked(repo_id, lambda: api.list_repo_files(repo_id))
        names = {path.name for path in files}
        stale = [n for n in there if n not in names and "/" not in n and any(fnmatch(n, pattern) for pattern in OURS)]
        operations: list[Any] = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in files]
        operations += [CommitOperationDelete(path_in_repo=name) for name in stale]
        made = self._asked(
            repo_id,
            lambda: api.create_commit(repo_id, operations, commit_message=message, parent_commit=before or None),
        )
        return Pushed(f"{self._endpoint}/{repo_id}", str(made.oid), made.oid != before)

    def _asked(self, repo_id: str, ask: Callable[[], _T]) -> _T:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
        from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined] # its HTTP client's

        try:
            try:
                return ask()
            except RuntimeError as error:
                # What uploading threads raise; the Hub's or the network's answer is behind it.
                if isinstance(error.__cause__, HfHubHTTPError | TransportError | OSError):
                    raise error.__cause__ from None
                raise
        except HfHubHTTPError as error:
            raise self._explained(repo_id, error) from None
        except HFValidationError as error:
            raise _bad_name(repo_id, str(error)) from None
        except (TransportError, OSError) as error:
            raise Unavailable(
                f"the Hub at {self._endpoint} cannot be reached ({type(error).__name__}: {_line(error)}); check the "
                "network and push again, it continues",
                reason="HUB_UNREACHABLE",
            ) from None
        except ValueError as error:  # what the Hub says about the model card, and replies that are none
            raise InvalidInput(
                f"the Hub at {self._endpoint} does not take this push: {_line(error)}", reason="HUB_REFUSED"
            ) from None

    def _explained(self, repo_id: str, error: HfHubHTTPError) -> TunesmithError:
        status = error.response.status_code if error.response is not None else 0
        said = _line(error.server_message or "") or f"status {status}"
        where = {"repo_id": repo_id, "status": str(status)}
        match status:
            case 401:
                return PermissionRefused(
                    f"the Hub at {self._endpoint} does not know the token in HF_TOKEN (401: {said}); make a new one "
                    "with write access",
                    reason="HUB_TOKEN_REFUSED",
                    metadata=where,
                )
            case 403:
                return PermissionRefused(
                    f"the token in HF_TOKEN may not write to {repo_id} (403: {said}); use one with write access to its "
                    "owner, or another owner",
                    reason="HUB_FORBIDDEN",
                    metadata=where,
                )
            case 404:
                return NotFound(f"the Hub at {self._endpoint} has no {repo_id} ({said})", metadata=where)
            case 409 | 412:
                return Conflict(f"somebody else changed {repo_id} meanwhile ({said}); push again", metadata=where)
            case 429 | 500 | 502 | 503 | 504:
                return Unavailable(
                    f"the Hub at {self._endpoint} is busy or broken (status {status}: {said}); push again later, it "
                    "continues",
                    reason="HUB_UNAVAILABLE",
                    metadata=where,
                )
            case _:
                return InvalidInput(
                    f"the Hub at {self._endpoint} does not take the push to {repo_id} (status {status}: {said})",
                    reason="HUB_REFUSED",
                    metadata=where,
                )


def _load() -> None:
    """Import the Hub's client, quiet and on plain HTTP: its Xet transfer speaks to servers of its own."""
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise Unsupported(
            f"pushing needs the Hub's client ({error}): pip install 'tunesmith[generator]'", reason="NO_HUB_CLIENT"
        ) from None


def _checked_endpoint(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise InvalidInput(
            f"the Hub's endpoint {endpoint[:200]!r} is no address: write https://host", metadata={"field": "endpoint"}
        )
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise InvalidInput(
            f"the Hub's endpoint {endpoint[:200]!r} would get the token unencrypted: write https://",
            metadata={"field": "endpoint"},
        )
    return endpoint.rstrip("/")


def _bad_name(repo_id: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"{repo_id[:100]!r} is no repository of the Hub ({_line(why)}); write owner/name, of letters, digits, '-', '_' "
        "and '.'",
        metadata={"field": "repo_id", "value": repo_id[:100]},
    )


def _line(text: object) -> str:
    return " ".join(str(text).split())[:300]
