"""What the API server last said about our Jobs and pods: a list, then watches, and a list again when those break."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict

from tunesmith.adapters.kubernetes_api import Gone, KubernetesApi, Object
from tunesmith.domain.errors import TunesmithError, Unavailable

log = logging.getLogger(__name__)

MAX_OBJECTS = 10_000
"""Jobs, and pods, that are kept; of more the oldest go, and are asked for one by one."""

MAX_REMOVED = 10_000
"""Deleted objects whose late news is ignored."""

RETRY_S = (0.2, 10.0)
"""First and longest wait before an API server that failed is asked again."""

_JOB_UID = "batch.kubernetes.io/controller-uid"


class ClusterCache:
    """Two threads, for Jobs and pods, begin with the first question. What is kept is the truth of some moment ago.

    While the API server is away it stays as it was, and nothing in it is ever taken for deleted because of that.
    """

    def __init__(self, api: KubernetesApi, selector: str) -> None:
        self._jobs = _Mirror(api, "jobs", selector)
        self._pods = _Mirror(api, "pods", selector)
        self._start = threading.Lock()
        self._started = False

    def job(self, name: str) -> Object | None:
        """The Job, if it is known. Raises Unavailable until everything was listed once."""
        return self._ready(self._jobs).get(name)

    def jobs(self) -> list[Object]:
        """All Jobs that are known."""
        return self._ready(self._jobs).all()

    def pods(self, job: Object) -> list[Object]:
        """The pods of a Job, oldest first; also of those that are gone, as they were last seen."""
        uid = job["metadata"]["uid"]
        found = [pod for pod in self._ready(self._pods).all_and_removed() if _owner(pod) == uid]
        return sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def remember(self, job: Object) -> None:
        """A Job as the API server has just answered, so that one's own writes are seen at once."""
        self._jobs.put(job)

    def forget(self, job: Object) -> None:
        """A Job that was deleted just now."""
        self._jobs.remove(job)

    @property
    def is_current(self) -> bool:
        """Whether both watches are up; if not, asking the API server for more is likely to fail as well."""
        return self._jobs.is_watching and self._pods.is_watching

    def close(self) -> None:
        """End the threads; they may take a moment."""
        self._jobs.stop()
        self._pods.stop()

    def _ready(self, mirror: _Mirror) -> _Mirror:
        with self._start:
            if not self._started:
                self._jobs.start()
                self._pods.start()
                self._started = True
        mirror.wait_until_listed()
        return mirror


class _Mirror:
    """One collection, by name."""

    def __init__(self, api: KubernetesApi, resource: str, selector: str) -> None:
        self._api = api
        self._resource = resource
        self._selector = selector
        self._lock = threading.Lock()
        self._objects: OrderedDict[str, Object] = OrderedDict()
        self._removed: OrderedDict[str, Object] = OrderedDict()  # by uid
        self._put_at: dict[str, float] = {}
        self._listed = threading.Event()
        self._stopping = threading.Event()
        self._error = ""
        self.is_watching = False

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"kubernetes-{self._resource}", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def wait_until_listed(self) -> None:
        if not self._listed.wait(0.0 if self._error else 5.0):
            raise Unavailable(
                f"the cluster's {self._resource} are not known yet: {self._error or 'the API server has not answered'}",
                reason="CLUSTER_UNKNOWN",
            )

    def get(self, name: str) -> Object | None:
        with self._lock:
            return self._objects.get(name)

    def all(self) -> list[Object]:
        with self._lock:
            return list(self._objects.values())

    def all_and_removed(self) -> list[Object]:
        with self._lock:
            return [*self._removed.values(), *self._objects.values()]

    def put(self, found: Object) -> None:
        with self._lock:
            self._put(found)
            self._put_at[found["metadata"]["name"]] = time.monotonic()

    def remove(self, found: Object) -> None:
        with self._lock:
            self._remove(found)

    def _run(self) -> None:
        version, delay_s = "", RETRY_S[0]
        while not self._stopping.is_set():
            try:
                if not version:
                    version = self._list()
                self.is_watching, self._error, delay_s = True, "", RETRY_S[0]
                version = self._watch(version)
            except Gone:
                version = ""
            except Exception as error:  # a thread that died would leave everything as it was for ever
                self.is_watching = False
                is_known = isinstance(error, TunesmithError)
                told = str(error) if is_known else f"{type(error).__name__}: {error}"
                if told != self._error:
                    log.warning("watching the cluster's %s: %s", self._resource, told, exc_info=not is_known)
                version, self._error = version if is_known else "", told
                self._stopping.wait(delay_s)
                delay_s = min(2 * delay_s, RETRY_S[1])

    def _list(self) -> str:
        began = time.monotonic()
        found, version = self._api.list(self._resource, self._selector)
        names = {item["metadata"]["name"] for item in found}
        with self._lock:
            for item in list(self._objects.values()):
                name = item["metadata"]["name"]
                # What was written while the list was on its way is not in it.
                if name not in names and self._put_at.get(name, 0.0) < began:
                    self._remove(item)
            for item in found:
                self._put(item)
            self._put_at = {name: at for name, at in self._put_at.items() if at >= began}
        self._listed.set()
        return version

    def _watch(self, version: str) -> str:
        """Follow changes until the watch ends; the version to go on from."""
        for kind, item in self._api.watch(self._resource, self._selector, version):
            version = str(item["metadata"]["resourceVersion"])
            with self._lock:
                if kind == "DELETED":
                    self._remove(item)
                elif kind != "BOOKMARK":
                    self._put(item)
            if self._stopping.is_set():
                break
        return version

    def _put(self, item: Object) -> None:
        meta = item["metadata"]
        known = self._objects.get(meta["name"])
        if meta["uid"] in self._removed or (known is not None and _is_newer(known, item)):
            return
        self._objects[meta["name"]] = _slim(item)
        while len(self._objects) > MAX_OBJECTS:
            self._objects.popitem(last=False)

    def _remove(self, item: Object) -> None:
        meta = item["metadata"]
        known = self._objects.get(meta["name"])
        if known is not None and known["metadata"]["uid"] == meta["uid"]:
            del self._objects[meta["name"]]
        self._removed[meta["uid"]] = _slim(item)
        while len(self._removed) > MAX_REMOVED:
            self._removed.popitem(last=False)


def _is_newer(known: Object, item: Object) -> bool:
    """Whether `known` is a later state of the same object; versions of one resource grow."""
    old, new = known["metadata"], item["metadata"]
    return bool(old["uid"] == new["uid"] and int(old["resourceVersion"]) > int(new["resourceVersion"]))


def _slim(item: Object) -> Object:
    """What is looked at later, so that thousands of objects are small."""
    meta = item["metadata"]
    kept = ("name", "uid", "resourceVersion", "labels", "annotations", "creationTimestamp", "deletionTimestamp")
    spec = item.get("spec", {})
    return {
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {key: spec[key] for key in ("suspend", "nodeName") if key in spec},
        "status": item.get("status", {}),
    }


def _owner(pod: Object) -> str:
    return str(pod["metadata"].get("labels", {}).get(_JOB_UID, ""))
