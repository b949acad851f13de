"""How long a person waits: `tunesmith --help`, and until four services answer. Run: python benchmarks/startup.py

Bars: help <= 0.3 s, four services up <= 1 s. The peer of each is a bare Python process that does the least of its kind.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 7

BARE_PYTHON = "pass"
BARE_CLICK = "import click; click.Command('x').main(['--help'], standalone_mode=False)"
BARE_GRPC = """
import asyncio, grpc
async def main():
    server = grpc.aio.server(); server.add_insecure_port('127.0.0.1:0'); await server.start(); print('up', flush=True)
asyncio.run(main())
"""


def seconds(argv: list[str], *, until: str = "") -> float:
    """Median wall time of `argv`, to its end, or to the first line of output that holds `until`."""
    times = []
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if until and until in line:
                    break
            else:
                process.wait()
            times.append(time.perf_counter() - began_s)
            process.terminate()
            process.communicate()
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder, "data"))
        up = [python, "-m", "tunesmith.cli", "--data", data, "up", "--listen", "127.0.0.1:0"]
        rows = [
            ("tunesmith --help", seconds([python, "-m", "tunesmith.cli", "--help"]), 0.3),
            ("  peer: click alone", seconds([python, "-c", BARE_CLICK]), None),
            ("  peer: python alone", seconds([python, "-c", BARE_PYTHON]), None),
            ("four services up", seconds(up, until="127.0.0.1:"), 1.0),
            ("  peer: empty grpc.aio server", seconds([python, "-c", BARE_GRPC], until="up"), None),
        ]
    print(f"{'':32} {'median s':>9} {'bar s':>7}   ({ROUNDS} rounds)")
    for name, value, bar in rows:
        verdict = "" if bar is None else ("  met" if value <= bar else "  NOT MET")
        print(f"{name:32} {value:9.3f} {bar if bar is not None else '':>7}{verdict}")


if __name__ == "__main__":
    main()
