"""From a model version to the Deployment that serves it, and what its state means. Pure."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from tunesmith.adapters.kubernetes_api import Object
from tunesmith.adapters.kubernetes_job import INSTANCE_LABEL, job_name
from tunesmith.adapters.kubernetes_settings import KubernetesSettings
from tunesmith.adapters.kubernetes_status import (
    Fixes,
    Waiting,
    condition,
    container_statuses,
    not_created,
    why_waiting,
)
from tunesmith.domain.models import ModelVersion
from tunesmith.servable import adapter_folder, base_folder

REPLICA_LABEL = "tunesmith.io/replica"
"""On the Deployment and its pods: its name."""

MANAGER_LABEL, MANAGER = "app.kubernetes.io/managed-by", "tunesmith"
RECIPE_ANNOTATION, VERSION_ANNOTATION = "tunesmith.io/recipe", "tunesmith.io/version"

MODELS = "/models"
"""Where the template's containers see the model's files."""

MAX_RESTARTS = 3
"""Of a container before its replica counts as failed: the first may meet a store or a Hub that does not answer."""

FIXES = Fixes(
    image="correct the image in the replicas' PodTemplate, or give it imagePullSecrets",
    config="create what the replicas' PodTemplate takes its environment from, in the same namespace",
    gpu="add a node with a GPU and its device plugin, or free one: while versions change, two replicas run",
    node="add nodes, or ask for less in the replicas' PodTemplate",
    security="let the replicas' PodTemplate ask for no more than the namespace's pod-security level allows",
    account="create the service account that the replicas' PodTemplate names",
)


def replica_name(recipe: str, version: str, settings: KubernetesSettings) -> str:
    """The Deployment of a version: always the same, and another one for every other version."""
    # No name has a slash, so that a hash of the whole is always part of it.
    return job_name(f"{settings.replica_template}-{recipe}/{version}")


def selector(settings: KubernetesSettings) -> str:
    """Which Deployments and pods are this installation's."""
    return f"{MANAGER_LABEL}={MANAGER},{INSTANCE_LABEL}={settings.instance}"


def render_replica(version: ModelVersion, template: Object, settings: KubernetesSettings) -> Object:
    """The Deployment: the pods of `template`, told which version to fetch and to serve.

    Every container gets TUNESMITH_REPLICA_RECIPE and TUNESMITH_REPLICA_VERSION; the server, which is the first one that
    prepares nothing, text-generation-inference's own MODEL_ID and LORA_ADAPTERS.
    """
    name = replica_name(version.recipe, version.id, settings)
    own = {REPLICA_LABEL: name, MANAGER_LABEL: MANAGER, INSTANCE_LABEL: settings.instance}
    part_of = {"app.kubernetes.io/part-of": "tunesmith"}
    annotations = {RECIPE_ANNOTATION: version.recipe, VERSION_ANNOTATION: version.id}
    given = template.get("template", {})
    meta, pod = given.get("metadata", {}), copy.deepcopy(given.get("spec", {}))
    which = {"TUNESMITH_REPLICA_RECIPE": version.recipe, "TUNESMITH_REPLICA_VERSION": version.id}
    for container in pod.get("initContainers", []):
        _give(container, which)
    for number, container in enumerate(pod.get("containers", [])):
        _give(container, which | (_served(version) if number == 0 else {}))
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": part_of | own, "annotations": annotations},
        "spec": {
            "replicas": settings.replica_pods,
            "revisionHistoryLimit": 1,
            "progressDeadlineSeconds": settings.replica_timeout_s,
            "selector": {"matchLabels": {REPLICA_LABEL: name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {
                    "labels": part_of | meta.get("labels", {}) | own,
                    "annotations": meta.get("annotations", {}) | annotations,
                },
                "spec": pod,
            },
        },
    }


def is_ready(deployment: Object) -> bool:
    """Whether all its pods answer."""
    ready: int = deployment.get("status", {}).get("readyReplicas", 0)
    wanted: int = deployment.get("spec", {}).get("replicas", 1)
    return ready >= max(1, wanted)


def is_overdue(deployment: Object) -> bool:
    """Whether it made no progress for as long as it may; the cluster's own clock, so that it outlives whoever asks."""
    progressing = condition(deployment, "Progressing", status="False")
    return progressing is not None and progressing.get("reason") == "ProgressDeadlineExceeded"


def why_not_ready(deployment: Object, pods: Sequence[Object], told: Sequence[Object]) -> Waiting | None:
    """Why a Deployment has no ready pod; None when nothing is known to be wrong. `told` are events about its pods."""
    for pod in pods:
        for status in container_statuses(pod):
            if crashed := _crashed(status):
                return crashed
    refused = condition(deployment, "ReplicaFailure")
    if refused is not None and not pods:
        return not_created(str(refused.get("message", ""))[:500], FIXES)
    return why_waiting(deployment, pods, told, FIXES)


def _crashed(status: Object) -> Waiting | None:
    last = status.get("lastState", {}).get("terminated") or status.get("state", {}).get("terminated") or {}
    restarts = int(status.get("restartCount", 0))
    if restarts == 0 or not last.get("exitCode") or status.get("ready"):
        return None
    name, words = status.get("name", ""), str(last.get("message", "")).strip()[-300:]
    if last.get("reason") == "OOMKilled":
        why = f"container {name} wanted more memory than its limit: raise it in the replicas' PodTemplate"
        return Waiting("OUT_OF_MEMORY", why, may_free_up=False, never=restarts >= MAX_RESTARTS)
    why = f"container {name} ended with exit code {last['exitCode']}, {restarts + 1} times: {words or 'see its log'}"
    return Waiting("REPLICA_CRASHES", why, may_free_up=False, never=restarts >= MAX_RESTARTS)


def _served(version: ModelVersion) -> dict[str, str]:
    folder = base_folder(version)
    return {
        "MODEL_ID": f"{MODELS}/{folder}" if folder else version.base_model,
        "LORA_ADAPTERS": f"{version.id}={MODELS}/{adapter_folder(version)}",
    }


def _give(container: dict[str, Any], given: dict[str, str]) -> None:
    """Set variables, before all others: `$(NAME)` stands for those that come before it."""
    rest = [one for one in container.get("env", []) if one.get("name") not in given]
    container["env"] = [{"name": name, "value": value} for name, value in given.items()] + rest
