"""Which number format a model should compute in on this machine."""

from __future__ import annotations

import torch

from tunesmith.domain.runs import DType

_MIN_HIDDEN_SIZE_FOR_BFLOAT16_ON_CPU = 1024
"""Below it the conversions cost more than the multiplications save."""


def chosen_dtype(wanted: DType, *, hidden_size: int) -> torch.dtype:
    """The format to load a base model in; `auto` gives bfloat16 where it pays.

    It asks what the hardware can do instead of timing it: a stopwatch would choose differently on a busy machine, and
    two runs of the same settings would no longer give the same adapter.
    """
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bfloat16" else torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    large_enough = hidden_size >= _MIN_HIDDEN_SIZE_FOR_BFLOAT16_ON_CPU
    return torch.bfloat16 if large_enough and cpu_multiplies_bfloat16() else torch.float32


def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products; without them bfloat16 is emulated and slow."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    if not capabilities.startswith("AVX512"):
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
