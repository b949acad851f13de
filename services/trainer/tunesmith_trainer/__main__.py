"""`python -m tunesmith_trainer`: serve, work on one job, or ask a server for its health."""

from __future__ import annotations

import sys


def run() -> int:
    """Do what the arguments say; returns the exit code."""
    if sys.argv[1:2] == ["health"]:  # asked every few seconds, so it goes without all that a service imports
        from tunesmith.rpc.health import main as health

        return health("trainer", *sys.argv[2:])
    from tunesmith.rpc.main import main
    from tunesmith_trainer.bootstrap import build, together, works

    return main(sys.argv[1:], name="trainer", build=build, works=works, together=together)


if __name__ == "__main__":
    sys.exit(run())
