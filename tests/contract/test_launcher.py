"""Every launcher adapter against the launcher's contract."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from contract.launcher_contract import LauncherContract, Opener
from doubles.kubernetes_api import FakeCluster
from tunesmith.adapters.kubernetes_launcher import KubernetesLauncher
from tunesmith.adapters.kubernetes_settings import KubernetesSettings
from tunesmith.adapters.subprocess_launcher import SubprocessLauncher


class TestSubprocessLauncher(LauncherContract):
    """Processes of this machine."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        """A folder of its own for each test."""
        return partial(SubprocessLauncher, tmp_path / "launches")


_opened: list[KubernetesLauncher] = []


def open_kubernetes(kubeconfig: Path) -> KubernetesLauncher:
    """One more launcher on a cluster."""
    settings = KubernetesSettings(image="tunesmith:test", kubeconfig=str(kubeconfig))
    _opened.append(KubernetesLauncher(settings, log_interval_s=0.05))
    return _opened[-1]


class TestKubernetesLauncher(LauncherContract):
    """Jobs of an API server on this machine, whose pods are real processes."""

    @pytest.fixture
    def cluster(self, tmp_path: Path) -> Iterator[FakeCluster]:
        cluster = FakeCluster(tmp_path)
        yield cluster
        while _opened:
            _opened.pop().close()
        cluster.close()

    @pytest.fixture
    def opener(self, cluster: FakeCluster) -> Opener:
        """All open the same cluster."""
        return partial(open_kubernetes, cluster.kubeconfig)
