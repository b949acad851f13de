"""The local store: what its contract does not say, mostly about file systems that misbehave."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract.processes import Reporter, running
from tunesmith.adapters.local_store import LocalStore
from tunesmith.domain.errors import (
    Conflict,
    InvalidInput,
    InvalidSettings,
    NotFound,
    PermissionRefused,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
    Unsupported,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


@dataclass(frozen=True)
class Action:
    """Something done to a store, and the bytes under its key before and after."""

    do: Callable[[LocalStore, Path], object]
    key: str
    before: bytes | None
    after: bytes | None


ACTIONS = {
    "create": Action(lambda store, _: store.create("new/folder/object", b"new"), "new/folder/object", None, b"new"),
    "put": Action(lambda store, _: store.put("old/object", b"new"), "old/object", b"old", b"new"),
    "replace": Action(
        lambda store, _: store.replace("old/object", b"new", version=store.get("old/object").version),
        "old/object",
        b"old",
        b"new",
    ),
    "put_file": Action(lambda store, path: store.put_file("old/object", path / "in"), "old/object", b"old", b"new"),
    "get_file": Action(lambda store, path: store.get_file("old/object", path / "out"), "old/object", b"old", b"old"),
    "delete": Action(lambda store, _: store.delete("old/object"), "old/object", b"old", None),
}


class FailingCall:
    """Stands in for a function of `os` and fails the `nth` time, from 0."""

    def __init__(self, real: Callable[..., object], *, nth: int, number: int) -> None:
        self._real = real
        self._nth = nth
        self._number = number
        self.num_calls = 0

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.num_calls += 1
        if self.num_calls == self._nth + 1:
            raise OSError(self._number, os.strerror(self._number))
        return self._real(*args, **kwargs)


def _error_of(action: Action, store: LocalStore, folder: Path) -> TunesmithError | None:
    try:
        action.do(store, folder)
    except TunesmithError as error:
        return error
    return None


@pytest.mark.parametrize("call", ["open", "mkdir", "fsync", "link", "rename", "replace", "unlink"])
@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize(
    ("number", "error_class", "words"),
    [
        (errno.ENOSPC, ResourceExhausted, "bytes free"),
        (errno.EDQUOT, ResourceExhausted, "bytes free"),
        (errno.EACCES, Unavailable, "permission denied"),
        (errno.EIO, Unavailable, "Input/output error"),
    ],
    ids=["full", "quota", "denied", "broken"],
)
def test_a_failing_system_call_leaves_old_or_new_and_no_rest(
    store: LocalStore,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    name: str,
    number: int,
    error_class: type[TunesmithError],
    words: str,
) -> None:
    action = ACTIONS[name]
    (tmp_path / "in").write_bytes(b"new")
    # The action is repeated with the first, second, ... of these calls failing, until it makes no more of them.
    for nth in range(20):
        store.delete("new/folder/object")
        store.put("old/object", b"old")
        (tmp_path / "out").unlink(missing_ok=True)

        with monkeypatch.context() as patch:
            failing = FailingCall(getattr(os, call), nth=nth, number=number)
            patch.setattr(os, call, failing)
            error = _error_of(action, store, tmp_path)

        stored = store.get(action.key).data if store.exists(action.key) else None
        assert stored in ((action.before, action.after) if error else (action.after,))
        assert store.exists("old/object") or name == "delete"
        assert list(tmp_path.glob("out")) == [] or (tmp_path / "out").read_bytes() == b"old"
        if error:
            assert isinstance(error, error_class)
            assert words in error.message
            assert str(tmp_path) in error.message
        if call != "unlink":
            assert list((root / ".tmp~").iterdir()) == []
            assert list(tmp_path.glob(".*")) == []
        if failing.num_calls <= nth:
            return
    pytest.fail("the action never came to an end")


class Interruption:
    """Stands in for a function of `os`: the first call lets `action` begin in another thread before it goes on."""

    def __init__(self, real: Callable[..., object], action: Callable[[], object]) -> None:
        self._real = real
        self._action = action
        self._pool = ThreadPoolExecutor(1)
        self.outcome: Future[object] | None = None

    def __call__(self, *args: object, **kwargs: object) -> object:
        if self.outcome is None:
            self.outcome = self._pool.submit(self._action)
            # Done at once if nothing holds it up; what must wait for us is given up on.
            wait([self.outcome], timeout=0.3)
        return self._real(*args, **kwargs)

    def finish(self) -> object:
        assert self.outcome is not None
        self._pool.shutdown()
        return self.outcome.exception() or self.outcome.result()


def test_a_replace_in_the_midst_of_a_replace_conflicts(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    version = store.put("a", b"old")
    other = Interruption(os.rename, lambda: store.replace("a", b"other", version=version))
    monkeypatch.setattr(os, "rename", other)

    store.replace("a", b"mine", version=version)

    assert isinstance(other.finish(), Conflict)
    assert store.get("a").data == b"mine"


def test_a_put_in_the_midst_of_a_replace_comes_after_it(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    version = store.put("a", b"old")
    other = Interruption(os.rename, lambda: store.put("a", b"other"))
    monkeypatch.setattr(os, "rename", other)

    store.replace("a", b"mine", version=version)

    other.finish()
    assert store.get("a").data == b"other"


def test_a_delete_in_the_midst_of_a_replace_comes_after_it(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    version = store.put("a", b"old")
    other = Interruption(os.rename, lambda: store.delete("a"))
    monkeypatch.setattr(os, "rename", other)

    store.replace("a", b"mine", version=version)

    other.finish()
    assert not store.exists("a")


def test_a_folder_that_vanishes_in_the_midst_of_a_create_is_made_again(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("a/b/neighbour", b"")
    other = Interruption(os.link, lambda: store.delete("a/b/neighbour"))
    monkeypatch.setattr(os, "link", other)

    store.create("a/b/mine", b"1")

    other.finish()
    assert [info.key for info in store.list("")] == ["a/b/mine"]


def _write_too_much(report: Reporter, root: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    store = LocalStore(root)
    source = root.parent / "source"
    for write in (
        lambda: store.put("object", bytes(200_000)),
        lambda: store.create("new", bytes(200_000)),
        lambda: store.replace("object", bytes(200_000), version=store.get("object").version),
        lambda: store.put_file("object", source),
        lambda: store.get_file("large", root.parent / "target"),
    ):
        try:
            write()
            report("no error")
        except ResourceExhausted as error:
            report(error.message)


def test_a_write_that_does_not_fit_is_refused_and_leaves_nothing(store: LocalStore, root: Path) -> None:
    store.put("object", b"old")
    store.put("large", bytes(200_000))
    (root.parent / "source").write_bytes(bytes(200_000))

    with running(_write_too_much, root) as process:
        messages = process.reports()

    assert len(messages) == 5
    assert all("no room to write" in message and "bytes free" in message for message in messages)
    assert store.get("object").data == b"old"
    assert [info.key for info in store.list("")] == ["large", "object"]
    assert list((root / ".tmp~").iterdir()) == []
    assert sorted(path.name for path in root.parent.iterdir()) == ["source", "store"]


def test_links_inside_the_root_lead_nowhere(store: LocalStore, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store.put("inside/object", b"1")
    (root / "folder").symlink_to(outside)
    (root / "inside" / "file").symlink_to(outside / "secret")
    (root / "inside" / "dangling").symlink_to(outside / "new")

    for key in ("folder/secret", "inside/file", "inside/dangling"):
        with pytest.raises(PermissionRefused, match="symbolic link"):
            store.get(key)
        with pytest.raises(PermissionRefused):
            store.replace(key, b"x", version="0" * 64)
        with pytest.raises(PermissionRefused):
            store.create(key, b"x")
    for write in (store.put, store.create):
        with pytest.raises(PermissionRefused):
            write("folder/new", b"x")
    with pytest.raises(PermissionRefused):
        store.delete("folder/secret")
    store.put("inside/file", b"in place of the link")
    store.put("inside/dangling", b"in place of the link")

    assert [info.key for info in store.list("")] == ["inside/dangling", "inside/file", "inside/object"]
    with pytest.raises(PermissionRefused):
        list(store.list("folder/"))
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"secret": b"secret"}


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")

    LocalStore(tmp_path / "store").put("a", b"1")

    assert (tmp_path / "disk" / "a").read_bytes() == b"1"


def test_stale_temporary_files_are_removed_and_recent_ones_kept(store: LocalStore, root: Path) -> None:
    for name, age_s in (("stale", 3700), ("recent", 3500)):
        (root / ".tmp~" / name).write_bytes(b"")
        os.utime(root / ".tmp~" / name, (time.time() - age_s,) * 2)

    LocalStore(root)

    assert [path.name for path in (root / ".tmp~").iterdir()] == ["recent"]


def test_a_root_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidSettings, match="TUNESMITH_STORE"):
            LocalStore(root)


def test_a_file_system_without_hard_links_is_named(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)

    with pytest.raises(Unsupported, match="hard links"):
        store.create("a", b"")


def test_an_object_cannot_be_a_folder_too(store: LocalStore) -> None:
    store.put("a/b", b"")

    for write in (store.put, store.create):
        with pytest.raises(InvalidInput, match="both an object and a folder"):
            write("a", b"")
        with pytest.raises(InvalidInput, match="both an object and a folder"):
            write("a/b/c", b"")
    for key in ("a", "a/b/c"):
        with pytest.raises(NotFound):
            store.get(key)
        store.delete(key)
    assert [info.key for info in store.list("")] == ["a/b"]


def test_what_others_put_into_the_folder_is_left_alone(store: LocalStore, root: Path, tmp_path: Path) -> None:
    store.put("a", b"1")
    (root / "not a key").write_bytes(b"")
    (root / "backup~").mkdir()
    os.mkfifo(root / "pipe")

    assert [info.key for info in store.list("")] == ["a"]
    assert not store.exists("pipe")


def test_keys_that_look_like_the_stores_own_folders_are_ordinary(store: LocalStore) -> None:
    for key in (".tmp/a", ".locks/00", "..."):
        store.create(key, b"1")

    assert [info.key for info in store.list("")] == ["...", ".locks/00", ".tmp/a"]


def test_deleting_the_last_object_removes_its_folders(store: LocalStore, root: Path) -> None:
    store.put("a/b/c/d", b"")
    store.put("a/x", b"")

    store.delete("a/b/c/d")

    assert [path.name for path in (root / "a").iterdir()] == ["x"]


def test_no_descriptor_is_left_open(store: LocalStore, tmp_path: Path) -> None:
    def num_descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def work() -> None:
        version = store.put("a/b/c", b"1")
        store.put("a/b/d", b"1")
        store.replace("a/b/c", b"2", version=version)
        for failing in (
            lambda: store.get("a/b"),
            lambda: store.get("a/b/c/d"),
            lambda: store.create("a/b/c", b""),
            lambda: store.put("a/b", b""),
            lambda: store.put("a/b/c/d", b""),
            lambda: store.replace("a/b/c", b"", version=version),
        ):
            with pytest.raises(TunesmithError):
                failing()
        store.get_file("a/b/c", tmp_path / "target")
        next(iter(store.list("")))
        list(store.list("a/"))
        store.delete("a/b/c")
        store.delete("a/b/d")

    work()
    before = num_descriptors()
    for _ in range(5):
        work()

    assert num_descriptors() == before
