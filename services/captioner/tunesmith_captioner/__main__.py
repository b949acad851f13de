"""`python -m tunesmith_captioner`: serve, or work on one job."""

from __future__ import annotations

import sys

from tunesmith.rpc.main import main
from tunesmith_captioner.bootstrap import build, works

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], name="captioner", build=build, works=works))
