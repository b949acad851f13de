"""The schemas of Kubernetes' versions, each read once."""

from __future__ import annotations

from functools import cache
from typing import Any

from kubernetes_validate import utils

VERSIONS = ["1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]

# The package reads megabytes of definitions for every object.
utils.schema_contents = cache(utils.schema_contents)


def check(item: dict[str, Any], version: str) -> None:
    """Raise ValidationError unless an object is one of that version, with no field that it does not know."""
    utils.validate(item, version, strict=True)
