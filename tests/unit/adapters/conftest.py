"""Makes the doubles and the tools of the contract tests importable."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS / "doubles"), str(TESTS / "contract")]
