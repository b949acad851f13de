"""For all tests."""

from __future__ import annotations

import signal

# Tests press Ctrl-C in processes of their own, which inherit what is set here: a shell that starts the tests in the
# background leaves SIGINT ignored, and then no child would ever notice.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["fixtures_real_parts", "fixtures_places"]
