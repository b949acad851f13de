"""The launcher's contract on a real cluster: the one of KUBECONFIG, with an image of its nodes that has Python.

KUBECONFIG=… TUNESMITH_TEST_IMAGE=tunesmith-scraper:0.1.0 pytest tests/contract/test_launcher_on_a_cluster.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from contract.deadline import eventually
from contract.launcher_contract import LauncherContract, Opener, ended, program
from tunesmith.adapters.kubernetes_launcher import KubernetesLauncher
from tunesmith.adapters.kubernetes_settings import KubernetesSettings
from tunesmith.domain.errors import PermissionRefused
from tunesmith.ports.launcher import Launcher

KUBECONFIG, IMAGE = os.environ.get("KUBECONFIG", ""), os.environ.get("TUNESMITH_TEST_IMAGE", "")

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        not (KUBECONFIG and IMAGE), reason="needs a cluster: set KUBECONFIG and TUNESMITH_TEST_IMAGE (with python)"
    ),
    # A cluster for trying may have a certificate that nobody has signed; its kubeconfig then says so.
    pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"),
]

PATIENT: dict[str, Any] = {"timeout_s": 120.0}

_opened: list[KubernetesLauncher] = []


class OfTheImage(KubernetesLauncher):
    """Starts the image's Python where a test names this machine's."""

    def launch(self, name: str, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
        words = ["python", *argv[1:]] if argv and argv[0] == sys.executable else argv
        super().launch(name, words, env=env)


SHAPE = {"cpu": "20m", "cpu_limit": "1", "memory": "128Mi", "disk": "100Mi"}


def open_real(namespace: str, **given: object) -> KubernetesLauncher:
    common = {"kubeconfig": KUBECONFIG, "namespace": namespace, "image": IMAGE, "work": SHAPE}
    settings = KubernetesSettings(**{**common, **given})
    _opened.append(OfTheImage(settings, log_interval_s=0.2))
    return _opened[-1]


def kubectl(*words: str) -> None:
    subprocess.run(["kubectl", *words], check=True, capture_output=True, timeout=120)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A namespace of the test's own, with the strictest rules for pods."""
    namespace = f"launcher-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", namespace)
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    kubectl("-n", namespace, "create", "serviceaccount", "tunesmith-job")
    yield namespace
    while _opened:
        _opened.pop().close()
    kubectl("delete", "namespace", namespace, "--wait=false")


TROUBLES: list[tuple[dict[str, object], str]] = [
    ({"image": "no.such.registry.invalid/tunesmith:9"}, "IMAGE_NOT_PULLED"),
    ({"env_from": "secret/no-such-secret"}, "SECRET_MISSING"),
    ({"env_from": "configmap/no-such-map"}, "CONFIG_MISSING"),
    ({"work": {**SHAPE, "gpu": 1}}, "NO_GPU"),
    ({"work": {**SHAPE, "memory": "900Gi"}}, "UNSCHEDULABLE"),
    ({"service_account": "nobody"}, "POD_REFUSED"),
]


@pytest.mark.parametrize(("given", "reason"), TROUBLES)
def test_what_keeps_a_pod_from_starting_is_told_and_ends_in_being_stuck(
    namespace: str, given: dict[str, object], reason: str
) -> None:
    launcher = open_real(namespace, start_timeout_s=1, schedule_timeout_s=1, **given)
    launcher.launch("job", program("pass"), env={})

    status = eventually(lambda: launcher.status("job") if launcher.status("job").state == "stuck" else None, **PATIENT)

    assert status is not None
    assert status.reason == reason
    launcher.stop("job", grace_s=1.0)
    assert launcher.status("job").state in ("lost", "exited")


def test_a_quota_that_is_used_up_is_told(namespace: str) -> None:
    kubectl("-n", namespace, "create", "quota", "nothing", "--hard=pods=0")
    launcher = open_real(namespace, schedule_timeout_s=1)
    launcher.launch("job", program("pass"), env={})

    eventually(lambda: launcher.status("job").reason == "QUOTA_EXHAUSTED", **PATIENT)


def test_a_process_that_wants_more_memory_than_its_limit_is_recognised(namespace: str) -> None:
    launcher = open_real(namespace)
    launcher.launch("job", program("print('big', flush=True); x = bytearray(10**9); x[::4096] = x[::4096]"), env={})

    eventually(lambda: launcher.status("job").state == "exited", **PATIENT)

    status = launcher.status("job")
    assert (status.reason, status.exit_code) == ("OUT_OF_MEMORY", -9)


def test_an_account_without_rights_is_refused_with_the_fix(namespace: str, tmp_path: Path) -> None:
    token = subprocess.run(
        ["kubectl", "-n", namespace, "create", "token", "tunesmith-job"], check=True, capture_output=True, text=True
    ).stdout.strip()
    weak = yaml.safe_load(Path(KUBECONFIG).read_text())
    weak["users"] = [{"name": weak["users"][0]["name"], "user": {"token": token}}]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(weak))
    launcher = open_real(namespace, kubeconfig=str(tmp_path / "kubeconfig"))

    with pytest.raises(PermissionRefused, match="tunesmith-launcher"):
        launcher.launch("job", program("pass"), env={})


class TestKubernetesLauncherOnACluster(LauncherContract):
    """Real Jobs."""

    sees_every_end = False

    @pytest.fixture
    def opener(self, namespace: str) -> Opener:
        return partial(open_real, namespace)

    def test_arguments_and_environment_arrive(self, launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
        """A pod has the environment of its image, not of the launcher."""
        code = "import os, sys; print(sys.argv[1:], os.environ['ADDED'])"

        launcher.launch("job", [*program(code), "a b", "", "ü$HOME", "$(HOME)"], env={"ADDED": "x=$(HOME)"})

        assert ended(launcher, "job").log_tail == "['a b', '', 'ü$HOME', '$(HOME)'] x=$(HOME)\n"

    def test_both_outputs_are_in_the_log(self, launcher: Launcher) -> None:
        """A container runtime reads the two outputs side by side: their order is kept within each only."""
        launcher.launch("job", program("import sys; print('out', flush=True); print('err', file=sys.stderr)"), env={})

        assert sorted(ended(launcher, "job").log_tail.splitlines()) == ["err", "out"]
