"""From a launch to the Job object that runs it. Pure: nothing here talks to a cluster."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.adapters.kubernetes_settings import SHARED_KINDS, KubernetesSettings, PodShape

CONTAINER = "worker"
INSTANCE_LABEL = "app.kubernetes.io/instance"
KIND_LABEL = "tunesmith.io/kind"
RENDEZVOUS_LABEL = "tunesmith.io/rendezvous"
LAUNCH_ANNOTATION = "tunesmith.io/launch"
STOPPED_ANNOTATION = "tunesmith.io/stopped"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"

EXIT_MISCONFIGURED = 78
"""As in jobs.worker: the same settings would end the same."""

MAX_JOB_NAME = 58
"""Of 63: a pod of an indexed Job is called by the Job's name, a dash and its index."""

UNREAD_TTL_S = 30 * 86_400
"""How long an ended Job is kept whose outcome nobody has read; once it was, `forget` or `retire` see to it."""

RENDEZVOUS_PORT = 29500

_DATA, _TMP = "/data", "/tmp"  # paths in the pod
_UNSAFE = re.compile(r"[^a-z0-9-]+")
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL")


def job_name(launch: str) -> str:
    """The Job of a launch: its name as an RFC 1123 label, with a hash of it wherever it had to be changed."""
    plain = _UNSAFE.sub("-", launch).strip("-")
    if plain == launch and len(plain) <= MAX_JOB_NAME:
        return plain
    digest = hashlib.sha256(launch.encode()).hexdigest()[:10]
    return f"{plain[: MAX_JOB_NAME - 11].rstrip('-')}-{digest}".lstrip("-")


def render_job(
    launch: str, argv: Sequence[str], env: Mapping[str, str], settings: KubernetesSettings
) -> dict[str, Any]:
    """The Job that runs `argv` once.

    One pod at a time and no retry of Kubernetes' own (`backoffLimit: 0`), because the reconciler counts attempts; only
    a pod that was evicted, preempted or drained away is replaced, as often as that happens. Its successor is made
    when the pod has really ended, so that two never write at once.

    Where several pods share a training, one that is lost ends the Job and with it the others: a successor would find
    them in the middle of steps that it has no part in. The reconciler's next attempt begins with all of them.
    """
    kind = launch.partition("-")[0]
    shape = settings.shape(kind)
    labels = _labels(kind, settings) | ({RENDEZVOUS_LABEL: "true"} if shape.nodes > 1 else {})
    spec: dict[str, Any] = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": shape.deadline_s,
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": UNREAD_TTL_S,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "Ignore" if shape.nodes == 1 else "FailJob",
                    "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                },
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [EXIT_MISCONFIGURED]},
                },
            ]
        },
        "template": {
            "metadata": {"labels": labels},
            "spec": _pod(job_name(launch), kind, argv, env, shape, settings),
        },
    }
    if shape.nodes > 1:
        spec |= {"completionMode": "Indexed", "completions": shape.nodes, "parallelism": shape.nodes}
    if settings.queue:
        spec["suspend"] = True
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(launch),
            "labels": _labels(kind, settings) | ({QUEUE_LABEL: settings.queue} if settings.queue else {}),
            "annotations": {LAUNCH_ANNOTATION: launch},
        },
        "spec": spec,
    }


def selector(settings: KubernetesSettings) -> str:
    """Which Jobs and pods are this installation's."""
    return f"app.kubernetes.io/name=tunesmith-job,{INSTANCE_LABEL}={settings.instance}"


def _labels(kind: str, settings: KubernetesSettings) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "tunesmith-job",
        "app.kubernetes.io/part-of": "tunesmith",
        INSTANCE_LABEL: settings.instance,
        KIND_LABEL: kind,
    }


def _pod(
    name: str, kind: str, argv: Sequence[str], env: Mapping[str, str], shape: PodShape, settings: KubernetesSettings
) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": "data", "emptyDir": {"sizeLimit": shape.disk}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    mounts = [{"name": "data", "mountPath": _DATA}, {"name": "tmp", "mountPath": _TMP}]
    if shape.shm:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shape.shm}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    limits = {"cpu": shape.cpu_limit or shape.cpu, "memory": shape.memory}
    limits |= {shape.gpu_resource: str(shape.gpu)} if shape.gpu else {}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # The worker is not process 1 then, which would ignore SIGTERM until it has a handler for it.
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": shape.grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.user,
            "runAsGroup": settings.user,
            "fsGroup": settings.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": settings.image,
                "imagePullPolicy": settings.image_pull_policy,
                "command": [_literal(word) for word in argv],
                "env": _env(env) + (_env_to_meet(name, shape, settings) if kind in SHARED_KINDS else []),
                "envFrom": _env_from(settings),
                "resources": {"requests": {**limits, "cpu": shape.cpu}, "limits": limits},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
                # The pod's own status then carries the last words of a failure, even when its log is gone.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    if settings.image_pull_secret:
        pod["imagePullSecrets"] = [{"name": settings.image_pull_secret}]
    if shape.node_selector:
        pod["nodeSelector"] = dict(shape.node_selector)
    tolerations = list(shape.tolerations)
    if shape.gpu and not tolerations:
        tolerations = [{"key": shape.gpu_resource, "operator": "Exists", "effect": "NoSchedule"}]
    if tolerations:
        pod["tolerations"] = tolerations
    if shape.nodes > 1:
        pod["subdomain"] = settings.subdomain
    return pod


def _literal(word: str) -> str:
    """A word of a command that Kubernetes leaves as it is: `$(NAME)` would be replaced by a variable."""
    return word.replace("$(", "$$(")


def _env(env: Mapping[str, str]) -> list[dict[str, Any]]:
    """Variables of the container. Whoever may read Jobs can read them, so credentials come by `envFrom` alone."""
    own = {
        "TUNESMITH_DATA": _DATA,
        "HOME": _TMP,
        "HF_HOME": f"{_DATA}/hub",
        # A worker launches nothing. Its next attempt may run on another node, which has not this pod's files.
        "TUNESMITH_LAUNCHER": "subprocess",
        "TUNESMITH_TRAINER_SHARE_CHECKPOINTS": "true",
    }
    given = {name: value for name, value in env.items() if not _SECRET.search(name)} | own
    return [{"name": name, "value": value.replace("$(", "$$(")} for name, value in sorted(given.items())]


def _env_to_meet(name: str, shape: PodShape, settings: KubernetesSettings) -> list[dict[str, Any]]:
    """Which processes share the work, as the worker's settings have it; it starts its pod's by torchrun's agent."""
    env: list[dict[str, Any]] = [{"name": "TUNESMITH_TRAINER_PROCESSES", "value": str(shape.processes)}]
    if shape.nodes > 1:
        index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
        env += [
            {"name": "TUNESMITH_TRAINER_NODES", "value": str(shape.nodes)},
            {"name": "TUNESMITH_TRAINER_NODE", "valueFrom": {"fieldRef": {"fieldPath": index}}},
            {"name": "TUNESMITH_TRAINER_RENDEZVOUS", "value": f"{name}-0.{settings.subdomain}:{RENDEZVOUS_PORT}"},
        ]
    if shape.nodes * shape.processes > 1:
        # What torchrun's agent leaves its processes for saving after SIGTERM.
        env.append({"name": "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "value": str(shape.grace_s)})
    return env


def _env_from(settings: KubernetesSettings) -> list[dict[str, Any]]:
    sources = []
    for source in filter(None, settings.env_from.split(",")):
        kind, _, name = source.partition("/")
        sources.append({"configMapRef" if kind == "configmap" else "secretRef": {"name": name}})
    return sources
