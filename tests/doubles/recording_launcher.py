"""A launcher whose processes are names: a test says how each of them ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.ports.launcher import LaunchStatus


class RecordingLauncher:
    """For unit tests of what drives a launcher; starts nothing."""

    def __init__(self, scope: str = "") -> None:
        self.scope = scope
        self.launched: list[str] = []
        self.argv: dict[str, Sequence[str]] = {}
        self.stopped: list[str] = []
        self.retired: list[str] = []
        self.env: dict[str, Mapping[str, str]] = {}
        self._status: dict[str, LaunchStatus] = {}

    def launch(self, name: str, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
        """Note a name once, and call it running."""
        if name not in self._status:
            self.launched.append(name)
            self.argv[name] = argv
            self.env[name] = env
            self._status[name] = LaunchStatus("running")

    def status(self, name: str) -> LaunchStatus:
        """What `end` said last."""
        return self._status.get(name, LaunchStatus("absent"))

    def end(self, name: str, status: LaunchStatus) -> None:
        """Let the process be found like this from now on."""
        self._status[name] = status

    def stop(self, name: str, *, grace_s: float) -> None:
        """Note it, and let the process be gone."""
        self.stopped.append(name)
        self._status[name] = LaunchStatus("exited", -15)

    def names(self, prefix: str = "") -> Sequence[str]:
        """Every name that was launched."""
        return [name for name in self._status if name.startswith(prefix)]

    def forget(self, name: str) -> None:
        """Unlearn a name."""
        self._status.pop(name, None)

    def retire(self, name: str) -> None:
        """Note it."""
        self.retired.append(name)
