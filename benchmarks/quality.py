"""What a tuned model is worth, beside its base and a character 5-gram of the same rows. Runs the whole chain once.

Run: python benchmarks/quality.py [--recipe NAME] [--source FILE_OR_URL]
Bars for micro_genre with some 2,000 names: valid >= 95 %, novel >= 60 %, distinct >= 90 % of 500 samples, the base near
0 % valid, bits per character at or below the 5-gram's (Witten-Bell, interpolated); the run at most 120 s on 2 cores and
2 GiB. Other recipes: the bars of their gates; the run at most 300 s and 2 GiB.
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
from collections.abc import Mapping
from typing import Any

import psutil

MICRO_GENRE = "micro_genre"
BARS = {"valid_share": (">=", 0.95), "novel_share": (">=", 0.60), "distinct_share": (">=", 0.90)}
"""Of micro_genre; stricter than its gates."""
SHOWN = ("valid", "novel", "distinct_s", "bits_per_char")
MAX_WALL_S = {MICRO_GENRE: 120.0}
MAX_WALL_S_OF_OTHERS = 300.0


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


def run_chain(recipe: str, source: str) -> tuple[dict[str, Any], float, float, int]:
    """The run's JSON document, its wall and CPU seconds, and the peak memory of all its processes in bytes."""
    with tempfile.TemporaryDirectory() as data:
        argv = [sys.executable, "-m", "tunesmith.cli", "--json", "--data", data, "run", recipe]
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
    parser.add_argument("--recipe", default=MICRO_GENRE)
    parser.add_argument("--source", default="", help="what `tunesmith run` takes; default: the recipe's sample")
    given = parser.parse_args()
    document, wall_s, cpu_s, peak_bytes = run_chain(given.recipe, given.source)
    report = document["report"]
    metrics = {subject: row["measures"] for subject, row in report["metrics"].items()}
    gates = {gate["metric"]: gate for gate in report["gates"]}
    print(f"{'':32} {'base':>8} {'tuned':>8}   95 % interval      bar")
    for name, measure in metrics["candidate"].items():
        if "minus" in name or not (name in gates or name.startswith(SHOWN)):
            continue
        base = metrics["base"].get(name, {}).get("value", float("nan"))
        low, high = measure.get("low", 0.0), measure.get("high", 0.0)
        bar = _bar(given.recipe, name, measure["value"], gates)
        print(f"{name:32} {base:8.3f} {measure['value']:8.3f}   {low:.3f} to {high:.3f}   {bar}")
    five_gram = report["anchors"]["five_gram_bits_per_char"]
    tuned = metrics["candidate"]["bits_per_char"]["value"]
    verdict = "at or below" if tuned <= five_gram else "ABOVE"
    print(f"{'5-gram bits_per_char':32} {'':8} {five_gram:8.3f}   peer; tuned is {verdict}")
    refused = [gate["detail"] for gate in report["gates"] if not gate.get("passed")]
    print(f"{'gates':32} {'passed' if document['passed'] else 'REFUSED'}", *refused, sep="\n  ")
    limit_s = MAX_WALL_S.get(given.recipe, MAX_WALL_S_OF_OTHERS)
    print(f"{'wall s':32} {wall_s:8.1f}   bar {limit_s:.0f}{'' if wall_s <= limit_s else '  NOT MET'}")
    print(f"{'CPU s':32} {cpu_s:8.1f}   on 2 idle cores the wall time is a little over half of it")
    print(f"{'peak memory MiB':32} {peak_bytes / 2**20:8.0f}   bar 2048{'' if peak_bytes <= 2**31 else '  NOT MET'}")


def _bar(recipe: str, name: str, value: float, gates: Mapping[str, Mapping[str, Any]]) -> str:
    if recipe == MICRO_GENRE and name in BARS:
        sign, limit = BARS[name]
        return f"{sign} {limit}{'  met' if value >= limit else '  NOT MET'}"
    if gate := gates.get(name):
        return f"{gate['comparison']} {gate.get('limit', 0.0):.3g}{'  met' if gate.get('passed') else '  NOT MET'}"
    return ""


if __name__ == "__main__":
    main()
