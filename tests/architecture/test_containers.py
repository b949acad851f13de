"""What every image and the compose file keep to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.addresses import SERVICE_PORTS

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = tuple(ROOT.glob("services/*/Dockerfile"))


def test_there_is_an_image_for_each_service() -> None:
    assert {path.parent.name for path in OURS} == set(SERVICE_PORTS)


@pytest.mark.parametrize("dockerfile", OURS, ids=lambda path: path.parent.name)
def test_an_image_is_slim_pinned_without_rights_and_tells_its_health(dockerfile: Path) -> None:
    text, service = dockerfile.read_text(), dockerfile.parent.name

    assert re.findall(r"^FROM (.*)", text, re.M) == ["python:3.11-slim"]
    assert re.findall(r"^USER (.*)", text, re.M) == ["10001:10001"]
    installs = re.findall(r"uv pip install (?:.*\\\n)*.*", text)
    assert all("--constraint constraints.txt" in step or "--no-deps" in step for step in installs)
    assert f"--extra {service} --extra platform" in text
    assert re.search(r"^HEALTHCHECK .*--start-period=\d+s .*CMD (.*)", text, re.M)[1] == (
        f'["python", "-m", "tunesmith_{service}", "health"]'
    )
    assert f"EXPOSE {SERVICE_PORTS[service]}" in text


def test_the_images_with_pytorch_share_the_layer_that_holds_it() -> None:
    def until_the_heavy_libraries(service: str) -> str:
        text = (ROOT / "services" / service / "Dockerfile").read_text()
        steps = text.partition("COPY pyproject.toml")[0]
        return re.sub(r"^#.*\n", "", steps, flags=re.M)

    assert until_the_heavy_libraries("trainer") == until_the_heavy_libraries("generator")


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_container_publishes_on_loopback_only_and_starts_after_what_it_needs(name: str) -> None:
    service = COMPOSE["services"][name]

    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    if name not in ("kafka", "minio", "setup", "tgi"):
        assert service["depends_on"]["setup"] == {"condition": "service_completed_successfully"}
        assert service["read_only"]
    if name != "tgi":
        assert service["cap_drop"] == ["ALL"]


def test_no_secret_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secrets = re.findall(r"\$\{(\w*(?:PASSWORD|ROOT_USER|SECRET)\w*)([^}]*)\}", text)

    assert len(secrets) == 6
    assert all(default.startswith(":?") for _, default in secrets)
