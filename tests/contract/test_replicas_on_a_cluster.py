"""Replicas on a real cluster: the one of KUBECONFIG, with an image of its nodes that has Python.

KUBECONFIG=… TUNESMITH_TEST_IMAGE=tunesmith-scraper:0.1.0 pytest tests/contract/test_replicas_on_a_cluster.py
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from contract.deadline import eventually
from contract.replicas_contract import RECIPE, ReplicasContract, version
from tunesmith.adapters.kubernetes_replica import REPLICA_LABEL, replica_name
from tunesmith.adapters.kubernetes_replicas import KubernetesReplicas
from tunesmith.adapters.kubernetes_settings import KubernetesSettings
from tunesmith.domain.errors import PermissionRefused
from tunesmith.domain.models import ModelVersion
from tunesmith.ports.replicas import Replica

KUBECONFIG, IMAGE = os.environ.get("KUBECONFIG", ""), os.environ.get("TUNESMITH_TEST_IMAGE", "")
K8S = Path(__file__).parents[2] / "k8s"
TIMEOUT_S = 120.0

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        not (KUBECONFIG and IMAGE), reason="needs a cluster: set KUBECONFIG and TUNESMITH_TEST_IMAGE (with python)"
    ),
]

SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080, bind='0.0.0.0')"
FETCH = "import os; open('/models/' + os.environ['TUNESMITH_REPLICA_VERSION'], 'w').close()"
SMALL = {"cpu": "20m", "memory": "64Mi"}


def template(**changes: Any) -> dict[str, Any]:
    """The PodTemplate that we ship, with a server that is small; `changes` are the server's."""
    item: dict[str, Any] = yaml.safe_load((K8S / "components" / "tgi-replicas" / "template.yaml").read_text())
    pod = item["template"]["spec"] | {"terminationGracePeriodSeconds": 3}
    item["template"]["spec"] = pod
    [fetch], [server] = pod["initContainers"], pod["containers"]
    fetch |= {"command": ["python", "-c", FETCH], "envFrom": [], "env": [], "image": IMAGE}
    server |= {"command": ["python", "-c", SERVE], "args": [], "envFrom": [], "image": IMAGE, "workingDir": "/tmp"}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        server[probe] = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1, "failureThreshold": 300}
    server["lifecycle"] = {"preStop": {"sleep": {"seconds": 1}}}
    for container in (fetch, server):
        container["imagePullPolicy"] = "IfNotPresent"
        container["resources"] = {"requests": SMALL, "limits": {**SMALL, "cpu": "1"}}
    server |= changes
    return item


def kubectl(*words: str, given: Any = None) -> str:
    done = subprocess.run(
        ["kubectl", *words],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        input=yaml.safe_dump_all(given or []),
    )
    return done.stdout


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of the test's own, with the strictest rules for pods, and in it what the overlay has."""
    namespace = f"replicas-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", namespace)
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    for account in ("tgi", "trainer", "scraper", "captioner"):
        kubectl("-n", namespace, "create", "serviceaccount", account)
    roles = [*yaml.safe_load_all((K8S / "base" / "launcher.yaml").read_text())]
    roles += yaml.safe_load_all((K8S / "components" / "tgi-replicas" / "rights.yaml").read_text())
    service = [
        item
        for item in yaml.safe_load_all((K8S / "components" / "tgi" / "tgi.yaml").read_text())
        if item["kind"] == "Service"
    ]
    kubectl("-n", namespace, "apply", "-f", "-", given=[*roles, *service, template()])
    yield namespace
    kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def opened(namespace: str, tmp_path: Path) -> Iterator[Callable[..., KubernetesReplicas]]:
    """As the trainer's account, which has the rights of the overlay and no others."""
    token = kubectl("-n", namespace, "create", "token", "trainer").strip()
    config = yaml.safe_load(Path(KUBECONFIG).read_text())
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    made = []

    def open_one(**given: object) -> KubernetesReplicas:
        common = {"kubeconfig": str(tmp_path / "kubeconfig"), "namespace": namespace}
        made.append(KubernetesReplicas(KubernetesSettings(**{**common, **given})))  # type: ignore[arg-type]
        return made[-1]

    yield open_one
    for replicas in made:
        replicas.close()


class TestReplicasOnACluster(ReplicasContract):
    """Real Deployments."""

    TIMEOUT_S = TIMEOUT_S

    @pytest.fixture
    def opener(self, opened: Callable[..., KubernetesReplicas]) -> Callable[[], KubernetesReplicas]:
        return opened

    @pytest.fixture
    def make_ready(self) -> Callable[[ModelVersion], None]:
        """The kubelet does."""
        return lambda _: None


def listed(namespace: str, kind: str, *words: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(kubectl("-n", namespace, "get", kind, "-o", "json", *words))["items"]
    return items


def addresses(namespace: str) -> int:
    """Of servers that the headless Service gives out."""
    slices = listed(namespace, "endpointslices", "-l", "kubernetes.io/service-name=tgi")
    return sum(bool(e["conditions"]["ready"]) for one in slices for e in one["endpoints"] or [])


def test_a_new_server_joins_the_service_beside_the_old_one_which_leaves_it_when_it_is_stopped(
    namespace: str, opened: Callable[..., KubernetesReplicas]
) -> None:
    replicas = opened()
    for count, name in enumerate(("mv-1", "mv-2"), start=1):
        replicas.start(version(name))
        eventually(lambda: all(r.state == "ready" for r in replicas.all()), timeout_s=TIMEOUT_S)
        eventually(lambda expected=count: addresses(namespace) == expected, timeout_s=TIMEOUT_S)  # type: ignore[misc]
    replicas.stop(RECIPE, "mv-1")
    eventually(lambda: addresses(namespace) == 1, timeout_s=TIMEOUT_S)
    name = replica_name(RECIPE, "mv-1", KubernetesSettings())
    eventually(lambda: not listed(namespace, "pods", "-l", f"{REPLICA_LABEL}={name}"), timeout_s=TIMEOUT_S)
    assert list(replicas.all()) == [Replica(RECIPE, "mv-2", "ready")]


def test_a_server_whose_pod_is_deleted_comes_back(namespace: str, opened: Callable[..., KubernetesReplicas]) -> None:
    replicas = opened()
    replicas.start(version("mv-1"))
    eventually(lambda: [r.state for r in replicas.all()] == ["ready"], timeout_s=TIMEOUT_S)
    kubectl("-n", namespace, "delete", "pod", "-l", "app.kubernetes.io/managed-by=tunesmith", "--wait=false")
    eventually(lambda: [r.state for r in replicas.all()] == ["starting"], timeout_s=TIMEOUT_S)
    eventually(lambda: [r.state for r in replicas.all()] == ["ready"], timeout_s=TIMEOUT_S)


TROUBLES = [
    ({"image": "no.such.registry.invalid/tgi:9"}, "IMAGE_NOT_PULLED"),
    ({"envFrom": [{"configMapRef": {"name": "no-such-map"}}]}, "CONFIG_MISSING"),
    ({"resources": {"limits": {**SMALL, "nvidia.com/gpu": "1"}}}, "NO_GPU"),
    ({"command": ["python", "-c", "raise SystemExit('no such model')"]}, "REPLICA_CRASHES"),
    ({"securityContext": {"privileged": True}}, "POD_REFUSED"),
    ({"command": ["python", "-c", "import time; time.sleep(10**6)"]}, "REPLICA_NOT_READY"),
]


@pytest.mark.parametrize(("server", "reason"), TROUBLES)
def test_what_keeps_a_server_from_starting_is_told_and_fails_it(
    namespace: str, opened: Callable[..., KubernetesReplicas], server: dict[str, Any], reason: str
) -> None:
    kubectl("-n", namespace, "apply", "-f", "-", given=[template(**server)])
    replicas = opened(start_timeout_s=1, schedule_timeout_s=1, replica_timeout_s=20)
    replicas.start(version("mv-1"))
    eventually(lambda: replicas.all()[0].state == "failed", timeout_s=TIMEOUT_S)
    assert replicas.all()[0].reason == reason, replicas.all()[0].detail
    replicas.stop(RECIPE, "mv-1")
    assert list(replicas.all()) == []


def test_a_quota_that_is_used_up_is_told(namespace: str, opened: Callable[..., KubernetesReplicas]) -> None:
    kubectl("-n", namespace, "create", "quota", "nothing", "--hard=pods=0")
    replicas = opened(schedule_timeout_s=1)
    replicas.start(version("mv-1"))
    eventually(lambda: replicas.all()[0].reason == "QUOTA_EXHAUSTED", timeout_s=TIMEOUT_S)


def test_an_account_without_the_right_is_refused_with_the_fix(
    namespace: str, opened: Callable[..., KubernetesReplicas]
) -> None:
    kubectl("-n", namespace, "delete", "rolebinding", "tunesmith-replicas")
    with pytest.raises(PermissionRefused, match="tunesmith-replicas"):
        opened().start(version("mv-1"))
