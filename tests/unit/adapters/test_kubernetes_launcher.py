"""What can go wrong with Jobs on a cluster, and what the launcher then says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.deadline import eventually
from doubles.kubernetes_api import FakeCluster
from tunesmith.adapters.kubernetes_launcher import KubernetesLauncher
from tunesmith.adapters.kubernetes_settings import KubernetesSettings
from tunesmith.domain.errors import (
    FailedPrecondition,
    InvalidInput,
    InvalidSettings,
    PermissionRefused,
    ResourceExhausted,
    Unavailable,
)
from tunesmith.ports.launcher import LaunchStatus

Open = Callable[..., KubernetesLauncher]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    cluster = FakeCluster(tmp_path)
    cluster.runs_pods = False
    yield cluster
    cluster.close()


@pytest.fixture
def opened(cluster: FakeCluster) -> Iterator[Open]:
    launchers = []

    def open_one(**given: object) -> KubernetesLauncher:
        settings = KubernetesSettings(**{"image": "tunesmith:1", "kubeconfig": str(cluster.kubeconfig), **given})
        launchers.append(KubernetesLauncher(settings, log_interval_s=0.05))
        return launchers[-1]

    yield open_one
    for launcher in launchers:
        launcher.close()


@pytest.fixture
def launcher(opened: Open) -> KubernetesLauncher:
    return opened()


def posts(method: str, path: str) -> bool:
    return method == "POST"


def terminated(code: int, reason: str = "Error", message: str = "") -> dict:
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return {"phase": "Failed", "containerStatuses": [{"name": "worker", "state": state}]}


def waiting(reason: str, message: str) -> dict:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "worker", "state": state}]}


def unschedulable(message: str) -> dict:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def told(launcher: KubernetesLauncher, name: str = "job") -> LaunchStatus:
    """The first status that is more than running."""
    return eventually(lambda: launcher.status(name) if launcher.status(name) != LaunchStatus("running") else None)


REFUSALS = [
    (403, 'jobs.batch is forbidden: User "x" cannot create resource "jobs"', PermissionRefused, "Role"),
    (403, "exceeded quota: small, requested: count/jobs.batch=1", ResourceExhausted, "raise the ResourceQuota"),
    (403, "namespace music is forbidden because it is being terminated", FailedPrecondition, "being deleted"),
    (401, "Unauthorized", PermissionRefused, "kubeconfig"),
    (404, 'namespaces "music" not found', FailedPrecondition, "TUNESMITH_KUBERNETES_NAMESPACE"),
    (422, "spec.template.spec.containers[0].image: Required value", InvalidInput, "image"),
    (429, "too many requests", Unavailable, "429"),
    (500, "etcdserver: request timed out", Unavailable, "500"),
]


@pytest.mark.parametrize(("code", "message", "error", "fix"), REFUSALS)
def test_a_refused_launch_says_why_and_what_helps(cluster, launcher, code, message, error, fix):
    cluster.answer_next(code, message, on=posts)

    with pytest.raises(error, match=fix):
        launcher.launch("job", ["work"], env={})

    launcher.launch("job", ["work"], env={})
    assert launcher.status("job").state == "running"


def test_a_job_of_another_installation_is_not_taken_for_ones_own(cluster, launcher, opened):
    opened(instance="theirs").launch("job", ["work"], env={})

    with pytest.raises(InvalidInput, match="TUNESMITH_KUBERNETES_INSTANCE"):
        launcher.launch("job", ["work"], env={})
    assert launcher.names() == []


def test_an_api_server_that_is_away_from_the_start_is_not_an_absent_job(cluster, launcher):
    cluster.is_away = True

    with pytest.raises(Unavailable):
        launcher.launch("job", ["work"], env={})
    with pytest.raises(Unavailable, match="not known yet"):
        launcher.status("job")

    cluster.is_away = False
    eventually(lambda: _known(launcher))
    assert launcher.status("job") == LaunchStatus("absent")


def test_what_is_known_is_still_told_while_the_api_server_is_away(cluster, launcher):
    launcher.launch("job", ["work"], env={})
    launcher.names()
    cluster.is_away = True
    cluster.sever()

    assert launcher.status("job").state == "running"
    with pytest.raises(Unavailable):
        launcher.status("other")

    cluster.is_away = False
    cluster.fail("job", "BackoffLimitExceeded")
    assert eventually(lambda: launcher.status("job").state == "lost")


@pytest.mark.parametrize("disturb", [FakeCluster.sever, lambda c: (c.forget_history(), c.sever()), FakeCluster.garble])
def test_the_watch_goes_on_after_being_cut_off_or_too_old_or_garbled(cluster, launcher, disturb):
    launcher.launch("first", ["work"], env={})
    launcher.launch("second", ["work"], env={})
    launcher.names()
    disturb(cluster)
    cluster.add_pod("first", terminated(3))
    cluster.fail("first", "BackoffLimitExceeded")
    cluster.delete_job("second")
    disturb(cluster)

    assert eventually(lambda: launcher.status("first").state == "exited")
    assert launcher.status("first").exit_code == 3
    eventually(lambda: launcher.status("second").state == "absent")
    assert launcher.names() == ["first"]


def test_more_jobs_than_a_page_are_all_known(cluster, launcher, opened):
    for number in range(8):
        launcher.launch(f"job-{number}", ["work"], env={})

    assert len(opened().names()) == 8


def test_a_memory_kill_is_recognised(cluster, launcher):
    launcher.launch("job", ["work"], env={})
    cluster.add_pod("job", terminated(137, "OOMKilled"))
    cluster.fail("job", "BackoffLimitExceeded")

    status = told(launcher)

    assert (status.state, status.exit_code, status.reason) == ("exited", -9, "OUT_OF_MEMORY")
    assert "raise memory" in status.message


def test_last_words_survive_the_pod(cluster, launcher):
    launcher.launch("job", ["work"], env={})
    pod = cluster.add_pod("job", terminated(1, message="ValueError: boom"))
    launcher.names()
    cluster.write("pods", pod, change="DELETED")
    cluster.fail("job", "BackoffLimitExceeded")

    status = told(launcher)

    assert (status.state, status.exit_code, status.log_tail) == ("exited", 1, "ValueError: boom")


def test_an_exit_code_is_known_from_the_job_when_nobody_saw_the_pod(cluster, launcher):
    launcher.launch("job", ["work"], env={})
    cluster.fail("job", "PodFailurePolicy", "Container worker for pod music/job-x failed with exit code 78 matching …")

    assert told(launcher).exit_code == 78


@pytest.mark.parametrize(("code", "reason"), [(137, "ContainerStatusUnknown"), (255, "Unknown")])
def test_an_exit_code_that_was_made_up_for_a_container_nobody_saw_end_is_not_told(cluster, launcher, code, reason):
    launcher.launch("job", ["work"], env={})
    cluster.add_pod("job", terminated(code, reason, "The container could not be located when the pod was terminated"))
    cluster.fail("job", "BackoffLimitExceeded")

    assert told(launcher) == LaunchStatus("lost")


def test_a_full_folder_of_the_pods_own_is_its_own_fault(cluster, launcher):
    launcher.launch("job", ["work"], env={})
    cluster.add_pod("job", {"phase": "Failed", "reason": "Evicted", "message": 'Usage of EmptyDir volume "data" …'})
    cluster.fail("job", "BackoffLimitExceeded")

    status = told(launcher)

    assert (status.reason, status.exit_code) == ("EVICTED", 1)
    assert "raise disk" in status.message


def test_a_pod_that_was_drained_away_is_replaced_and_the_launch_goes_on(cluster, launcher):
    launcher.launch("job", ["work"], env={})
    drained = terminated(143) | {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}
    cluster.add_pod("job", drained)
    cluster.add_pod("job", {"phase": "Running"})

    assert launcher.status("job") == LaunchStatus("running")


TAKEN_AWAY = terminated(143) | {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}


@pytest.mark.parametrize(
    ("first", "second", "state", "code", "log"),
    [
        (terminated(75, message="gone"), terminated(1, message="the cause"), "exited", 1, "the cause"),
        (terminated(71, message="the cause"), terminated(75, message="gone"), "exited", 71, "the cause"),
        (terminated(75, message="saved"), terminated(75, message="saved"), "exited", 75, "saved"),
        (terminated(1, message="the cause"), terminated(137, message=""), "exited", 1, "the cause"),
        (terminated(1, message="gone"), TAKEN_AWAY, "lost", None, "gone"),
    ],
)
def test_of_pods_that_share_a_training_the_one_that_the_others_followed_is_told(
    cluster, launcher, first, second, state, code, log
):
    launcher.launch("job", ["work"], env={})
    for pod in [cluster.add_pod("job", first), cluster.add_pod("job", second)]:
        launcher.names()
        cluster.write("pods", pod, change="DELETED")
    cluster.fail("job", "BackoffLimitExceeded")

    status = told(launcher)

    assert (status.state, status.exit_code, status.log_tail) == (state, code, log)


def test_a_deadline_that_passed_is_the_end_and_a_stop_is_not_that(cluster, launcher):
    launcher.launch("job", ["work"], env={})
    launcher.launch("stopped", ["work"], env={})
    cluster.fail("job", "DeadlineExceeded")

    status = told(launcher)
    launcher.stop("stopped", grace_s=0.0)

    assert (status.reason, status.fatal) == ("DEADLINE_EXCEEDED", True)
    assert launcher.status("stopped") == LaunchStatus("lost")


PROBLEMS = [
    (waiting("ImagePullBackOff", "manifest unknown"), "IMAGE_NOT_PULLED", "TUNESMITH_KUBERNETES_IMAGE"),
    (waiting("CreateContainerConfigError", 'secret "keys" not found'), "SECRET_MISSING", "ENV_FROM"),
    (waiting("CreateContainerConfigError", 'configmap "x" not found'), "CONFIG_MISSING", "ENV_FROM"),
    (waiting("RunContainerError", "exec: no such file"), "CONTAINER_NOT_STARTABLE", "exec"),
    (unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."), "NO_GPU", "device plugin"),
    (unschedulable("0/1 nodes are available: 1 Insufficient memory."), "UNSCHEDULABLE", "add nodes"),
]


@pytest.mark.parametrize(("status", "reason", "fix"), PROBLEMS)
def test_a_pod_that_cannot_start_says_why_and_is_stuck_after_a_while(cluster, opened, status, reason, fix):
    patient, impatient = opened(), opened(start_timeout_s=0.05, schedule_timeout_s=0.05)
    patient.launch("job", ["work"], env={})
    cluster.add_pod("job", status)

    seen = told(patient)
    assert (seen.state, seen.reason) == ("running", reason)
    assert fix in seen.message
    assert eventually(lambda: impatient.status("job").state == "stuck")
    impatient.stop("job", grace_s=0.0)
    assert impatient.status("job").state == "lost"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('Error creating: pods "job-x" is forbidden: exceeded quota: small', "QUOTA_EXHAUSTED"),
        ('Error creating: pods "job-x" is forbidden: violates PodSecurity "restricted:latest"', "POD_REFUSED"),
        ('Error creating: pods "job-x" is forbidden: serviceaccount "tunesmith-job" not found', "POD_REFUSED"),
    ],
)
def test_a_pod_that_is_not_even_made_is_explained_by_events(cluster, launcher, monkeypatch, message, reason):
    monkeypatch.setattr("tunesmith.adapters.kubernetes_launcher._EVENTS_AFTER_S", 0.01)
    launcher.launch("job", ["work"], env={})
    cluster.add_event(cluster.job("job")["metadata"]["uid"], "FailedCreate", message)

    status = told(launcher)

    assert (status.state, status.reason) == ("running", reason)


def test_a_job_in_a_queue_waits_as_long_as_the_queue_likes_and_can_be_taken_out(cluster, opened):
    launcher = opened(queue="night", start_timeout_s=0.01, schedule_timeout_s=0.01)
    launcher.launch("job", ["work"], env={})

    assert told(launcher).reason == "QUEUED"
    time.sleep(0.05)
    assert launcher.status("job").state == "running"
    launcher.stop("job", grace_s=0.0)
    assert launcher.status("job").state == "absent"


def test_a_retired_job_goes_by_itself_and_a_forgotten_one_at_once(cluster, opened):
    launcher = opened(keep_s=600)
    for name in ("kept", "gone", "alive"):
        launcher.launch(name, ["work"], env={})
    cluster.fail("kept", "BackoffLimitExceeded")
    cluster.fail("gone", "BackoffLimitExceeded")
    eventually(lambda: launcher.status("gone").state == launcher.status("kept").state == "lost")

    for name in ("kept", "alive", "never"):
        launcher.retire(name)
    launcher.forget("gone")

    assert cluster.job("kept")["spec"]["ttlSecondsAfterFinished"] == 600
    assert cluster.job("alive")["spec"]["ttlSecondsAfterFinished"] > 600
    assert cluster.get("jobs", "gone") is None
    with pytest.raises(FailedPrecondition, match="still running"):
        launcher.forget("alive")


def test_nothing_is_asked_of_the_cluster_before_the_first_launch(cluster, opened):
    opened()

    assert cluster.requests == []


def test_jobs_run_from_the_services_own_image_inside_a_cluster(cluster, opened, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("HOSTNAME", "trainer-1")
    own = {"metadata": {"name": "trainer-1", "uid": "1"}, "spec": {"containers": [{"image": "trainer:2"}]}}
    cluster.write("pods", own, change="ADDED")

    opened(image="").launch("job", ["work"], env={})

    assert cluster.job("job")["spec"]["template"]["spec"]["containers"][0]["image"] == "trainer:2"


def test_outside_of_a_cluster_an_image_must_be_named(opened, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(InvalidSettings, match="TUNESMITH_KUBERNETES_IMAGE"):
        opened(image="").launch("job", ["work"], env={})


def test_a_missing_kubeconfig_is_a_wrong_setting(tmp_path):
    settings = KubernetesSettings(image="tunesmith:1", kubeconfig=str(tmp_path / "none"))

    with pytest.raises(InvalidSettings, match="TUNESMITH_KUBERNETES_KUBECONFIG"):
        KubernetesLauncher(settings).launch("job", ["work"], env={})


def _known(launcher: KubernetesLauncher) -> bool:
    try:
        launcher.names()
    except Unavailable:
        return False
    return True
