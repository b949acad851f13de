"""Artifacts on MinIO beside the bare SDK, and small objects on every store. Run: python benchmarks/store.py

Bar: throughput of put_file and get_file at least 0.9 of the SDK's fput_object and fget_object on the same server, in
turns, best of several. Small objects: the median and the 99th percentile of reading, writing and replacing 1 KB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import urllib3
from minio import Minio

from tunesmith.adapters.local_store import LocalStore
from tunesmith.adapters.minio_setup import make_buckets
from tunesmith.adapters.minio_store import MinioStore
from tunesmith.ports.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import real_parts as parts

BUCKET = "bench"
BAR = 0.9
MIB = 1 << 20


def throughput(store: MinioStore, server: parts.Minio, folder: Path, *, size_mib: int, turns: int) -> bool:
    """Print MiB/s of both; whether the bar is kept."""
    bare = Minio(
        f"127.0.0.1:{server.port}",
        access_key=server.access_key,
        secret_key=server.secret_key,
        secure=False,
        region="us-east-1",
        http_client=urllib3.PoolManager(maxsize=10),
    )
    source, target = folder / "in", folder / "out"
    with source.open("wb") as file:
        for _ in range(size_mib):
            file.write(os.urandom(MIB))
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "put": (
            lambda: store.put_file("artifact", source),
            lambda: bare.fput_object(BUCKET, "bare", str(source)),
        ),
        "get": (
            lambda: store.get_file("artifact", target),
            lambda: bare.fget_object(BUCKET, "bare", str(target)),
        ),
    }
    kept = True
    for name, (ours, theirs) in pairs.items():
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(turns):
            # Whoever is first finds a colder disk, so they take turns.
            for which in (0, 1) if turn % 2 else (1, 0):
                target.unlink(missing_ok=True)
                started_s = time.perf_counter()
                (ours, theirs)[which]()
                times[which].append(time.perf_counter() - started_s)
        speeds = [size_mib / min(taken) for taken in times]
        share = speeds[0] / speeds[1]
        kept = kept and share >= BAR
        print(f"{name} {size_mib:>4} MiB   ours {speeds[0]:7.0f} MiB/s   bare SDK {speeds[1]:7.0f} MiB/s   {share:.2f}")
    return kept


def latency(name: str, store: Store, *, count: int) -> None:
    """Print how long small objects take."""
    data = os.urandom(1000)

    def timed(action: Callable[[int], object]) -> str:
        taken_ms = []
        for number in range(count):
            started_s = time.perf_counter()
            action(number)
            taken_ms.append((time.perf_counter() - started_s) * 1000)
        return f"{statistics.median(taken_ms):6.2f} / {statistics.quantiles(taken_ms, n=100)[98]:6.2f}"

    version = store.create("state", b"0")

    def replace(number: int) -> None:
        nonlocal version
        version = store.replace("state", b"%d" % number + data, version=version)

    rows = {
        "create": timed(lambda n: store.create(f"small/{n:05d}", data)),
        "get": timed(lambda n: store.get(f"small/{n:05d}")),
        "replace": timed(replace),
    }
    print(f"{name:<8}" + "   ".join(f"{what} {figures} ms" for what, figures in rows.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures; 1 when the bar is missed or there is no MinIO here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--count", type=int, default=300)
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            server = parts.minio(folder / "minio")
        except parts.PartMissing as missing:
            print(f"MinIO left out: {missing}")
            return 1
        with parts.running(server):
            url = f"s3://{BUCKET}?endpoint={server.endpoint}"
            store = MinioStore.open(url, access_key=server.access_key, secret_key=server.secret_key)
            make_buckets(store.connection)
            kept = [throughput(store, server, folder, size_mib=mib, turns=given.turns) for mib in given.mib]
            print("1 KB, p50 / p99")
            latency("minio", store, count=given.count)
        latency("local", LocalStore(folder / "store"), count=given.count)
    print(f"bar: at least {BAR} of the bare SDK: {'kept' if all(kept) else 'MISSED'}")
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
