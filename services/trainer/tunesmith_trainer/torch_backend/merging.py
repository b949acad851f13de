"""Folders that other programs load: the tokenizer of a base, and a base with an adapter merged into its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from tunesmith.domain.errors import DataLoss
from tunesmith.domain.runs import DType
from tunesmith_trainer.torch_backend.base_models import unavailable
from tunesmith_trainer.torch_backend.loading import load_model
from tunesmith_trainer.torch_backend.older_stacks import rewrite_configs

MAX_SHARD_SIZE = "5GB"
"""What transformers 4 wrote; some servers and file systems refuse larger files."""


def save_tokenizer(base: str | Path, folder: Path) -> None:
    """Write the tokenizer of a base into `folder`. BaseModelUnavailable when the base has none."""
    _save(load_tokenizer(base), folder)
    rewrite_configs(folder)


def save_merged(base: str | Path, adapter: Path, folder: Path) -> str:
    """Write `base` with `adapter` merged into its weights, and its tokenizer, into `folder`; returns the number format.

    The weights keep the format of the base on disk, so that the folder is as large as the base. Only safetensors are
    written. Merging runs on the CPU: the same inputs give the same bytes. Raises what `load_model` raises, and DataLoss
    when the merged weights are not finite.
    """
    tokenizer = load_tokenizer(base)
    dtype = dtype_on_disk(base)
    # Any: PEFT's models are not typed.
    adapted: Any = load_model(base, adapter=adapter, dtype=dtype, on_cpu=True).model
    merged = adapted.merge_and_unload(safe_merge=False)
    for name, weight in merged.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise DataLoss(f"merging {adapter.name} gave weights that are not finite in {name}; train again")
    merged.save_pretrained(folder, max_shard_size=MAX_SHARD_SIZE)
    _save(tokenizer, folder)
    rewrite_configs(folder)
    return dtype


def load_tokenizer(base: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a base; BaseModelUnavailable, with the fix, when it has none."""
    try:
        return AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    # transformers says that files are missing in several ways, and which depends on the kind of tokenizer.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise unavailable(
            str(base),
            f"it has no tokenizer that can be read ({' '.join(str(error).split())[:200]})",
            "put tokenizer.json and tokenizer_config.json of the same model beside its config.json",
        ) from error


def dtype_on_disk(base: str | Path) -> DType:
    """The number format that a base's config names; float32 for one that is neither float32 nor bfloat16.

    float16 has no room for the sum of a weight and its update in every model, bfloat16 has.
    """
    named = getattr(AutoConfig.from_pretrained(base, trust_remote_code=False), "dtype", None)
    return "bfloat16" if named == torch.bfloat16 else "float32"


def _save(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
