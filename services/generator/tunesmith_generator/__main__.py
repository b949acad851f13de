"""`python -m tunesmith_generator`: serve, or work on one job."""

from __future__ import annotations

import sys

from tunesmith.rpc.main import main
from tunesmith_generator.bootstrap import build, works

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], name="generator", build=build, works=works))
