"""What every launcher refuses before it starts anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.domain.errors import InvalidInput


def check_command(argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Raise InvalidInput for a command or environment that no process can have."""
    if not argv or not argv[0]:
        raise InvalidInput("a launch needs a program: argv is empty")
    if any("\0" in text for text in (*argv, *env, *env.values())):
        raise InvalidInput("a launch's arguments and environment must not contain NUL characters")
    for name in env:
        if not name or "=" in name:
            raise InvalidInput(f"{name!r} cannot be the name of an environment variable")
