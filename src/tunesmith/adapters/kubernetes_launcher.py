"""The launcher on Kubernetes: a Job a launch."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from tunesmith.adapters.command_check import check_command
from tunesmith.adapters.kubernetes_api import KubernetesApi, Object
from tunesmith.adapters.kubernetes_cache import ClusterCache
from tunesmith.adapters.kubernetes_job import (
    CONTAINER,
    INSTANCE_LABEL,
    LAUNCH_ANNOTATION,
    STOPPED_ANNOTATION,
    job_name,
    render_job,
    selector,
)
from tunesmith.adapters.kubernetes_settings import KubernetesSettings
from tunesmith.adapters.kubernetes_status import Waiting, ended, is_finished, last_words, told_by, why_waiting
from tunesmith.domain.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidInput,
    InvalidSettings,
    NotFound,
    TunesmithError,
    Unavailable,
)
from tunesmith.domain.ids import check_name
from tunesmith.ports.launcher import LaunchStatus

_K = TypeVar("_K")
_V = TypeVar("_V")

LOG_TAIL_BYTES = 4096

_LOG_LINES = 200
_MAX_REMEMBERED = 2000
_POLL_S = 0.1
_STOP_TIMEOUT_S = 120.0
_EVENTS_AFTER_S = 3.0
"""How long a Job may be without a running pod before events are asked what is wrong."""


class KubernetesLauncher:
    """Jobs of a cluster (ports.launcher.Launcher), seen by every process that has the same settings.

    The Job's name makes a launch happen once. `status` answers from a cache that a watch keeps up to date; while the
    API server is away it keeps answering what it knows, and Unavailable for what it never knew. Made without
    connecting.
    """

    scope = ""
    """Every replica sees all launches."""

    def __init__(self, settings: KubernetesSettings, *, log_interval_s: float = 5.0) -> None:
        """`log_interval_s`: how old the log of a running pod may be that `status` tells."""
        self._settings = settings
        self._api = KubernetesApi(
            namespace=settings.namespace, kubeconfig=settings.kubeconfig, context=settings.context
        )
        self._cache = ClusterCache(self._api, selector(settings))
        self._log_interval_s = log_interval_s
        self._lock = threading.Lock()
        self._logs: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._told: OrderedDict[str, tuple[float, list[Object]]] = OrderedDict()
        self._waiting_since: OrderedDict[tuple[str, str], float] = OrderedDict()

    def launch(self, name: str, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
        """Create the Job, once; one that exists is success. See the port for what is raised."""
        check_name(name, what="launch name")
        check_command(argv, env)
        job = render_job(name, argv, env, self._with_image())
        try:
            self._cache.remember(self._api.create_job(job))
        except AlreadyExists:
            self._check_own(name, self._api.get_job(job_name(name)))
        except NotFound as error:
            raise FailedPrecondition(
                f"the namespace {self._api.namespace!r} does not exist: create it, or set "
                "TUNESMITH_KUBERNETES_NAMESPACE",
                reason="NAMESPACE_MISSING",
            ) from error
        except Conflict as error:
            raise Unavailable(f"{name} cannot be started now: {error}") from error

    def status(self, name: str) -> LaunchStatus:
        """What is known of `name`, from the cache where it is there."""
        job = self._find(name)
        if job is None:
            return LaunchStatus("absent")
        pods = self._cache.pods(job)
        if is_finished(job):
            return replace(ended(job, pods), log_tail=self._final_log(pods))
        waiting = self._waiting(job, pods)
        if waiting is None:
            return LaunchStatus("running", None, self._running_log(pods))
        patience_s = self._settings.schedule_timeout_s if waiting.may_free_up else self._settings.start_timeout_s
        waited_s = time.monotonic() - self._first_seen(str(job["metadata"]["uid"]), waiting)
        stuck = waiting.never or (waited_s >= patience_s and waiting.reason != "QUEUED")
        return LaunchStatus("stuck" if stuck else "running", None, "", waiting.reason, waiting.message, waiting.never)

    def stop(self, name: str, *, grace_s: float) -> None:
        """End the Job's pods; returns when they are gone. The Job stays, so that the name is not launched again."""
        full = job_name(check_name(name, what="launch name"))
        job = self._live(full)
        if job is None:
            return
        if job.get("spec", {}).get("suspend"):
            self._delete(job)  # it waits in a queue, and would begin whenever that lets it
            return
        with suppress(NotFound):
            self._cache.remember(self._api.patch_job(full, {"metadata": {"annotations": {STOPPED_ANNOTATION: "true"}}}))
        deadline_s = time.monotonic() + grace_s + _STOP_TIMEOUT_S
        told: set[str] = set()
        # With the grace asked for, before the Job controller deletes them with the pods' own.
        self._end_pods(job, grace_s, told)
        # A Job past its deadline makes no other pod, also where none was made yet.
        with suppress(NotFound):
            self._cache.remember(self._api.patch_job(full, {"spec": {"activeDeadlineSeconds": 1}}))
        while (job := self._live(full)) is not None:
            self._end_pods(job, grace_s, told)
            if time.monotonic() >= deadline_s:
                raise Unavailable(f"{name} did not end {_STOP_TIMEOUT_S:.0f} s after it had to; its node may be gone")
            time.sleep(_POLL_S)

    def names(self, prefix: str = "") -> Sequence[str]:
        """Names of Jobs that are there, sorted."""
        found = (str(job["metadata"].get("annotations", {}).get(LAUNCH_ANNOTATION, "")) for job in self._cache.jobs())
        return sorted(name for name in found if name and name.startswith(prefix))

    def forget(self, name: str) -> None:
        """Delete the Job and its pods; FailedPrecondition while it is running."""
        job = self._find(name)
        if job is None:
            return
        if not is_finished(job):
            job = self._live(job_name(name))
            if job is not None:
                raise FailedPrecondition(f"{name} is still running; stop it before forgetting it")
            job = self._find(name)
        if job is not None:
            self._delete(job)

    def retire(self, name: str) -> None:
        """Let Kubernetes delete the ended Job after `keep_s`."""
        job = self._find(name)
        if job is not None and is_finished(job):
            with suppress(NotFound):
                patch = {"spec": {"ttlSecondsAfterFinished": self._settings.keep_s}}
                self._cache.remember(self._api.patch_job(job_name(name), patch))

    def close(self) -> None:
        """End the watches and release connections."""
        self._cache.close()
        self._api.close()

    def _with_image(self) -> KubernetesSettings:
        """The settings, with this pod's own image where they name none."""
        if not self._settings.image:
            pod = os.environ.get("HOSTNAME", "") if os.environ.get("KUBERNETES_SERVICE_HOST") else ""
            if not pod:
                raise InvalidSettings(
                    "TUNESMITH_KUBERNETES_IMAGE is empty: outside of a cluster, name the image that jobs run from",
                    metadata={"setting": "TUNESMITH_KUBERNETES_IMAGE"},
                )
            image = str(self._api.get_pod(pod)["spec"]["containers"][0]["image"])
            self._settings = self._settings.model_copy(update={"image": image})
        return self._settings

    def _find(self, name: str) -> Object | None:
        """The Job of a launch; None when there is none for certain."""
        full = job_name(check_name(name, what="launch name"))
        job = self._cache.job(full)
        if job is not None:
            return job
        try:
            job = self._api.get_job(full)
        except NotFound:
            return None
        self._check_own(name, job)
        return job

    def _live(self, full: str) -> Object | None:
        """The Job as the API server has it now, if it is not finished."""
        try:
            job = self._api.get_job(full)
        except NotFound:
            return None
        self._cache.remember(job)
        return None if is_finished(job) else job

    def _check_own(self, name: str, job: Object) -> None:
        """Remember a Job that another process, or an earlier life of this one, created."""
        meta = job["metadata"]
        if "deletionTimestamp" in meta:
            raise Unavailable(f"the Job {meta['name']} of an earlier {name} is still being deleted")
        owner = meta.get("labels", {}).get(INSTANCE_LABEL)
        if owner != self._settings.instance or meta.get("annotations", {}).get(LAUNCH_ANNOTATION) != name:
            raise InvalidInput(
                f"a Job {meta['name']} exists and is not this installation's ({owner!r}): set "
                "TUNESMITH_KUBERNETES_INSTANCE to its own value in each installation, and use a namespace for each",
                metadata={"job": str(meta["name"])},
            )
        self._cache.remember(job)

    def _end_pods(self, job: Object, grace_s: float, told: set[str]) -> None:
        """Delete the pods of a Job that are not in `told` yet."""
        for pod in self._cache.pods(job):
            pod_name = str(pod["metadata"]["name"])
            if pod_name not in told:
                # Never 0: that would forget a pod whose process may still be alive.
                with suppress(NotFound):
                    self._api.delete_pod(pod_name, grace_s=max(1, math.ceil(grace_s)))
                told.add(pod_name)

    def _delete(self, job: Object) -> None:
        with suppress(NotFound, Conflict):
            self._api.delete_job(str(job["metadata"]["name"]), uid=str(job["metadata"]["uid"]))
        self._cache.forget(job)

    def _waiting(self, job: Object, pods: Sequence[Object]) -> Waiting | None:
        live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        if live and all(pod.get("status", {}).get("phase") not in ("Pending", "Unknown", None) for pod in live):
            return None
        subject = live[-1] if live else job
        return why_waiting(job, pods, self._events_about(str(subject["metadata"]["uid"])))

    def _events_about(self, uid: str) -> list[Object]:
        """What was said about an object that does not get on; asked every `_EVENTS_AFTER_S`, not before the first."""
        now_s = time.monotonic()
        with self._lock:
            asked_s, told = _kept(self._told, uid, (now_s, []))
            if now_s - asked_s < _EVENTS_AFTER_S or not self._cache.is_current:
                return told
            self._told[uid] = (now_s, told)
        with suppress(TunesmithError):
            told = self._api.events_about(uid)
            with self._lock:
                self._told[uid] = (now_s, told)
        return told

    def _first_seen(self, uid: str, waiting: Waiting) -> float:
        """When this reason was seen first, by this process: clocks of two machines are not compared."""
        with self._lock:
            return _kept(self._waiting_since, (uid, waiting.reason), time.monotonic())

    def _running_log(self, pods: Sequence[Object]) -> str:
        running = [pod for pod in pods if pod.get("status", {}).get("phase") == "Running"]
        if not running:
            return ""
        pod = told_by(running)
        uid, now_s = str(pod["metadata"]["uid"]), time.monotonic()
        with self._lock:
            read_s, text = self._logs.get(uid, (-math.inf, ""))
            if now_s - read_s < self._log_interval_s or not self._cache.is_current:
                return text
        text = self._read_log(pod)[0] or text
        with self._lock:
            _put(self._logs, uid, (now_s, text))
        return text

    def _final_log(self, pods: Sequence[Object]) -> str:
        """The log of the pod that tells most, read once; what is known of it when it is gone by then."""
        if not pods:
            return ""
        pod = told_by(pods)
        uid = f"{pod['metadata']['uid']}/final"
        with self._lock:
            if uid in self._logs:
                return self._logs[uid][1]
        text, is_final = self._read_log(pod)
        with self._lock:
            if not text:
                text = (
                    _tail((last_words([pod]) or last_words(pods)).encode())
                    or self._logs.get(str(pod["metadata"]["uid"]), (0.0, ""))[1]
                )
            if is_final:
                _put(self._logs, uid, (0.0, text))
        return text

    def _read_log(self, pod: Object) -> tuple[str, bool]:
        """The end of a pod's log, and whether asking again would give no more than that."""
        try:
            return _tail(self._api.pod_log(str(pod["metadata"]["name"]), CONTAINER, lines=_LOG_LINES)), True
        except (NotFound, InvalidInput):
            return "", True
        except TunesmithError:
            return "", False


def _tail(data: bytes) -> str:
    """The last whole lines, at most LOG_TAIL_BYTES of text."""
    if len(data) > LOG_TAIL_BYTES:
        data = data[-LOG_TAIL_BYTES - 1 :]
        if b"\n" in data[:-1]:
            data = data.partition(b"\n")[2]
    return data.decode(errors="replace").encode()[-LOG_TAIL_BYTES:].decode(errors="ignore")


def _kept(known: OrderedDict[_K, _V], key: _K, value: _V) -> _V:
    if key not in known:
        _put(known, key, value)
    return known[key]


def _put(known: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    known[key] = value
    while len(known) > _MAX_REMEMBERED:
        known.popitem(last=False)
