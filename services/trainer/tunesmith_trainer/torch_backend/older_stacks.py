"""Configs of a saved model as transformers 4 reads them too, and everything that embeds it (text-generation-inference).

transformers 5 writes names that 4 does not know, and 4 then falls back to defaults without a word: a model with a
`rope_theta` of 1,000,000 is read as one with 10,000 and answers with noise. Here both names are written. Plain JSON
work, free of PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIGS = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")

_LAYER_TYPES = ("full_attention", "sliding_attention")
FAST_TOKENIZER = "PreTrainedTokenizerFast"
"""The class that both generations know and that takes `tokenizer.json` as it is: classes of one model rebuild parts of
it (which tokens are put in front, say) in ways that changed between the two."""


def rewrite_configs(folder: Path) -> None:
    """Rewrite the configs of a folder that `save_pretrained` wrote, in place: both generations' names, sorted keys."""
    for path in (folder / name for name in CONFIGS):
        if not path.is_file():
            continue
        row = json.loads(path.read_text("utf-8"))
        if path.name == "config.json":
            row = with_older_names(row)
        elif path.name == "tokenizer_config.json":
            template = folder / "chat_template.jinja"
            # Routers that are not written in Python look for it in the tokenizer's config alone.
            if template.is_file():
                row["chat_template"] = template.read_text("utf-8")
            row = tokenizer_with_older_names(row, fast=(folder / "tokenizer.json").is_file())
        path.write_text(json.dumps(row, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def with_older_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """A model's config with `rope_theta`, `rope_scaling` and `torch_dtype` beside what transformers 5 writes.

    Parts of a composed model (`text_config`) likewise. The theta of sliding layers that have one of their own is
    `rope_local_base_freq`, as in Gemma 3.
    """
    made = {name: with_older_names(part) if _is_config(name, part) else part for name, part in config.items()}
    if made.get("dtype") is not None:
        made.setdefault("torch_dtype", made["dtype"])
    rope = config.get("rope_parameters")
    if not isinstance(rope, Mapping):
        return made
    by_layer = {kind: rope[kind] for kind in _LAYER_TYPES if isinstance(rope.get(kind), Mapping)}
    main = by_layer.get("full_attention", rope if not by_layer else {})
    if "rope_theta" in main:
        made["rope_theta"] = main["rope_theta"]
    if "rope_theta" in by_layer.get("sliding_attention", {}):
        made["rope_local_base_freq"] = by_layer["sliding_attention"]["rope_theta"]
    if "partial_rotary_factor" in main:
        made["partial_rotary_factor"] = main["partial_rotary_factor"]
    if main.get("rope_type", "default") != "default":
        made["rope_scaling"] = {k: v for k, v in main.items() if k not in ("rope_theta", "partial_rotary_factor")}
    return made


def tokenizer_with_older_names(config: Mapping[str, Any], *, fast: bool) -> dict[str, Any]:
    """A tokenizer's config without what 4 stumbles over; of FAST_TOKENIZER where `tokenizer.json` lies beside it."""
    made = {name: value for name, value in config.items() if name not in ("backend", "is_local", "local_files_only")}
    if fast:
        made["tokenizer_class"] = FAST_TOKENIZER
    # In 4 the name stands for a mapping; the list was called otherwise.
    if isinstance(made.get("extra_special_tokens"), list):
        made["additional_special_tokens"] = made.pop("extra_special_tokens")
    return made


def _is_config(name: str, part: object) -> bool:
    return name.endswith("_config") and isinstance(part, Mapping)
