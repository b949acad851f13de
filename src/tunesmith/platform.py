"""The adapters that a process works with, chosen by the settings' URLs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.sqlite_bus import SqliteBus
from tunesmith.adapters.subprocess_launcher import SubprocessLauncher
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain.errors import InvalidSettings
from tunesmith.jobs.state import JobStore
from tunesmith.ports.bus import EventBus
from tunesmith.ports.clock import Clock
from tunesmith.ports.launcher import Launcher
from tunesmith.ports.store import Store
from tunesmith.settings import Settings


@dataclass(frozen=True, slots=True)
class Platform:
    """One of each port, and the job store over them."""

    settings: Settings
    store: Store
    bus: EventBus
    launcher: Launcher
    clock: Clock
    jobs: JobStore

    @staticmethod
    def open(settings: Settings) -> Platform:
        """Open what the settings name; InvalidSettings for a URL that no adapter is for."""
        data = settings.data
        data.mkdir(parents=True, exist_ok=True)
        clock = SystemClock()
        store = LocalStore(_local_path(settings.store, "file", "TUNESMITH_STORE", default=data / "store"))
        bus = SqliteBus(_local_path(settings.bus, "sqlite", "TUNESMITH_BUS", default=data / "bus.sqlite"), clock=clock)
        launcher = SubprocessLauncher(data / "launches")
        return Platform(settings, store, bus, launcher, clock, JobStore(store, clock))

    def close(self) -> None:
        """Release connections."""
        self.bus.close()


def _local_path(url: str, scheme: str, setting: str, *, default: Path) -> Path:
    if not url:
        return default
    parts = urlsplit(url)
    if parts.scheme != scheme or parts.netloc or not parts.path.startswith("/"):
        raise InvalidSettings(
            f"{setting}={url!r} names no adapter of this version: write {scheme}:///absolute/path",
            metadata={"setting": setting, "value": url},
        )
    return Path(unquote(parts.path))
