"""The launcher: starts a job's work somewhere it can die alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

LaunchState = Literal["absent", "running", "exited", "lost", "stuck"]

OUT_OF_MEMORY = "OUT_OF_MEMORY"
"""`reason` of a launch that was killed because it wanted more memory than its own limit."""


@dataclass(frozen=True, slots=True)
class LaunchStatus:
    """What is known of a launch.

    `absent`: never launched under that name. `running`: alive. `exited`: ended with `exit_code` (negative: by that
    signal). `lost`: it ran and is gone, and nobody saw how it ended (power cut, launcher killed). `stuck`: it could not
    begin for longer than the launcher waits for that; it may still begin unless it is stopped.
    """

    state: LaunchState
    exit_code: int | None = None
    log_tail: str = ""
    """The last lines it printed, at most 4 KiB."""
    reason: str = ""
    """A stable UPPER_SNAKE word, where the platform tells why it ended, is stuck, or (running) has not begun yet."""
    message: str = ""
    """That in a sentence, with the fix."""
    fatal: bool = False
    """Whether launching the same again would end the same."""


class Launcher(Protocol):
    """Starts processes by name, at most once a name, whatever dies meanwhile. Thread-safe."""

    @property
    def scope(self) -> str:
        """Who sees its launches: a name kept beside them, the same after a restart; empty when every replica does."""
        ...

    def launch(self, name: str, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
        """Start `argv` under `name` with `env` added to the launcher's own environment.

        A name that was launched before is success and starts nothing, even after it ended. The process outlives the
        launcher. Raises Unavailable when nothing can be started now or it is not known whether it was,
        ResourceExhausted while a quota is used up, PermissionRefused or FailedPrecondition when the surroundings do
        not allow it, InvalidInput for a program that can never start.
        """
        ...

    def status(self, name: str) -> LaunchStatus:
        """What is known of `name`. Raises Unavailable while that cannot be told: unknown is not absent."""
        ...

    def stop(self, name: str, *, grace_s: float) -> None:
        """Ask it to end (SIGTERM), and make it (SIGKILL) after `grace_s`. Returns when it is gone."""
        ...

    def names(self, prefix: str = "") -> Sequence[str]:
        """Names known to the launcher, for finding leftovers."""
        ...

    def forget(self, name: str) -> None:
        """Remove what is kept of a launch; the name may then be used again. FailedPrecondition while it is running."""
        ...

    def retire(self, name: str) -> None:
        """Its outcome is recorded elsewhere: what is kept of an ended launch, such as logs, may go after a while."""
        ...
