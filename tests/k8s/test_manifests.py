"""Every object of every overlay: the schemas of Kubernetes, kube-linter, and what the issue of rights demands."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import real_parts as parts
import yaml

from fixtures_real_parts import left_out
from k8s.schemas import VERSIONS, check
from tunesmith.adapters.kubernetes_job import render_job
from tunesmith.adapters.kubernetes_replica import render_replica
from tunesmith.adapters.kubernetes_settings import KubernetesSettings
from tunesmith.domain.models import ModelVersion
from tunesmith.settings import Settings, read_settings

K8S = Path(__file__).parents[2] / "k8s"
OVERLAYS = sorted(path.parent.name for path in (K8S / "overlays").glob("*/kustomization.yaml"))
SERVICES = ["captioner", "generator", "scraper", "trainer"]

_rendered: dict[str, str] = {}

Object = dict[str, Any]


def render(folder: Path) -> subprocess.CompletedProcess[str]:
    try:
        command = parts.render_command()
    except parts.PartMissing as missing:
        left_out(str(missing))
    return subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)


def rendered(overlay: str) -> str:
    """An overlay as `kubectl apply -k` would send it."""
    if overlay not in _rendered:
        done = render(K8S / "overlays" / overlay)
        assert done.returncode == 0, done.stderr
        _rendered[overlay] = done.stdout
    return _rendered[overlay]


def local_with(folder: Path, component: str, **data: str) -> subprocess.CompletedProcess[str]:
    """The local overlay with a component more, and entries of its settings, as an overlay of one's own has them."""
    at = Path(os.path.relpath(K8S, folder.resolve()))
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "tunesmith",
        "resources": [str(at / "overlays" / "local")],
        "components": [str(at / "components" / component)],
        "configMapGenerator": [
            {
                "name": "tunesmith",
                "behavior": "merge",
                "literals": [f"{name}={value}" for name, value in data.items()],
                "options": {"disableNameSuffixHash": True},
            }
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    return render(folder)


def objects(overlay: str) -> list[Object]:
    return list(yaml.safe_load_all(rendered(overlay)))


def of_kind(overlay: str, kind: str) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in objects(overlay) if item["kind"] == kind}


def replicas(overlay: str) -> list[Object]:
    """The Deployments that the trainer would make of the overlay's templates, for a version on either kind of base."""
    made = []
    for template in of_kind(overlay, "PodTemplate").values():
        with pytest.MonkeyPatch.context() as patch:
            for name, value in of_kind(overlay, "ConfigMap")["tunesmith"]["data"].items():
                patch.setenv(name, value)
            settings = read_settings(KubernetesSettings)
        for base, fingerprint in (("builtin:micro", "f" * 64), ("org/base-1b", "hub:org/base-1b")):
            version = ModelVersion(
                f"mv-{fingerprint[:3]}", "micro_genre", "run", "ds", base, fingerprint, "k/", "h", "rep", True, ""
            )
            made.append(render_replica(version, template, settings))
            made[-1]["metadata"]["namespace"] = "tunesmith"
    return made


def pods(overlay: str) -> Iterator[tuple[str, Object]]:
    for item in [*objects(overlay), *replicas(overlay)]:
        if item["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield item["metadata"]["name"], item["spec"]["template"]["spec"]


def job_of(overlay: str, kind: str, *, nodes: int = 1) -> Object:
    """The Job that a service would launch with the overlay's settings."""
    data = of_kind(overlay, "ConfigMap")["tunesmith"]["data"] | {"TUNESMITH_KUBERNETES_MODEL__NODES": str(nodes)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in data.items():
            patch.setenv(name, value)
        settings = read_settings(KubernetesSettings, image="tunesmith-trainer:0.1.0")
        env = Settings.read().worker_env()
    return render_job(f"{kind}-job-1", ["python", "-m", "tunesmith_trainer", "work", "job", "1"], env, settings)


def lint(overlay: str, text: str, file: Path) -> None:
    """Assert that kube-linter has nothing to say about objects, and about Jobs as an overlay has them launched."""
    jobs = [job_of(overlay, "tune", nodes=2), job_of(overlay, "judge", nodes=2)]
    for job in jobs:
        job["metadata"]["namespace"] = "tunesmith"
    file.write_text(f"{text}---\n{yaml.safe_dump_all(jobs)}")
    try:
        linter = parts.kube_linter()
    except parts.PartMissing as missing:
        left_out(str(missing))
    done = subprocess.run([linter, "lint", "--format", "json", str(file)], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert [f"{r['Check']}: {r['Diagnostic']['Message']}" for r in found["Reports"] or []] == []
    assert done.returncode == 0, done.stderr
    assert found["Summary"]["ChecksStatus"] == "Passed"


def test_there_are_overlays():
    assert OVERLAYS == ["gpu", "local"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_objects_fit_the_schemas(overlay, version):
    jobs = (job_of(overlay, kind, nodes=2) for kind in ("tune", "collect"))
    for item in [*objects(overlay), *jobs, *replicas(overlay)]:
        check(item, version)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kube_linter_has_nothing_to_say(overlay, tmp_path):
    replicated = yaml.safe_dump_all(replicas(overlay))
    lint(overlay, f"{rendered(overlay)}---\n{replicated}", tmp_path / "all.yaml")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_keeps_the_restricted_rules_and_has_its_own_account(overlay):
    accounts = of_kind(overlay, "ServiceAccount")
    namespace = of_kind(overlay, "Namespace")["tunesmith"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, pod in pods(overlay):
        assert pod["serviceAccountName"] == ("tgi" if name.startswith("tgi-") else name)
        assert pod["serviceAccountName"] in accounts
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys() & container["resources"][
                "limits"
            ].keys()
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert all(volume.keys() & {"emptyDir", "configMap", "persistentVolumeClaim"} for volume in volumes.values())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_those_who_launch_jobs_have_rights_and_only_those(overlay):
    bindings, roles = of_kind(overlay, "RoleBinding"), of_kind(overlay, "Role")
    assert bindings.keys() == roles.keys() <= {"tunesmith-launcher", "tunesmith-replicas"}
    binding, role = bindings["tunesmith-launcher"], roles["tunesmith-launcher"]

    assert {subject["name"] for subject in binding["subjects"]} == {"scraper", "captioner", "trainer"}
    assert [(rule["resources"], sorted(rule["verbs"])) for rule in role["rules"]] == [
        (["jobs"], ["create", "delete", "get", "list", "patch", "watch"]),
        (["pods"], ["delete", "get", "list", "watch"]),
        (["pods/log"], ["get"]),
        (["events"], ["list"]),
    ]
    assert not of_kind(overlay, "ClusterRole")
    assert not of_kind(overlay, "ClusterRoleBinding")
    tokens = {name for name, pod in pods(overlay) if pod["automountServiceAccountToken"]}
    assert tokens == {"scraper", "captioner", "trainer"}


def test_only_the_trainer_may_make_deployments_and_from_one_template():
    [subject] = of_kind("gpu", "RoleBinding")["tunesmith-replicas"]["subjects"]
    assert subject["name"] == "trainer"
    assert of_kind("gpu", "Role")["tunesmith-replicas"]["rules"] == [
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["create", "get", "list", "delete"]},
        {"apiGroups": [""], "resources": ["podtemplates"], "resourceNames": ["tgi"], "verbs": ["get"]},
    ]
    assert "tunesmith-replicas" not in of_kind("local", "Role")


def test_the_service_of_the_servers_sees_every_replica_and_a_selector_sees_one():
    service = of_kind("gpu", "Service")["tgi"]["spec"]
    labels = [replica["spec"]["template"]["metadata"]["labels"] for replica in replicas("gpu")]
    assert service["clusterIP"] == "None"
    assert all(service["selector"].items() <= of_one.items() for of_one in labels)
    for replica in replicas("gpu"):
        selected = [of_one for of_one in labels if replica["spec"]["selector"]["matchLabels"].items() <= of_one.items()]
        assert len(selected) == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_can_be_balanced_probed_drained_and_replaced(overlay):
    services, budgets = of_kind(overlay, "Service"), of_kind(overlay, "PodDisruptionBudget")
    deployments = of_kind(overlay, "Deployment")
    for name in SERVICES:
        spec = deployments[name]["spec"]
        [container] = spec["template"]["spec"]["containers"]
        port = container["ports"][0]["containerPort"]
        assert services[name]["spec"]["clusterIP"] == "None", "clients must see every pod"
        assert services[name]["spec"]["ports"][0]["port"] == port
        assert all(container[f"{probe}Probe"]["grpc"]["port"] == port for probe in ("startup", "readiness", "liveness"))
        assert spec["replicas"] == 2
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert budgets[name]["spec"]["selector"] == spec["selector"]
        pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > pause_s + 2 * Settings().drain_s


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_may_talk_but_to_those_that_are_named(overlay):
    policies = of_kind(overlay, "NetworkPolicy")

    deny = policies["deny-all"]["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    # A rule without `from` would let everyone in.
    assert all(rule.get("from") for policy in policies.values() for rule in policy["spec"].get("ingress", []))


def test_one_setting_sends_spans_to_a_collector_and_opens_the_way_there(tmp_path):
    endpoint = "http://otel-collector.observability:14317"

    done = local_with(tmp_path, "otel", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)

    assert done.returncode == 0, done.stderr
    items = {(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(done.stdout)}
    for item in items.values():
        check(item, VERSIONS[0])
        check(item, VERSIONS[-1])
    lint("local", done.stdout, tmp_path / "all.yaml")
    assert items["ConfigMap", "tunesmith"]["data"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == endpoint
    way, outward = items["NetworkPolicy", "to-otel-collector"]["spec"], items["NetworkPolicy", "outward"]["spec"]
    assert way["egress"] == [{"ports": [{"protocol": "TCP", "port": 14317}]}]
    assert way["podSelector"] == outward["podSelector"], "every process that has spans"
    assert way["policyTypes"] == ["Egress"]


def test_a_collector_without_an_address_is_no_overlay(tmp_path):
    done = local_with(tmp_path, "otel")

    assert done.returncode != 0
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in done.stderr


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_that_share_a_training_find_and_reach_each_other_and_nobody_else_does(overlay):
    labels = job_of(overlay, "tune", nodes=2)["spec"]["template"]["metadata"]["labels"].items()
    pod = job_of(overlay, "tune", nodes=2)["spec"]["template"]["spec"]
    env = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
    service = of_kind(overlay, "Service")[pod["subdomain"]]["spec"]
    rules = of_kind(overlay, "NetworkPolicy")["rendezvous"]["spec"]
    [inward], [outward] = rules["ingress"], rules["egress"]
    port = int(env["TUNESMITH_TRAINER_RENDEZVOUS"].rpartition(":")[2])

    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert service["selector"].items() <= labels
    assert [entry["port"] for entry in service["ports"]] == [port]
    assert rules["podSelector"]["matchLabels"] == service["selector"]
    assert inward["from"] == outward["to"] == [{"podSelector": rules["podSelector"]}]
    assert inward["ports"] == outward["ports"]
    assert port in [entry["port"] for entry in inward["ports"]]
    for other in (job_of(overlay, "tune"), job_of(overlay, "judge", nodes=2)):
        assert not service["selector"].items() <= other["spec"]["template"]["metadata"]["labels"].items()


def test_only_model_jobs_of_the_gpu_overlay_get_a_gpu():
    def gpus(overlay: str, kind: str) -> str | None:
        pod = job_of(overlay, kind)["spec"]["template"]["spec"]
        return pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")

    assert [gpus("gpu", kind) for kind in ("tune", "judge", "sweep", "promote", "publish")] == ["1"] * 3 + [None] * 2
    assert gpus("local", "tune") is None
    served = [replica["spec"]["template"]["spec"]["containers"][0] for replica in replicas("gpu")]
    assert [container["resources"]["limits"]["nvidia.com/gpu"] for container in served] == ["1", "1"]
    assert replicas("local") == []


def test_servers_can_also_be_started_by_the_operator_alone(tmp_path):
    """components/tgi without components/tgi-replicas."""
    parents = [K8S / "base", K8S / "components" / "tgi"]
    base, component = (os.path.relpath(path, tmp_path.resolve()) for path in parents)
    settings = {"name": "tunesmith", "literals": ["TUNESMITH_SERVING=grpc://generator:50404"]}
    settings |= {"options": {"disableNameSuffixHash": True}}
    given = {"resources": [base], "components": [component], "configMapGenerator": [settings]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(given))
    done = subprocess.run([*parts.render_command(), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(done.stdout)}
    pod = found["Deployment", "tgi"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "TUNESMITH_SERVING_REPLICAS" not in found["ConfigMap", "tunesmith"]["data"]
    for item in found.values():
        check(item, VERSIONS[-1])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_credential_stands_in_a_pod_or_a_configmap(overlay):
    keys = of_kind(overlay, "Secret").get("tunesmith-keys", {}).get("data", {})
    plain = json.dumps([item for item in objects(overlay) if item["kind"] != "Secret"])

    assert not any(
        "KEY" in name or "PASSWORD" in name for item in of_kind(overlay, "ConfigMap").values() for name in item["data"]
    )
    for name in keys:
        assert f'"name": "{name}", "value":' not in plain
