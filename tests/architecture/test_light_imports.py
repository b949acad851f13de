"""What must be importable without PyTorch, and what a server must not wait for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "trl", "datasets")
SLOW = (*HEAVY, "numpy", "scipy", "httpx", "aiohttp", "jsonschema", "llguidance", "rich")

SERVERS = [f"tunesmith_{service}.bootstrap" for service in ("scraper", "captioner", "trainer", "generator")]
KERNEL = ["tunesmith.recipes", "tunesmith.jobs.reconciler", "tunesmith.platform", "tunesmith.rpc.hosting"]


def imported_by(statement: str, **env: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    around = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=around | env)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", [*KERNEL, *SERVERS])
def test_a_server_imports_nothing_slow(module):
    assert imported_by(f"import {module}").isdisjoint(SLOW)


@pytest.mark.parametrize("module", ["tunesmith_trainer.curation.build", "tunesmith_trainer.evaluation.judge"])
def test_curating_and_judging_need_no_torch_by_themselves(module):
    assert imported_by(f"import {module}").isdisjoint(HEAVY)


def test_serving_from_other_backends_needs_no_torch():
    assert imported_by("import tunesmith_generator.servers, tunesmith_generator.structured").isdisjoint(HEAVY)


def test_opentelemetry_is_imported_where_a_collector_is_named_and_nowhere_else(tmp_path):
    opening = (
        "from pathlib import Path\nfrom tunesmith.platform import Platform\nfrom tunesmith.settings import Settings\n"
        f"Platform.open(Settings.read(data=Path({str(tmp_path)!r})))"
    )
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}

    assert "opentelemetry" not in imported_by(opening)
    assert "opentelemetry.sdk.trace" in imported_by(opening, **collector)


def test_the_domain_imports_only_the_standard_library():
    allowed = set(sys.stdlib_module_names) | {"tunesmith", "tunesmith_proto"}
    site = imported_by("pass")

    found = {name.split(".")[0] for name in imported_by("import tunesmith.domain.jobs, tunesmith.domain.models") - site}

    assert {name for name in found if not name.startswith("_")} <= allowed
