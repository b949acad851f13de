"""`python -m tunesmith_trainer`: serve, or work on one job."""

from __future__ import annotations

import sys

from tunesmith.rpc.main import main
from tunesmith_trainer.bootstrap import build, works

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], name="trainer", build=build, works=works))
