"""The adapter's folder as it is published: safetensors and JSON, nothing that could run code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def write_adapter(checkpoint: Path, folder: Path, *, base_name: str) -> None:
    """Put the adapter of `checkpoint` into `folder`, replacing what is there.

    The config is written in one way only (keys and target modules sorted), so that equal trainings give equal bytes,
    and names the base as `base_name` instead of by a path of this machine.
    """
    unfinished = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    shutil.copyfile(checkpoint / "adapter_model.safetensors", unfinished / "adapter_model.safetensors")
    config = json.loads((checkpoint / "adapter_config.json").read_text("utf-8"))
    config["base_model_name_or_path"] = base_name
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (unfinished / "adapter_config.json").write_text(text + "\n", "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)
