"""`python -m tunesmith.cli`: the same as the `tunesmith` command."""

from __future__ import annotations

import sys

from tunesmith.cli import main

sys.exit(main())
