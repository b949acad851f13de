"""`python -m tunesmith_scraper`: serve, or work on one job."""

from __future__ import annotations

import sys

from tunesmith.rpc.main import main
from tunesmith_scraper.bootstrap import build, works

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], name="scraper", build=build, works=works))
