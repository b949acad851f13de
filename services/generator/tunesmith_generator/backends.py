"""What `TUNESMITH_GENERATOR_BACKEND` names, read: which servers answer, and what they speak."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from tunesmith.domain.errors import InvalidSettings, Unavailable
from tunesmith.ports.language_model import Adapter
from tunesmith.ports.store import Store
from tunesmith.servable import ADAPTER_FILES
from tunesmith_generator.runners.adapter_files import fetched

SETTING = "TUNESMITH_GENERATOR_BACKEND"
KEY_SETTING = "TUNESMITH_GENERATOR_BACKEND_API_KEY"

MAX_BACKENDS = 256
_OPTIONS = {
    "tgi": {"base", "discover"},
    "openai": {"base", "discover", "model", "adapters", "adapters_there"},
}


@dataclass(frozen=True, slots=True)
class BackendUrl:
    """The setting, read. `kind` `embedded` leaves the rest empty."""

    kind: Literal["embedded", "tgi", "openai"]
    addresses: tuple[str, ...] = ()
    """Of servers, or `file:///path` of a list of them."""
    base: str = ""
    """Name of the base that the servers serve, where they show only a path."""
    discover: bool = False
    """Every IP address that a host name stands for is a server."""
    model: str = ""
    adapters: str = ""
    """Folder for adapters that are loaded at run time."""
    adapters_there: str = ""
    """The same folder as the servers see it; empty for the same path."""


def read_backend(setting: str) -> BackendUrl:
    """Raises InvalidSettings for what names no backend, or carries a password."""
    if setting == "embedded":
        return BackendUrl("embedded")
    kind, _, rest = setting.partition("+")
    listed, _, query = rest.partition("?")
    addresses = tuple(address.strip().rstrip("/") for address in listed.split(",") if address.strip())
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = _OPTIONS.get(kind, set())
    if not known or not addresses or not options.keys() <= known or options.get("discover", "dns") != "dns":
        raise _wrong(setting)
    if not all(_is_address(address) for address in addresses):
        raise _wrong(setting)
    return BackendUrl(
        kind="tgi" if kind == "tgi" else "openai",
        addresses=addresses,
        base=options.get("base", ""),
        discover="discover" in options,
        model=options.get("model", ""),
        adapters=options.get("adapters", ""),
        adapters_there=options.get("adapters_there", ""),
    )


class BackendList:
    """The servers' addresses as they are now. A file holds one a line; `#` begins a comment."""

    def __init__(self, url: BackendUrl) -> None:
        self._url = url

    async def __call__(self) -> Sequence[str]:
        """Raises Unavailable when a file cannot be read or a name not be resolved."""
        found: list[str] = []
        for address in self._url.addresses:
            if address.startswith("file://"):
                found += await asyncio.to_thread(_listed_in, Path(urlsplit(address).path))
            else:
                found.append(address)
        if self._url.discover:
            found = [each for address in found for each in await _resolved(address)]
        if self._url.kind == "openai":
            found = [address if urlsplit(address).path else f"{address}/v1" for address in found]
        return found[:MAX_BACKENDS]


class SharedAdapterFolder:
    """Adapter files where the servers read them too; each version in a folder of its own, which never changes."""

    def __init__(self, folder: Path, *, there: str, store: Store, cache_dir: Path) -> None:
        self._folder = folder
        self._there = there or str(folder)
        self._store = store
        self._cache_dir = cache_dir

    def place(self, adapter: Adapter) -> str:
        """Fetch and check the files, put them there under the adapter's name; gives the path as the servers see it.

        Raises what `adapter_files.fetched` raises, and Unavailable when the folder cannot be written.
        """
        target = self._folder / adapter.name
        if not target.is_dir():
            with fetched(adapter, store=self._store, cache_dir=self._cache_dir) as files:
                try:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    with tempfile.TemporaryDirectory(dir=self._folder, prefix=".placing-") as name:
                        whole = Path(name) / adapter.name
                        whole.mkdir(mode=0o755)
                        for file in ADAPTER_FILES:
                            shutil.copyfile(files / file, whole / file)
                        # Another replica of the generator may have been faster; its files are the same.
                        with suppress(FileExistsError):
                            whole.rename(target)
                except OSError as error:
                    if not target.is_dir():
                        raise Unavailable(
                            f"adapter {adapter.name} cannot be put into {self._folder} ({error}); make the folder "
                            f"of {SETTING} writable, and big enough",
                            reason="ADAPTER_FOLDER",
                        ) from error
        return f"{self._there.rstrip('/')}/{adapter.name}"

    def remove(self, name: str) -> None:
        """Delete an adapter's folder."""
        shutil.rmtree(self._folder / name, ignore_errors=True)


def _is_address(address: str) -> bool:
    parts = urlsplit(address)
    if parts.scheme == "file":
        return not parts.netloc and parts.path.startswith("/")
    try:
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        return False
    named = bool(parts.hostname) and parts.username is None and parts.password is None
    return parts.scheme in ("http", "https") and named and port_is_right


def _listed_in(file: Path) -> Sequence[str]:
    try:
        text = file.read_text()
    except (OSError, ValueError) as error:
        raise Unavailable(f"the list of backends {file} cannot be read ({error})", reason="BACKEND_LIST") from error
    lines = [line.partition("#")[0].strip().rstrip("/") for line in text.splitlines()]
    wrong = [line for line in lines if line and not (_is_address(line) and not line.startswith("file:"))]
    if wrong:
        raise Unavailable(
            f"line {wrong[0][:80]!r} of {file} is no address; write one http://host:port a line", reason="BACKEND_LIST"
        )
    return [line for line in lines if line]


async def _resolved(address: str) -> Sequence[str]:
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        rows = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"{parts.hostname} cannot be resolved ({error})", reason="BACKEND_LIST") from error
    hosts = dict.fromkeys(str(row[4][0]) for row in rows)
    return [
        parts._replace(netloc=f"[{host}]:{port}" if ":" in host else f"{host}:{port}").geturl()
        for host in sorted(hosts)
    ]


def _wrong(setting: str) -> InvalidSettings:
    shown = setting if "@" not in setting else "…"
    return InvalidSettings(
        f"{SETTING}={shown[:200]!r} names no backend: write embedded, tgi+http://host:8080[,http://other:8080] or "
        "openai+http://host:8000?adapters=/shared/folder; options are base, discover=dns and, for openai, model, "
        f"adapters and adapters_there; a key goes into {KEY_SETTING}",
        metadata={"setting": SETTING},
    )
