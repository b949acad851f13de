"""Replicas on Kubernetes: a Deployment for each model version."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from tunesmith.adapters.kubernetes_api import Gone, KubernetesApi, Object
from tunesmith.adapters.kubernetes_job import INSTANCE_LABEL
from tunesmith.adapters.kubernetes_replica import (
    RECIPE_ANNOTATION,
    REPLICA_LABEL,
    VERSION_ANNOTATION,
    is_overdue,
    is_ready,
    render_replica,
    replica_name,
    selector,
    why_not_ready,
)
from tunesmith.adapters.kubernetes_settings import KubernetesSettings
from tunesmith.adapters.kubernetes_status import Waiting
from tunesmith.domain.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    TunesmithError,
    Unavailable,
)
from tunesmith.domain.ids import check_name
from tunesmith.domain.models import ModelVersion
from tunesmith.ports.replicas import Replica
from tunesmith.servable import check_fetchable


class KubernetesReplicas:
    """Deployments made from a PodTemplate of the operator's (ports.replicas.Replicas).

    Only Deployments with this installation's labels are seen and deleted, and nothing of them is ever changed: who
    scales one or sets another image has done so. Made without connecting.
    """

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings
        self._api = KubernetesApi(
            namespace=settings.namespace, kubeconfig=settings.kubeconfig, context=settings.context
        )
        self._lock = threading.Lock()
        self._waiting_since: dict[tuple[str, str], float] = {}
        """By uid and reason, on this process's own clock."""

    def start(self, version: ModelVersion) -> None:
        """See the port."""
        check_name(version.recipe, what="recipe")
        check_name(version.id, what="model version")
        check_fetchable(version)
        template = self._settings.replica_template
        try:
            found = self._api.get_pod_template(template)
        except NotFound as error:
            raise FailedPrecondition(
                f"there is no PodTemplate {template!r} in the namespace {self._api.namespace!r} to start a server "
                "from: apply k8s/components/tgi-replicas, or name yours in TUNESMITH_KUBERNETES_REPLICA_TEMPLATE",
                reason="REPLICA_TEMPLATE_MISSING",
            ) from error
        try:
            self._api.create_deployment(render_replica(version, found, self._settings))
        except AlreadyExists:
            with suppress(NotFound):
                self._check_own(version, self._api.get_deployment(self._name(version.recipe, version.id)))
        except Conflict as error:
            raise Unavailable(f"the replica of {version.id} cannot be started now: {error}") from error

    def all(self) -> Sequence[Replica]:
        """See the port."""
        try:
            deployments, _ = self._api.list("deployments", selector(self._settings))
            pods, _ = self._api.list("pods", selector(self._settings))
        except Gone as error:
            raise Unavailable(f"the list of replicas changed while it was read: {error}") from error
        own = [one for one in deployments if _is_known(one) and "deletionTimestamp" not in one["metadata"]]
        seen: set[tuple[str, str]] = set()
        replicas = [self._replica(one, [pod for pod in pods if _is_of(pod, one)], seen) for one in own]
        with self._lock:
            self._waiting_since = {key: at for key, at in self._waiting_since.items() if key in seen}
        return replicas

    def stop(self, recipe: str, version: str) -> None:
        """See the port. A pod that is deleted leaves the Service first, and has its own grace then."""
        try:
            found = self._api.get_deployment(self._name(recipe, version))
        except NotFound:
            return
        if self._is_own(recipe, version, found) and "deletionTimestamp" not in found["metadata"]:
            with suppress(NotFound, Conflict):
                meta = found["metadata"]
                self._api.delete_deployment(str(meta["name"]), uid=str(meta["uid"]))

    def close(self) -> None:
        """Release connections."""
        self._api.close()

    def _name(self, recipe: str, version: str) -> str:
        return replica_name(recipe, version, self._settings)

    def _replica(self, deployment: Object, pods: Sequence[Object], seen: set[tuple[str, str]]) -> Replica:
        notes = deployment["metadata"]["annotations"]
        recipe, version = str(notes[RECIPE_ANNOTATION]), str(notes[VERSION_ANNOTATION])
        if is_ready(deployment):
            return Replica(recipe, version, "ready")
        live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        waiting = why_not_ready(deployment, live, self._told(live))
        if is_overdue(deployment):
            limit = (
                f"it was not ready within {self._settings.replica_timeout_s} s (TUNESMITH_KUBERNETES_REPLICA_TIMEOUT_S)"
            )
            if waiting is None:
                return Replica(recipe, version, "failed", "REPLICA_NOT_READY", f"{limit}: see the log of its pod")
            return Replica(recipe, version, "failed", waiting.reason, f"{limit}: {waiting.message}")
        if waiting is None:
            return Replica(recipe, version, "starting", "", "its server is loading the model" if live else "")
        hopeless = self._is_hopeless(str(deployment["metadata"]["uid"]), waiting, seen)
        return Replica(recipe, version, "failed" if hopeless else "starting", waiting.reason, waiting.message)

    def _is_hopeless(self, uid: str, waiting: Waiting, seen: set[tuple[str, str]]) -> bool:
        key, now_s = (uid, waiting.reason), time.monotonic()
        seen.add(key)
        with self._lock:
            since_s = self._waiting_since.setdefault(key, now_s)
        limit_s = self._settings.schedule_timeout_s if waiting.may_free_up else self._settings.start_timeout_s
        return waiting.never or now_s - since_s >= limit_s

    def _told(self, pods: Sequence[Object]) -> list[Object]:
        """Events about the pods that have not begun."""
        told: list[Object] = []
        for pod in pods:
            if pod.get("status", {}).get("phase") == "Pending":
                with suppress(TunesmithError):
                    told += self._api.events_about(str(pod["metadata"]["uid"]))
        return told

    def _check_own(self, version: ModelVersion, found: Object) -> None:
        meta = found["metadata"]
        if not self._is_own(version.recipe, version.id, found):
            owner = meta.get("labels", {}).get(INSTANCE_LABEL)
            raise InvalidInput(
                f"a Deployment {meta['name']} exists and is not this installation's ({owner!r}): set "
                "TUNESMITH_KUBERNETES_INSTANCE to its own value in each installation, and use a namespace for each",
                metadata={"deployment": str(meta["name"])},
            )
        if "deletionTimestamp" in meta:
            raise Unavailable(f"the former Deployment {meta['name']} is still being deleted")

    def _is_own(self, recipe: str, version: str, found: Object) -> bool:
        meta = found["metadata"]
        labels, notes = meta.get("labels", {}), meta.get("annotations", {})
        told = (notes.get(RECIPE_ANNOTATION), notes.get(VERSION_ANNOTATION))
        return labels.get(INSTANCE_LABEL) == self._settings.instance and told == (recipe, version)


def _is_known(deployment: Object) -> bool:
    notes = deployment["metadata"].get("annotations", {})
    return bool(notes.get(RECIPE_ANNOTATION) and notes.get(VERSION_ANNOTATION))


def _is_of(pod: Object, deployment: Object) -> bool:
    return bool(pod["metadata"].get("labels", {}).get(REPLICA_LABEL) == deployment["metadata"]["name"])
