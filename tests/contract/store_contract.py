"""What every store must do; an adapter's test gives the `opener` fixture."""

from __future__ import annotations

import hashlib
import random
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from contract.processes import Reporter, running
from tunesmith.domain.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from tunesmith.ports.store import Store

Opener = Callable[[], Store]
"""Opens the store anew; can be sent to another process."""

NUM_THREADS = 16

SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
"""Hypothesis warns of fixtures that are not made anew for each example, and of tests that several classes inherit."""
_ALPHABET = "abzAZ09._=-"
_SEGMENTS = st.text(_ALPHABET, min_size=1, max_size=6).filter(lambda text: text not in (".", ".."))
KEYS = st.lists(_SEGMENTS, min_size=1, max_size=4).map("/".join)
_runs = count()


class StoreContract:
    """Subclass it with an `opener` fixture."""

    @pytest.fixture
    def opener(self) -> Opener:
        """How to open the store under test."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, opener: Opener) -> Store:
        """The store under test."""
        return opener()

    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 20_000], ids=["empty", "byte", "5MB"])
    def test_what_was_written_is_read(self, store: Store, data: bytes) -> None:
        version = store.put("folder/object", data)

        stored = store.get("folder/object")

        assert (stored.key, stored.data, stored.version) == ("folder/object", data, version)
        assert store.exists("folder/object")

    def test_what_was_written_is_read_by_another(self, store: Store, opener: Opener) -> None:
        store.put("a", b"1")

        assert opener().get("a").data == b"1"

    def test_a_missing_object_is_not_found(self, store: Store, tmp_path: Path) -> None:
        store.put("folder/object", b"")

        assert not store.exists("nothing")
        assert not store.exists("folder")
        for missing in ("nothing", "nothing/at/all", "folder", "folder/other"):
            with pytest.raises(NotFound, match=missing):
                store.get(missing)
            with pytest.raises(NotFound):
                store.replace(missing, b"", version="0" * 64)
            with pytest.raises(NotFound):
                store.get_file(missing, tmp_path / "target")
        assert list(tmp_path.glob("target*")) == []

    def test_put_overwrites(self, store: Store) -> None:
        store.put("a", b"a longer first one")

        version = store.put("a", b"second")

        assert (store.get("a").data, store.get("a").version) == (b"second", version)

    def test_create_refuses_what_exists(self, store: Store) -> None:
        store.create("a", b"first")

        with pytest.raises(AlreadyExists, match="a"):
            store.create("a", b"second")

        assert store.get("a").data == b"first"

    def test_replace_takes_only_the_current_version(self, store: Store) -> None:
        first = store.create("a", b"first")
        second = store.replace("a", b"second", version=first)

        with pytest.raises(Conflict, match="a"):
            store.replace("a", b"third", version=first)

        assert (store.get("a").data, store.get("a").version) == (b"second", second)

    def test_put_makes_older_versions_stale(self, store: Store) -> None:
        first = store.create("a", b"first")
        store.put("a", b"second")

        with pytest.raises(Conflict):
            store.replace("a", b"third", version=first)

    def test_delete_removes_and_may_be_repeated(self, store: Store) -> None:
        version = store.create("folder/a", b"1")

        store.delete("folder/a")
        store.delete("folder/a")
        store.delete("never/was")

        assert not store.exists("folder/a")
        with pytest.raises(NotFound):
            store.replace("folder/a", b"2", version=version)
        store.create("folder/a", b"3")
        assert store.get("folder/a").data == b"3"

    def test_deleting_one_object_leaves_its_neighbours(self, store: Store) -> None:
        for key in ("folder/a", "folder/ab", "folder/sub/a"):
            store.put(key, key.encode())

        store.delete("folder/a")

        assert [info.key for info in store.list("folder")] == ["folder/ab", "folder/sub/a"]

    def test_a_name_that_was_a_folder_can_become_an_object(self, store: Store) -> None:
        store.put("a/b/c", b"")
        store.delete("a/b/c")

        store.create("a", b"now an object")

        assert store.get("a").data == b"now an object"

    def test_listing_is_in_the_byte_order_of_whole_keys(self, store: Store) -> None:
        keys = ["a-b/x", "a.b", "a/b", "a/b-c", "a/b.d/e", "a0", "B", "=", "a=/x", "_", ".hidden/x", "-"]
        for key in keys:
            store.put(key, key.encode())

        listed = list(store.list(""))

        assert [info.key for info in listed] == sorted(keys)
        assert [info.size_bytes for info in listed] == [len(key) for key in sorted(keys)]
        assert all(info.modified_s > 1e9 for info in listed)

    def test_a_prefix_may_end_within_a_segment(self, store: Store) -> None:
        for key in ("jobs/ab/state", "jobs/abc/state", "jobs/b/state", "jobs-active/ab"):
            store.put(key, b"")

        def keys(prefix: str) -> list[str]:
            return [info.key for info in store.list(prefix)]

        assert keys("jobs/ab") == ["jobs/ab/state", "jobs/abc/state"]
        assert keys("jobs/ab/") == ["jobs/ab/state"]
        assert keys("jobs") == ["jobs-active/ab", "jobs/ab/state", "jobs/abc/state", "jobs/b/state"]
        assert keys("jobs/ab/state") == ["jobs/ab/state"]
        assert keys("jobs/x/y") == []

    @settings(max_examples=25, deadline=None, suppress_health_check=SUPPRESSED)
    @given(keys=st.sets(KEYS, max_size=8), after=KEYS, cut=st.integers(0, 8))
    @example(keys={"a.b", "a/b", "a-b", "a/c/d"}, after="a/b", cut=1)
    def test_listing_agrees_with_sorting_and_filtering(
        self, store: Store, keys: set[str], after: str, cut: int
    ) -> None:
        assume(not any(other.startswith(f"{key}/") for key in keys for other in keys))
        root = f"run{next(_runs)}/"
        prefix = root + (min(keys)[:cut] if keys else "")
        assume(not prefix.endswith(("/.", "/..")))
        for key in keys:
            store.create(root + key, b"")

        listed = [info.key for info in store.list(prefix, start_after=root + after)]

        assert listed == sorted(k for k in (root + key for key in keys) if k.startswith(prefix) and k > root + after)

    def test_pages_add_up_to_the_whole_listing(self, store: Store) -> None:
        keys = [f"p/{n // 7}/{n:03d}" for n in range(50)]
        for key in keys:
            store.put(key, b"")

        paged: list[str] = []
        while page := [
            info.key for _, info in zip(range(9), store.list("p/", start_after=(paged or [""])[-1]), strict=False)
        ]:
            paged += page

        assert paged == sorted(keys)

    def test_deleting_while_listing_skips_nothing_else(self, store: Store) -> None:
        keys = [f"d/{n:03d}/x" for n in range(30)]
        for key in keys:
            store.put(key, b"")

        listed = []
        for info in store.list("d/"):
            listed.append(info.key)
            store.delete(info.key)

        assert listed == keys
        assert list(store.list("d/")) == []

    @settings(max_examples=30, deadline=None, suppress_health_check=SUPPRESSED)
    @given(key=KEYS)
    @example(key="/".join(["k" * 63] * 8))
    @example(key=".a")
    @example(key="...")
    def test_every_valid_key_names_an_object(self, store: Store, key: str) -> None:
        store.put(key, key.encode())

        assert store.get(key).data == key.encode()
        assert key in [info.key for info in store.list(key)]
        store.delete(key)

    @settings(max_examples=100, deadline=None, suppress_health_check=SUPPRESSED)
    @given(
        key=st.one_of(
            st.text(max_size=20),
            st.tuples(
                KEYS, st.sampled_from(["/", "//", "/../", "/./", "\\", "\0", "\n", " ", "~", "é", "%2e"]), KEYS
            ).map("".join),
            st.tuples(st.sampled_from(["/", "../", "./"]), KEYS).map("".join),
            st.tuples(KEYS, st.sampled_from(["/", "/..", "/.", "\n"])).map("".join),
        )
    )
    @example(key="")
    @example(key="..")
    @example(key="a/../../etc/passwd")
    @example(key="/etc/passwd")
    @example(key="a\n")
    @example(key="k" * 513)
    @example(key="/".join(["k" * 64] * 8))
    def test_an_invalid_key_is_refused_everywhere(self, store: Store, tmp_path: Path, key: str) -> None:
        allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._=-/")
        segments = key.split("/")
        assume(len(key) > 512 or not set(key) <= allowed or any(s in ("", ".", "..") for s in segments))
        source = tmp_path / "source"
        source.write_bytes(b"")
        calls: list[Callable[[], object]] = [
            lambda: store.get(key),
            lambda: store.exists(key),
            lambda: store.put(key, b""),
            lambda: store.create(key, b""),
            lambda: store.replace(key, b"", version=""),
            lambda: store.delete(key),
            lambda: store.put_file(key, source),
            lambda: store.get_file(key, tmp_path / "target"),
        ]

        for call in calls:
            with pytest.raises(InvalidInput):
                call()

        assert list(store.list("")) == []

    @pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//b", "a\0", "é", "./"])
    def test_an_invalid_prefix_is_refused(self, store: Store, prefix: str) -> None:
        with pytest.raises(InvalidInput):
            list(store.list(prefix))

    def test_files_go_in_and_out(self, store: Store, tmp_path: Path) -> None:
        content = random.Random(1).randbytes(6 << 20)
        (tmp_path / "in").write_bytes(content)
        (tmp_path / "out").write_bytes(b"an older file")

        store.put_file("f", tmp_path / "in")
        store.get_file("f", tmp_path / "out")

        assert (tmp_path / "out").read_bytes() == content
        assert store.get("f").data == content
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in", "out"]

    def test_files_take_bounded_memory(self, store: Store, tmp_path: Path) -> None:
        with (tmp_path / "in").open("wb") as file:
            file.truncate(96 << 20)
        tracemalloc.start()
        try:
            store.put_file("f", tmp_path / "in")
            store.get_file("f", tmp_path / "out")
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert peak_bytes < 32 << 20
        assert (tmp_path / "out").stat().st_size == 96 << 20

    def test_of_racing_creators_exactly_one_wins(self, store: Store) -> None:
        for key in (f"race/{n}" for n in range(10)):

            def create(number: int, key: str = key) -> bool:
                try:
                    store.create(key, str(number).encode())
                except AlreadyExists:
                    return False
                return True

            won = _all_at_once(create)

            assert sum(won) == 1
            assert store.get(key).data == str(won.index(True)).encode()

    def test_of_racing_replacers_exactly_one_wins(self, store: Store) -> None:
        version = store.create("race", b"start")
        for turn in range(10):

            def replace(number: int, turn: int = turn, version: str = version) -> bool:
                try:
                    store.replace("race", f"{turn} {number}".encode(), version=version)
                except Conflict:
                    return False
                return True

            won = _all_at_once(replace)

            assert sum(won) == 1
            assert store.get("race").data == f"{turn} {won.index(True)}".encode()
            version = store.get("race").version

    def test_processes_and_threads_lose_no_compare_and_swap(self, store: Store, opener: Opener) -> None:
        store.create("counter", b"0")
        with ExitStack() as stack:
            processes = [stack.enter_context(running(_count_up, opener, 4, 5)) for _ in range(3)]
            for process in processes:
                process.join()

        assert store.get("counter").data == b"60"

    def test_of_racing_processes_exactly_one_creates(self, store: Store, opener: Opener) -> None:
        with ExitStack() as stack:
            processes = [stack.enter_context(running(_create_many, opener, 30, number)) for number in range(3)]
            created = [process.reports() for process in processes]

        keys = [key for process in created for key, _ in process]
        assert sorted(keys) == sorted(f"many/{n}" for n in range(30))
        for process in created:
            for key, data in process:
                assert store.get(key).data == data

    def test_a_put_is_not_undone_by_an_older_replace(self, store: Store) -> None:
        store.put("a", b"0")
        with Meanwhile(lambda: _mark(store)):
            for n in range(1, 40):
                store.put("a", b"%d" % n)
                assert int(store.get("a").data) == n

    def test_a_deleted_object_is_not_brought_back_by_a_replace(self, store: Store) -> None:
        store.put("a", b"0")
        with Meanwhile(lambda: _mark(store)):
            for n in range(1, 40):
                store.put("a", b"%d" % n)
                store.delete("a")
                assert not store.exists("a")

    def test_objects_come_and_go_in_one_folder_at_once(self, store: Store) -> None:
        def come_and_go(number: int) -> bool:
            for n in range(10):
                store.create(f"deep/er/{number}", b"%d" % n)
                assert store.get(f"deep/er/{number}").data == b"%d" % n
                store.delete(f"deep/er/{number}")
            return True

        assert all(_all_at_once(come_and_go))

        assert list(store.list("")) == []

    def test_readers_see_whole_objects_only(self, store: Store) -> None:
        store.put("a", bytes(300_000))
        with Meanwhile(lambda: [store.put("a", bytes([n]) * 300_000) for n in range(50)]):
            for _ in range(200):
                data = store.get("a").data
                assert data == data[:1] * 300_000

    def test_a_killed_writer_leaves_whole_objects_and_every_acknowledged_write(
        self, store: Store, opener: Opener
    ) -> None:
        chance = random.Random(7)
        store.put("state", _with_hash(0))
        last = 0
        for _ in range(8):
            with running(_write_on, opener) as writer:
                for _ in range(chance.randint(1, 6)):
                    acknowledged = writer.report()
                writer.kill()
                acknowledged = max([acknowledged, *writer.reports()])

            written = _checked(store.get("state").data)

            assert acknowledged in (written, written - 1)
            assert acknowledged > last
            last = written
            created = [_checked(store.get(info.key).data) for info in store.list("history/")]
            assert created[:acknowledged] == list(range(1, acknowledged + 1))
            assert len(created) <= acknowledged + 1


def _all_at_once(action: Callable[[int], bool]) -> list[bool]:
    """Run `action(number)` in 16 threads that start together."""
    start = threading.Barrier(NUM_THREADS)

    def act(number: int) -> bool:
        start.wait()
        return action(number)

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(act, range(NUM_THREADS)))


class Meanwhile:
    """Repeat `action` in a thread during the block."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._action = action

    def __enter__(self) -> None:
        self._future = self._pool.submit(self._repeat)

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        self._future.result()

    def _repeat(self) -> None:
        while not self._stop.is_set():
            self._action()


def _mark(store: Store) -> None:
    """Change the object's bytes, but not the number in it, if nobody else does at the same time."""
    try:
        stored = store.get("a")
        store.replace("a", stored.data + b" ", version=stored.version)
    except (Conflict, NotFound):
        pass


def _count_up(report: Reporter, opener: Opener, num_threads: int, times: int) -> None:
    store = opener()

    def count_up(_: int) -> None:
        for _ in range(times):
            while True:
                stored = store.get("counter")
                try:
                    store.replace("counter", b"%d" % (int(stored.data) + 1), version=stored.version)
                    break
                except Conflict:
                    continue

    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(count_up, range(num_threads)))


def _create_many(report: Reporter, opener: Opener, num_keys: int, number: int) -> None:
    store = opener()
    for n in range(num_keys):
        try:
            store.create(f"many/{n}", b"%d" % number)
        except AlreadyExists:
            continue
        report((f"many/{n}", b"%d" % number))


def _write_on(report: Reporter, opener: Opener) -> None:
    """Count on from the stored number by compare-and-swap and by creating, until killed."""
    store = opener()
    stored = store.get("state")
    version = stored.version
    for n in count(_checked(stored.data) + 1):
        try:
            store.create(f"history/{n:06d}", _with_hash(n))
        except AlreadyExists:
            assert _checked(store.get(f"history/{n:06d}").data) == n
        version = store.replace("state", _with_hash(n), version=version)
        report(n)


def _with_hash(number: int) -> bytes:
    body = b"%d\n" % number + random.Random(number).randbytes(100_000)
    return hashlib.sha256(body).digest() + body


def _checked(data: bytes) -> int:
    """The number in the object; an assertion error if a single byte is missing or another's."""
    assert hashlib.sha256(data[32:]).digest() == data[:32]
    return int(data[32:].partition(b"\n")[0])
