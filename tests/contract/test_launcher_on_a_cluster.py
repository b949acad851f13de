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

import pytest

from contract.launcher_contract import LauncherContract, Opener, ended, program
from tunesmith.adapters.kubernetes_launcher import KubernetesLauncher
from tunesmith.adapters.kubernetes_settings import KubernetesSettings
from tunesmith.ports.launcher import Launcher

KUBECONFIG, IMAGE = os.environ.get("KUBECONFIG", ""), os.environ.get("TUNESMITH_TEST_IMAGE", "")

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        not (KUBECONFIG and IMAGE), reason="needs a cluster: set KUBECONFIG and TUNESMITH_TEST_IMAGE (with python)"
    ),
]

_opened: list[KubernetesLauncher] = []


class OfTheImage(KubernetesLauncher):
    """Starts the image's Python where a test names this machine's."""

    def launch(self, name: str, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
        words = ["python", *argv[1:]] if argv and argv[0] == sys.executable else argv
        super().launch(name, words, env=env)


def open_real(namespace: str) -> KubernetesLauncher:
    shape = {"cpu": "20m", "cpu_limit": "1", "memory": "128Mi", "disk": "100Mi"}
    settings = KubernetesSettings(kubeconfig=KUBECONFIG, namespace=namespace, image=IMAGE, work=shape)
    _opened.append(OfTheImage(settings, log_interval_s=0.2))
    return _opened[-1]


def kubectl(*words: str) -> None:
    subprocess.run(["kubectl", *words], check=True, capture_output=True, timeout=120)


class TestKubernetesLauncherOnACluster(LauncherContract):
    """Real Jobs. A namespace of its own for each test, with the strictest rules for pods."""

    @pytest.fixture
    def opener(self) -> Iterator[Opener]:
        namespace = f"launcher-{uuid.uuid4().hex[:8]}"
        kubectl("create", "namespace", namespace)
        kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        kubectl("-n", namespace, "create", "serviceaccount", "tunesmith-job")
        yield partial(open_real, namespace)
        while _opened:
            _opened.pop().close()
        kubectl("delete", "namespace", namespace, "--wait=false")

    def test_arguments_and_environment_arrive(self, launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
        """A pod has the environment of its image, not of the launcher."""
        code = "import os, sys; print(sys.argv[1:], os.environ['ADDED'])"

        launcher.launch("job", [*program(code), "a b", "", "ü$HOME", "$(HOME)"], env={"ADDED": "x=$(HOME)"})

        assert ended(launcher, "job").log_tail == "['a b', '', 'ü$HOME', '$(HOME)'] x=$(HOME)\n"
