"""Replicas on Kubernetes: the contract, and what keeps one from starting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from contract.replicas_contract import RECIPE, ReplicasContract, there, version
from doubles.kubernetes_api import FakeCluster
from doubles.replica_host import HostedReplicas, ReplicaHost
from k8s.schemas import VERSIONS, check
from tunesmith.adapters.kubernetes_replica import replica_name
from tunesmith.adapters.kubernetes_replicas import KubernetesReplicas
from tunesmith.adapters.kubernetes_settings import KubernetesSettings
from tunesmith.domain.errors import (
    BaseModelUnavailable,
    FailedPrecondition,
    InvalidInput,
    PermissionRefused,
    ResourceExhausted,
    TunesmithError,
    Unavailable,
)
from tunesmith.domain.models import ModelVersion
from tunesmith.ports.replicas import Replica

TEMPLATE = Path(__file__).parents[2] / "k8s" / "components" / "tgi-replicas" / "template.yaml"

Open = Callable[..., KubernetesReplicas]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    """A cluster with the PodTemplate that we ship."""
    cluster = FakeCluster(tmp_path)
    cluster.write("podtemplates", yaml.safe_load(TEMPLATE.read_text()), change="ADDED")
    yield cluster
    cluster.close()


@pytest.fixture
def opened(cluster: FakeCluster) -> Iterator[Open]:
    made = []

    def open_one(**given: object) -> KubernetesReplicas:
        settings = KubernetesSettings(**{"kubeconfig": str(cluster.kubeconfig), **given})  # type: ignore[arg-type]
        made.append(KubernetesReplicas(settings))
        return made[-1]

    yield open_one
    for replicas in made:
        replicas.close()


def name_of(wanted: ModelVersion) -> str:
    return replica_name(wanted.recipe, wanted.id, KubernetesSettings())


class TestKubernetes(ReplicasContract):
    @pytest.fixture
    def opener(self, opened: Open) -> Callable[[], KubernetesReplicas]:
        return opened

    @pytest.fixture
    def make_ready(self, cluster: FakeCluster) -> Callable[[ModelVersion], None]:
        return lambda wanted: cluster.set_deployment(name_of(wanted), {"readyReplicas": 1})


class TestHosted(ReplicasContract):
    """What the trainer's tests stand on keeps the same contract."""

    @pytest.fixture
    def host(self) -> ReplicaHost:
        return ReplicaHost()

    @pytest.fixture
    def opener(self, host: ReplicaHost) -> Callable[[], HostedReplicas]:
        return lambda: HostedReplicas(host)

    @pytest.fixture
    def make_ready(self, host: ReplicaHost) -> Callable[[ModelVersion], None]:
        return lambda wanted: host.set(wanted.id, "ready")


def only(replicas: KubernetesReplicas) -> Replica:
    [found] = replicas.all()
    return found


def test_the_server_is_told_its_base_its_adapter_and_the_version_to_fetch(cluster: FakeCluster, opened: Open) -> None:
    made_here = version("mv-2", base="builtin:micro", fingerprint="f" * 64)
    for wanted in (version("mv-1"), made_here):
        opened().start(wanted)

    def variables(wanted: ModelVersion, kind: str) -> dict[str, str]:
        deployment = cluster.get("deployments", name_of(wanted))
        assert deployment is not None
        for of_version in VERSIONS:
            check({k: v for k, v in deployment.items() if k != "status"} | {"metadata": {"name": "x"}}, of_version)
        [container] = deployment["spec"]["template"]["spec"][kind]
        return {one["name"]: one["value"] for one in container["env"] if "value" in one}

    assert variables(version("mv-1"), "containers") == {
        "TUNESMITH_REPLICA_RECIPE": RECIPE,
        "TUNESMITH_REPLICA_VERSION": "mv-1",
        "MODEL_ID": "org/base-1b",
        "LORA_ADAPTERS": "mv-1=/models/adapters/mv-1",
        "HOME": "/tmp",
    }
    assert variables(made_here, "containers")["MODEL_ID"] == f"/models/{'f' * 64}"
    assert variables(made_here, "initContainers").items() >= {("TUNESMITH_REPLICA_VERSION", "mv-2")}
    assert "MODEL_ID" not in variables(made_here, "initContainers")


def test_a_base_that_nobody_else_can_get_is_refused_before_a_gpu_is_asked_for(
    cluster: FakeCluster, opened: Open
) -> None:
    with pytest.raises(BaseModelUnavailable, match="mv-1 lies on /home/me/base, a folder of the machine"):
        opened().start(version("mv-1", base="/home/me/base", fingerprint="e" * 64))
    assert not cluster.requests


def test_all_pods_of_a_version_have_to_answer(cluster: FakeCluster, opened: Open) -> None:
    replicas = opened(replica_pods=2)
    replicas.start(version("mv-1"))
    cluster.set_deployment(name_of(version("mv-1")), {"readyReplicas": 1})
    assert only(replicas).state == "starting"
    cluster.set_deployment(name_of(version("mv-1")), {"readyReplicas": 2})
    assert only(replicas).state == "ready"


def pending(**status: Any) -> dict[str, Any]:
    return {"phase": "Pending", **status}


def in_container(kind: str, state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return pending(**{kind: [{"name": "tgi", "state": state, **more}]})


NO_GPU = pending(
    conditions=[
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        }
    ]
)
NO_IMAGE = in_container("containerStatuses", {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}})
NO_SECRET = in_container(
    "initContainerStatuses",
    {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "tunesmith-keys" not found'}},
)
CRASHES = in_container(
    "containerStatuses",
    {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
    restartCount=3,
    lastState={"terminated": {"exitCode": 1, "message": "ValueError: unknown architecture"}},
)
TOO_BIG = in_container(
    "containerStatuses",
    {"waiting": {"reason": "CrashLoopBackOff"}},
    restartCount=3,
    lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
)


@pytest.mark.parametrize(
    ("pod", "reason", "fix"),
    [
        (NO_GPU, "NO_GPU", "add a node with a GPU"),
        (NO_IMAGE, "IMAGE_NOT_PULLED", "correct the image in the replicas' PodTemplate"),
        (NO_SECRET, "SECRET_MISSING", "create what the replicas' PodTemplate takes its environment from"),
        (CRASHES, "REPLICA_CRASHES", "exit code 1, 4 times: ValueError: unknown architecture"),
        (TOO_BIG, "OUT_OF_MEMORY", "raise it in the replicas' PodTemplate"),
    ],
)
def test_what_keeps_it_from_starting_is_told_with_the_fix_and_fails_it_after_the_limit(
    cluster: FakeCluster, opened: Open, pod: dict[str, Any], reason: str, fix: str
) -> None:
    patient, done_waiting = opened(), opened(start_timeout_s=1e-9, schedule_timeout_s=1e-9)
    patient.start(version("mv-1"))
    cluster.set_deployment(name_of(version("mv-1")), {}, pod=pod)

    found = only(patient)
    assert found.state == ("failed" if pod in (CRASHES, TOO_BIG) else "starting")
    assert found.reason == reason
    assert fix in found.detail
    only(done_waiting)
    assert only(done_waiting).state == "failed"


def test_a_crash_that_was_the_only_one_is_forgiven(cluster: FakeCluster, opened: Open) -> None:
    replicas = opened(start_timeout_s=3600)
    replicas.start(version("mv-1"))
    once = in_container("containerStatuses", {"running": {}}, restartCount=1, lastState={"terminated": {"exitCode": 1}})
    cluster.set_deployment(name_of(version("mv-1")), {}, pod=once)
    assert only(replicas).state == "starting"


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, "reason": reason, "message": message}]}


def test_pods_that_the_quota_forbids_are_told(cluster: FakeCluster, opened: Open) -> None:
    replicas = opened()
    replicas.start(version("mv-1"))
    forbidden = 'pods "tgi-x" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1'
    cluster.set_deployment(name_of(version("mv-1")), condition("ReplicaFailure", "True", "FailedCreate", forbidden))
    found = only(replicas)
    assert (found.state, found.reason) == ("starting", "QUOTA_EXHAUSTED")
    assert "raise the ResourceQuota" in found.detail


def test_the_clusters_own_deadline_fails_it_whoever_looks(cluster: FakeCluster, opened: Open) -> None:
    """A process that was started anew has not waited yet; the Deployment has."""
    opened(replica_timeout_s=600).start(version("mv-1"))
    deployment = cluster.get("deployments", name_of(version("mv-1")))
    assert deployment is not None
    assert deployment["spec"]["progressDeadlineSeconds"] == 600
    overdue = condition("Progressing", "False", "ProgressDeadlineExceeded")
    cluster.set_deployment(name_of(version("mv-1")), overdue, pod={"phase": "Running"})
    found = only(opened(replica_timeout_s=600))
    assert (found.state, found.reason) == ("failed", "REPLICA_NOT_READY")
    assert "600 s (TUNESMITH_KUBERNETES_REPLICA_TIMEOUT_S)" in found.detail


def test_without_a_template_it_says_what_to_apply(cluster: FakeCluster, opened: Open) -> None:
    with pytest.raises(FailedPrecondition, match=r"no PodTemplate 'mine'.*apply k8s/components/tgi-replicas"):
        opened(replica_template="mine").start(version("mv-1"))


@pytest.mark.parametrize(
    ("code", "message", "error"),
    [
        (403, 'deployments.apps is forbidden: User "x" cannot create resource "deployments"', PermissionRefused),
        (403, "deployments.apps is forbidden: exceeded quota: count", ResourceExhausted),
        (500, "etcd is away", Unavailable),
    ],
)
def test_refusals_of_the_api_server_are_told(
    cluster: FakeCluster, opened: Open, code: int, message: str, error: type[TunesmithError]
) -> None:
    cluster.answer_next(code, message, on=lambda method, _path: method == "POST")
    with pytest.raises(error):
        opened().start(version("mv-1"))


def test_while_the_api_server_is_away_nothing_is_taken_for_gone(cluster: FakeCluster, opened: Open) -> None:
    replicas = opened()
    replicas.start(version("mv-1"))
    cluster.is_away = True
    for ask in (replicas.all, lambda: replicas.stop(RECIPE, "mv-1"), lambda: replicas.start(version("mv-2"))):
        with pytest.raises(Unavailable):
            ask()
    cluster.is_away = False
    assert there(replicas).keys() == {"mv-1"}


def test_another_installations_deployments_are_neither_seen_nor_taken_nor_deleted(
    cluster: FakeCluster, opened: Open
) -> None:
    theirs, ours = opened(instance="theirs"), opened(instance="ours")
    theirs.start(version("mv-1"))
    assert list(ours.all()) == []
    ours.stop(RECIPE, "mv-1")
    with pytest.raises(InvalidInput, match="is not this installation's \\('theirs'\\)"):
        ours.start(version("mv-1"))
    assert there(theirs).keys() == {"mv-1"}


def test_a_deployment_that_somebody_else_made_is_left_alone(cluster: FakeCluster, opened: Open) -> None:
    fixed = {"metadata": {"name": "tgi", "labels": {"app.kubernetes.io/name": "tgi"}}, "spec": {"replicas": 2}}
    cluster.create_deployment(fixed)
    cluster.create_deployment(
        {"metadata": {"name": name_of(version("mv-1")), "labels": {"app.kubernetes.io/managed-by": "helm"}}, "spec": {}}
    )
    replicas = opened()
    assert list(replicas.all()) == []
    replicas.stop(RECIPE, "mv-1")
    with pytest.raises(InvalidInput):
        replicas.start(version("mv-1"))
    assert cluster.get("deployments", "tgi")
    assert cluster.get("deployments", name_of(version("mv-1")))


def test_one_that_is_still_being_deleted_is_not_there_and_cannot_be_started_yet(
    cluster: FakeCluster, opened: Open
) -> None:
    replicas = opened()
    replicas.start(version("mv-1"))
    found = cluster.get("deployments", name_of(version("mv-1")))
    assert found is not None
    found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
    assert list(replicas.all()) == []
    with pytest.raises(Unavailable, match="still being deleted"):
        replicas.start(version("mv-1"))
    replicas.stop(RECIPE, "mv-1")
