"""Which number format a model should compute in on this machine."""

from __future__ import annotations

import functools
import time

import torch

from tunesmith.domain.runs import DType

_MIN_HIDDEN_SIZE_FOR_BFLOAT16_ON_CPU = 512
"""Below it the conversions cost more than any multiplication saves (measured on 2 CPU cores)."""

_MIN_SPEEDUP = 1.25
"""bfloat16 products must be so much faster before the conversions around them pay too."""

_PROBE_SIZE = 1024
_PROBE_REPEATS = 5


def chosen_dtype(wanted: DType, *, hidden_size: int) -> torch.dtype:
    """The format to load a base model in; `auto` gives bfloat16 where a GPU has it or a CPU is faster with it."""
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bfloat16" else torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    large_enough = hidden_size >= _MIN_HIDDEN_SIZE_FOR_BFLOAT16_ON_CPU
    return torch.bfloat16 if large_enough and cpu_is_faster_with_bfloat16() else torch.float32


@functools.cache
def cpu_is_faster_with_bfloat16() -> bool:
    """Time one matrix product in both formats, once a process, in CPU time and best of several.

    The processor's flags do not tell: with avx512_bf16, one machine trains 1.4 times as fast, another at 0.6 of
    the speed.
    """
    return _product_s(torch.float32) > _MIN_SPEEDUP * _product_s(torch.bfloat16)


def _product_s(dtype: torch.dtype) -> float:
    left = torch.ones(_PROBE_SIZE // 2, _PROBE_SIZE, dtype=dtype)
    right = torch.ones(_PROBE_SIZE, _PROBE_SIZE, dtype=dtype)
    durations = []
    for _ in range(_PROBE_REPEATS):
        started = time.process_time()
        torch.nn.functional.linear(left, right)
        durations.append(time.process_time() - started)
    return min(durations)
