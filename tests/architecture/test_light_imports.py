"""What must be importable without PyTorch, and what a server must not wait for."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "trl", "datasets")
SLOW = (*HEAVY, "numpy", "scipy", "httpx", "aiohttp", "jsonschema", "llguidance", "rich")

SERVERS = [f"tunesmith_{service}.bootstrap" for service in ("scraper", "captioner", "trainer", "generator")]
KERNEL = ["tunesmith.recipes", "tunesmith.jobs.reconciler", "tunesmith.platform", "tunesmith.rpc.hosting"]


def imported_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", [*KERNEL, *SERVERS])
def test_a_server_imports_nothing_slow(module):
    assert imported_by(f"import {module}").isdisjoint(SLOW)


@pytest.mark.parametrize("module", ["tunesmith_trainer.curation.build", "tunesmith_trainer.evaluation.judge"])
def test_curating_and_judging_need_no_torch_by_themselves(module):
    assert imported_by(f"import {module}").isdisjoint(HEAVY)


def test_serving_from_other_backends_needs_no_torch():
    assert imported_by("import tunesmith_generator.servers, tunesmith_generator.structured").isdisjoint(HEAVY)


def test_the_domain_imports_only_the_standard_library():
    allowed = set(sys.stdlib_module_names) | {"tunesmith", "tunesmith_proto"}
    site = imported_by("pass")

    found = {name.split(".")[0] for name in imported_by("import tunesmith.domain.jobs, tunesmith.domain.models") - site}

    assert {name for name in found if not name.startswith("_")} <= allowed
