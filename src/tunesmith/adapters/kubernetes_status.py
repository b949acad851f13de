"""What Jobs, Deployments and their pods mean: at it, waiting for something, or ended, and how. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunesmith.adapters.kubernetes_api import Object
from tunesmith.adapters.kubernetes_job import CONTAINER, STOPPED_ANNOTATION
from tunesmith.ports.launcher import OUT_OF_MEMORY, LaunchStatus

_EXIT_CODE = re.compile(r"failed with exit code (\d+)")
_IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_START_REASONS = ("CreateContainerError", "RunContainerError", "StartError", "ContainerCannotRun")
_UNSEEN_REASONS = ("ContainerStatusUnknown", "Unknown")
"""Of containers that were gone before anybody looked: deleted before they began, or a node that went down. Their exit
codes (137, 255) are made up by the kubelet and the container runtime."""
_SIGNAL_BASE, _LAST_SIGNAL = 128, 64
_FOLLOWING = (69, 75, 76)
"""As in jobs.worker: exit codes of an end that came from outside (unavailable, interrupted, fenced)."""
_INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a launch has not begun."""

    reason: str
    message: str
    may_free_up: bool
    """Whether others' work ending would let it begin."""
    never: bool = False
    """Whether waiting is no use at all."""


@dataclass(frozen=True, slots=True)
class Fixes:
    """What to do about it, where that hangs on what the pod is for."""

    image: str
    config: str
    gpu: str
    node: str
    security: str
    account: str


JOB_FIXES = Fixes(
    image="correct TUNESMITH_KUBERNETES_IMAGE, or name a Secret with the registry's credentials in "
    "TUNESMITH_KUBERNETES_IMAGE_PULL_SECRET",
    config="create what TUNESMITH_KUBERNETES_ENV_FROM names, in the same namespace",
    gpu="add a node with a GPU and its device plugin, check node_selector and tolerations, or set "
    "TUNESMITH_KUBERNETES_MODEL__GPU=0",
    node="add nodes, or ask for less cpu and memory (TUNESMITH_KUBERNETES_MODEL__CPU, …__MEMORY, …__NODE_SELECTOR)",
    security="let TUNESMITH_KUBERNETES_* ask for no more than the namespace's pod-security level allows",
    account="create the service account that TUNESMITH_KUBERNETES_SERVICE_ACCOUNT names",
)


def is_finished(job: Object) -> bool:
    """Whether nothing runs for the Job any more; Kubernetes says so only when all its pods have ended."""
    return condition(job, "Complete") is not None or condition(job, "Failed") is not None


def ended(job: Object, pods: Sequence[Object]) -> LaunchStatus:
    """How a finished Job ended, without its log."""
    if condition(job, "Complete") is not None:
        return LaunchStatus("exited", 0)
    failed = condition(job, "Failed") or {}
    stopped = STOPPED_ANNOTATION in job["metadata"].get("annotations", {})
    told = str(failed.get("message", ""))
    if failed.get("reason") == "DeadlineExceeded" and not stopped:
        return LaunchStatus(
            "exited",
            _worst(pods),
            reason="DEADLINE_EXCEEDED",
            message="the attempt took longer than its deadline allows: raise deadline_s "
            "(TUNESMITH_KUBERNETES_MODEL__DEADLINE_S, …WORK__DEADLINE_S), or ask for less",
            fatal=True,
        )
    for pod in pods:
        if pod.get("status", {}).get("reason") == "Evicted" and not _was_disrupted(pod):
            return LaunchStatus(
                "exited",
                1,
                reason="EVICTED",
                message=f"the pod was evicted ({str(pod['status'].get('message', ''))[:300]}): raise disk "
                "(TUNESMITH_KUBERNETES_MODEL__DISK, …WORK__DISK)",
            )
    for state in _terminated(pods):
        if state.get("reason") == "OOMKilled":
            return LaunchStatus(
                "exited",
                -9,
                reason=OUT_OF_MEMORY,
                message="the pod wanted more memory than its limit: raise memory "
                "(TUNESMITH_KUBERNETES_MODEL__MEMORY, …WORK__MEMORY)",
            )
        if state.get("reason") in _START_REASONS:
            return LaunchStatus(
                "exited",
                _signed(int(state.get("exitCode", 1))),
                reason="CONTAINER_NOT_STARTABLE",
                message=f"the container could not be started ({str(state.get('message', ''))[:300]}): check "
                "TUNESMITH_KUBERNETES_IMAGE, which must hold the service that asks for the job",
                fatal=True,
            )
    if len(pods) > 1 and any(map(_was_disrupted, pods)):
        return LaunchStatus("lost")  # the pods that share a training end with the one that was taken away
    code = _worst(pods)
    if code is None and (match := _EXIT_CODE.search(told)):
        code = _signed(int(match[1]))
    return LaunchStatus("lost") if code is None else LaunchStatus("exited", code)


def last_words(pods: Sequence[Object]) -> str:
    """The end of the log of the pod that failed, as the pod's own status has it; empty when there is none."""
    return next((str(s["message"]) for s in _terminated(pods) if s.get("exitCode") and s.get("message")), "")


def why_waiting(
    job: Object, pods: Sequence[Object], told: Sequence[Object], fixes: Fixes = JOB_FIXES
) -> Waiting | None:
    """Why a Job or Deployment has no running pod; None when it has, or nothing is known to be wrong.

    `told` are events about the Job or its newest pod.
    """
    if job.get("spec", {}).get("suspend"):
        return Waiting("QUEUED", "the Job is suspended until its queue admits it", may_free_up=True)
    live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    if not live:
        return next((not_created(text, fixes) for text in _messages(told, "FailedCreate")), None)
    for pod in live:
        for status in container_statuses(pod):
            waiting = status.get("state", {}).get("waiting")
            if waiting is None:
                continue
            found = _container_waits(str(waiting.get("reason", "")), str(waiting.get("message", "")), fixes)
            if found is not None:
                return found
        scheduled = condition(pod, "PodScheduled", status="False")
        if scheduled is not None and scheduled.get("reason") in ("Unschedulable", "SchedulingGated"):
            return _unschedulable(str(scheduled.get("message", "")), fixes)
        if pod.get("status", {}).get("phase") == "Pending":
            for text in _messages(told, "FailedMount"):
                return Waiting("VOLUME_NOT_MOUNTED", f"a volume cannot be mounted ({text})", may_free_up=False)
    return None


def container_statuses(pod: Object) -> list[Object]:
    """Of all its containers, those that prepare it first."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _container_waits(reason: str, message: str, fixes: Fixes) -> Waiting | None:
    message = message[:500]
    if reason in _IMAGE_REASONS:
        return Waiting(
            "IMAGE_NOT_PULLED",
            f"the image cannot be pulled ({reason}: {message}): {fixes.image}",
            may_free_up=False,
            never=reason == "InvalidImageName",
        )
    if reason == "CreateContainerConfigError":
        what = "SECRET_MISSING" if "secret" in message.lower() else "CONFIG_MISSING"
        return Waiting(
            what,
            f"the pod's environment cannot be made ({message}): {fixes.config}",
            may_free_up=False,
        )
    if reason in _START_REASONS:
        return Waiting("CONTAINER_NOT_STARTABLE", f"the container cannot be started ({message})", may_free_up=False)
    return None


def _unschedulable(message: str, fixes: Fixes) -> Waiting:
    message = message[:500]
    gpu = re.search(r"Insufficient (\S*gpu\S*?)[.,;]?(\s|$)", message)
    if gpu:
        return Waiting(
            "NO_GPU",
            f"no node has a free {gpu[1]} ({message}): {fixes.gpu}",
            may_free_up=True,
        )
    return Waiting(
        "UNSCHEDULABLE",
        f"no node takes the pod ({message}): {fixes.node}",
        may_free_up=True,
    )


def not_created(message: str, fixes: Fixes = JOB_FIXES) -> Waiting:
    """Why the API server took no pod."""
    if "exceeded quota" in message:
        return Waiting(
            "QUOTA_EXHAUSTED",
            f"the namespace's quota is used up ({message}): raise the ResourceQuota, or let other work end",
            may_free_up=True,
        )
    if "PodSecurity" in message:
        fix = fixes.security
    elif "serviceaccount" in message.lower() or "service account" in message.lower():
        fix = fixes.account
    else:
        fix = "an admission rule of the cluster refuses it"
    return Waiting("POD_REFUSED", f"the cluster does not create the pod ({message}): {fix}", may_free_up=False)


def _messages(told: Sequence[Object], reason: str) -> Iterator[str]:
    """Messages of events of one reason, the newest first."""
    events = [event for event in told if event.get("reason") == reason]
    events.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""), reverse=True)
    yield from (str(event.get("message", ""))[:500] for event in events)


def condition(item: Object, kind: str, *, status: str = "True") -> Object | None:
    """The item's condition of a kind, where it has that status."""
    for one in item.get("status", {}).get("conditions", []):
        if one.get("type") == kind and one.get("status") == status:
            found: Object = one
            return found
    return None


def _was_disrupted(pod: Object) -> bool:
    return condition(pod, "DisruptionTarget") is not None


def _terminated(pods: Sequence[Object]) -> Iterator[Object]:
    """How the pods' workers ended, where that was seen, the newest first."""
    for pod in reversed(pods):
        for status in pod.get("status", {}).get("containerStatuses", []):
            state = status.get("state", {}).get("terminated")
            if state and status.get("name") == CONTAINER and state.get("reason") not in _UNSEEN_REASONS:
                yield state


def _worst(pods: Sequence[Object]) -> int | None:
    """The newest exit code that is a failure, or 0, or None when nobody saw any.

    Of pods that share a training, the others end because one did: their codes are told only where there is no other.
    """
    codes = [_signed(int(state.get("exitCode", 0))) for state in _terminated(pods)]
    failed = [code for code in codes if code]
    own = [code for code in failed if code > 0 and code not in _FOLLOWING]
    return next(iter(own or failed), 0) if codes else None


def told_by(pods: Sequence[Object]) -> Object:
    """The pod whose log tells about the attempt.

    Of those that share a training, the one that failed by itself, else the first; without others, the newest.
    """
    code = _worst(pods)
    for pod in reversed(pods):
        if code and any(_signed(int(state.get("exitCode", 0))) == code for state in _terminated([pod])):
            return pod
    first = [pod for pod in pods if pod["metadata"].get("labels", {}).get(_INDEX) == "0"]
    return (first or pods)[-1]


def _signed(code: int) -> int:
    """An exit code as Python tells it: containers call a death by signal N 128 + N."""
    return _SIGNAL_BASE - code if _SIGNAL_BASE < code <= _SIGNAL_BASE + _LAST_SIGNAL else code
