"""What a tuned model is worth, beside its base and a character 5-gram of the same rows. Runs the whole chain once.

Run: python benchmarks/quality.py [--source FILE_OR_URL]
Bars for some 2,000 names: valid >= 95 %, novel >= 60 %, distinct >= 90 % of 500 samples, the base near 0 % valid, bits
per character at or below the 5-gram's (Witten-Bell, interpolated); the run at most 120 s on 2 cores and 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import psutil

BARS = {"valid_share": (">=", 0.95), "novel_share": (">=", 0.60), "distinct_share": (">=", 0.90)}


class PeakMemory:
    """Sums the unique memory of a process and its children, and remembers the largest sum."""

    def __init__(self, process: psutil.Process) -> None:
        self.peak_bytes = 0
        self._process = process
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self.peak_bytes = max(self.peak_bytes, sum(_unique_bytes(p) for p in self._family()))

    def _family(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _unique_bytes(process: psutil.Process) -> int:
    """Memory that would be free if this process ended; what processes share is not counted twice."""
    try:
        return int(process.memory_full_info().uss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def run_chain(source: str) -> tuple[dict[str, Any], float, float, int]:
    """The run's JSON document, its wall and CPU seconds, and the peak memory of all its processes in bytes."""
    with tempfile.TemporaryDirectory() as data:
        argv = [sys.executable, "-m", "tunesmith.cli", "--json", "--data", data, "run", "micro_genre"]
        argv += ["--source", source] if source else []
        began_s = time.perf_counter()
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            with PeakMemory(psutil.Process(process.pid)) as memory:
                output, _ = process.communicate()
            if process.returncode not in (0, 3):
                sys.exit(f"the run ended with exit code {process.returncode}")
        wall_s, used = time.perf_counter() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
        return json.loads(output), wall_s, used.ru_utime + used.ru_stime, memory.peak_bytes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--source", default="", help="a list or table with a column `name`; default: the sample list")
    document, wall_s, cpu_s, peak_bytes = run_chain(parser.parse_args().source)
    report = document["report"]
    metrics = {subject: row["measures"] for subject, row in report["metrics"].items()}
    print(f"{'':24} {'base':>8} {'tuned':>8}   95 % interval      bar")
    for name, measure in metrics["candidate"].items():
        if name.startswith(("valid", "novel", "distinct_s", "bits_per_char")) and "minus" not in name:
            base = metrics["base"].get(name, {}).get("value", float("nan"))
            sign, limit = BARS.get(name, ("", None))
            bar = "" if limit is None else f"{sign} {limit}{'  met' if measure['value'] >= limit else '  NOT MET'}"
            low, high = measure.get("low", 0.0), measure.get("high", 0.0)
            print(f"{name:24} {base:8.3f} {measure['value']:8.3f}   {low:.3f} to {high:.3f}   {bar}")
    five_gram = report["anchors"]["five_gram_bits_per_char"]
    tuned = metrics["candidate"]["bits_per_char"]["value"]
    verdict = "at or below" if tuned <= five_gram else "ABOVE"
    print(f"{'5-gram bits_per_char':24} {'':8} {five_gram:8.3f}   peer; tuned is {verdict}")
    print(f"{'gates':24} {'passed' if document['passed'] else 'REFUSED'}")
    print(f"{'wall s':24} {wall_s:8.1f}   bar 120{'' if wall_s <= 120 else '  NOT MET'}")
    print(f"{'CPU s':24} {cpu_s:8.1f}   on 2 idle cores the wall time is a little over half of it")
    print(f"{'peak memory MiB':24} {peak_bytes / 2**20:8.0f}   bar 2048{'' if peak_bytes <= 2**31 else '  NOT MET'}")


if __name__ == "__main__":
    main()
