"""The Job that a launch becomes."""

from __future__ import annotations

import re

import pytest

from k8s.schemas import VERSIONS, check
from tunesmith.adapters.kubernetes_job import job_name, render_job
from tunesmith.adapters.kubernetes_settings import KubernetesSettings
from tunesmith.domain.errors import InvalidSettings
from tunesmith.settings import read_settings

LAUNCH = "tune-5a1f1f6e-7b0c-5c53-9d1e-6f5a2b9d7c11-2"
ARGV = ["python", "-m", "tunesmith_trainer", "work", "5a1f1f6e", "2"]


def rendered(launch: str = LAUNCH, *, env: dict[str, str] | None = None, **given: object) -> dict:
    return render_job(launch, ARGV, env or {}, KubernetesSettings(image="tunesmith:1", **given))


def pod_of(job: dict) -> dict:
    return job["spec"]["template"]["spec"]


@pytest.mark.parametrize("launch", [LAUNCH, "a", "a_b.c", "x" * 63, "tune-" + "9" * 58, "_", "judge-a--1"])
def test_a_jobs_name_is_a_label_and_its_pods_have_room(launch):
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,56}[a-z0-9])?", job_name(launch))
    assert job_name(launch) == job_name(launch)


def test_a_launch_of_a_job_keeps_its_name_and_names_that_change_stay_apart():
    assert job_name(LAUNCH) == LAUNCH
    assert len({job_name(name) for name in ("a_b", "a.b", "a-b", "x" * 62, "x" * 63)}) == 5


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"queue": "night", "image_pull_secret": "registry", "env_from": "configmap/tunesmith,secret/tunesmith"},
        {"model": {"gpu": 2, "shm": "8Gi", "node_selector": {"gpu": "a100"}, "nodes": 4, "processes": 2}},
    ],
)
def test_it_fits_the_schemas_of_kubernetes(version, given):
    check(rendered(env={"A": "b"}, **given), version)


def test_attempts_are_the_reconcilers_and_disruptions_are_free():
    spec = rendered()["spec"]

    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    first, second = spec["podFailurePolicy"]["rules"]
    assert first["action"] == "Ignore"
    assert first["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert (second["action"], second["onExitCodes"]["values"]) == ("FailJob", [78])
    assert spec["ttlSecondsAfterFinished"] >= 7 * 86_400, "not before its outcome was read"


def test_its_pod_keeps_the_restricted_rules():
    pod = pod_of(rendered())
    container = pod["containers"][0]

    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert pod["automountServiceAccountToken"] is False
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/tmp"}


def test_only_jobs_that_compute_with_a_model_get_gpus():
    settings = {"model": {"gpu": 1, "shm": "2Gi", "memory": "16Gi"}}

    tune, curate = pod_of(rendered(**settings)), pod_of(rendered("curate-1-1", **settings))

    assert tune["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert tune["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}} in tune["volumes"]
    assert "nvidia.com/gpu" not in curate["containers"][0]["resources"]["limits"]
    assert "tolerations" not in curate


def test_merging_has_a_models_memory_and_waits_for_no_gpu_and_its_nodes():
    model = {"gpu": 2, "processes": 2, "cpu": "2", "shm": "2Gi", "memory": "16Gi", "node_selector": {"gpu": "a100"}}

    publish = pod_of(rendered("publish-1-1", model=model, work={"node_selector": {"pool": "cpu"}}))

    assert publish["containers"][0]["resources"]["limits"] == {"cpu": "2", "memory": "16Gi"}
    assert publish["nodeSelector"] == {"pool": "cpu"}
    assert "tolerations" not in publish
    assert {volume["name"] for volume in publish["volumes"]} == {"data", "tmp"}


def test_a_kind_may_have_a_shape_of_its_own():
    publish = pod_of(rendered("publish-1-1", kinds={"publish": {"gpu": 1, "memory": "8Gi"}}))

    assert publish["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "8Gi", "nvidia.com/gpu": "1"}


def test_credentials_come_from_secrets_and_are_never_written_into_the_job():
    env = {"TUNESMITH_BUS": "kafka://b:9092", "TUNESMITH_S3_SECRET_KEY": "hush", "TUNESMITH_LLM_API_KEY": "hush"}

    job = rendered(env=env, env_from="configmap/settings,secret/keys")

    assert "hush" not in str(job)
    container = pod_of(job)["containers"][0]
    assert {"name": "TUNESMITH_BUS", "value": "kafka://b:9092"} in container["env"]
    assert container["envFrom"] == [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}}]


def test_words_and_values_reach_the_process_as_they_are():
    job = render_job("a", ["p", "$(HOME)"], {"A": "$(B)"}, KubernetesSettings(image="i"))

    container = pod_of(job)["containers"][0]
    assert container["command"] == ["p", "$$(HOME)"], "Kubernetes would put a variable's value there"
    assert {"name": "A", "value": "$$(B)"} in container["env"]


def env_of(job: dict) -> dict:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in pod_of(job)["containers"][0]["env"]}


def test_several_nodes_are_an_indexed_job_whose_pods_find_the_first_one():
    job = rendered(model={"nodes": 3, "processes": 2, "grace_s": 90})

    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 3, 3)
    assert pod_of(job)["subdomain"] == "tunesmith-jobs"
    assert pod_of(job)["containers"][0]["command"] == ARGV
    env = env_of(job)
    assert (env["TUNESMITH_TRAINER_PROCESSES"], env["TUNESMITH_TRAINER_NODES"]) == ("2", "3")
    assert env["TUNESMITH_TRAINER_RENDEZVOUS"] == f"{LAUNCH}-0.tunesmith-jobs:29500"
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert env["TUNESMITH_TRAINER_NODE"] == {"fieldRef": {"fieldPath": index}}
    assert env["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "90", "as long as Kubernetes lets them save"


def test_a_pod_that_is_taken_from_several_ends_the_whole_attempt():
    assert rendered(model={"nodes": 2})["spec"]["podFailurePolicy"]["rules"][0]["action"] == "FailJob"
    assert rendered(model={"processes": 2})["spec"]["podFailurePolicy"]["rules"][0]["action"] == "Ignore"


@pytest.mark.parametrize("kind", ["judge", "sweep", "publish"])
def test_other_work_on_models_is_one_process_whatever_trainings_are(kind):
    job = rendered(f"{kind}-1-1", model={"nodes": 3, "processes": 2, "gpu": 2})

    assert "completions" not in job["spec"]
    assert not {name for name in env_of(job) if name.startswith("TUNESMITH_TRAINER_") and "SHARE" not in name}
    gpus = pod_of(job)["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
    assert gpus == (None if kind == "publish" else "1")


def test_a_queue_of_kueue_gets_the_job_suspended():
    job = rendered(queue="night")

    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "night"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("ENV_FROM", "keys", "configmap/NAME or secret/NAME"),
        ("MODEL__MEMORY", "lots", "Kubernetes quantity"),
        ("MODEL__GPU", "-1", "greater than or equal to 0"),
        ("MODEL__GPUS", "1", "Extra inputs"),
        ("INSTANCE", "Ours", "lower-case"),
        ("MODEL", '{"gpu": 4}', "gpu=4 and processes=1"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch, name, value, told):
    monkeypatch.setenv("TUNESMITH_KUBERNETES_IMAGE", "tunesmith:1")
    monkeypatch.setenv(f"TUNESMITH_KUBERNETES_{name}", value)

    with pytest.raises(InvalidSettings, match=rf"TUNESMITH_KUBERNETES_{name}\b.*{told}"):
        read_settings(KubernetesSettings)


def test_a_part_of_a_shape_is_a_variable(monkeypatch):
    monkeypatch.setenv("TUNESMITH_KUBERNETES_IMAGE", "tunesmith:1")
    monkeypatch.setenv("TUNESMITH_KUBERNETES_MODEL__GPU", "1")
    monkeypatch.setenv("TUNESMITH_KUBERNETES_MODEL__NODE_SELECTOR", '{"gpu": "a100"}')

    shape = read_settings(KubernetesSettings).shape("tune")

    assert (shape.gpu, shape.node_selector) == (1, {"gpu": "a100"})
