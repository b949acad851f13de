"""Loading a base model, with or without an adapter, for training, judging and generating."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tunesmith.domain.errors import DataLoss, NotFound
from tunesmith.domain.runs import DType
from tunesmith_trainer.torch_backend.base_models import unavailable
from tunesmith_trainer.torch_backend.precision import chosen_dtype
from tunesmith_trainer.torch_backend.quiet import without_library_warnings, without_progress_bars

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in evaluation mode on its device, and its tokenizer, which always has a padding token."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dtype: torch.dtype


def load_model(
    base: str | Path, *, adapter: Path | None = None, dtype: DType = "auto", on_cpu: bool = False
) -> LoadedModel:
    """Load what `resolve_base` returned, and put `adapter` on top when one is given; on the GPU where there is one.

    Only safetensors weights and code of the transformers library are used: a model that wants its own code or pickled
    weights is refused. Raises BaseModelUnavailable, NotFound when the adapter's folder is incomplete, and DataLoss when
    the adapter does not fit the base or cannot be read.
    """
    without_progress_bars()
    tokenizer, model, number_format = _load_base(base, dtype)
    if adapter is not None:
        model = _with_adapter(model, adapter)
    model.train(False)
    # Through Module: transformers' own `to` is typed for the model's class only.
    torch.nn.Module.to(model, "cuda" if torch.cuda.is_available() and not on_cpu else "cpu")
    return LoadedModel(model=model, tokenizer=tokenizer, dtype=number_format)


def dtype_of(base: str | Path, wanted: DType) -> torch.dtype:
    """The number format that `load_model` chooses on this machine; raises BaseModelUnavailable."""
    with _explained_errors(base):
        return chosen_dtype(wanted, hidden_size=_hidden_size(AutoConfig.from_pretrained(base, trust_remote_code=False)))


def _load_base(base: str | Path, dtype: DType) -> tuple[PreTrainedTokenizerBase, PreTrainedModel, torch.dtype]:
    number_format = dtype_of(base, dtype)
    with _explained_errors(base):
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype=number_format, trust_remote_code=False, use_safetensors=True
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, cast(PreTrainedModel, model), number_format


@contextmanager
def _explained_errors(base: str | Path) -> Iterator[None]:
    try:
        yield
    # transformers reports a missing file, a missing model and a missing network all as OSError, a model that wants its
    # own code or an unknown architecture as ValueError, and broken JSON or weights in several other ways.
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise _explained(str(base), error) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("safetensors_rust", "safetensors", "huggingface_hub", "httpx"):
            raise _explained(str(base), error) from error
        raise


def _hidden_size(config: object) -> int:
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(getattr(text_config, "hidden_size", 0))


def _explained(base: str, error: Exception) -> Exception:
    text = " ".join(str(error).split())
    lowered = text.lower()
    if "trust_remote_code" in lowered or "custom code" in lowered:
        return unavailable(
            base,
            "it needs code of its own, which is never run here",
            "choose a model that transformers itself supports",
        )
    if "safetensors" in lowered:
        return unavailable(
            base,
            f"it has no readable safetensors weights ({text[:200]})",
            "convert it with save_pretrained, or choose another model; pickled weights are refused",
        )
    if isinstance(base, str) and not Path(base).is_dir():
        return unavailable(
            base,
            f"the model hub did not provide it ({text[:200]})",
            "check the spelling, network and HF_TOKEN, or give a local folder",
        )
    return unavailable(base, f"{type(error).__name__}: {text[:200]}", "check that the folder is a complete model")


def _with_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (adapter / name).is_file():
            raise NotFound(f"adapter folder {adapter} has no {name}: train again or fetch the adapter anew")
    try:
        with without_library_warnings():
            return cast(PreTrainedModel, PeftModel.from_pretrained(model, str(adapter)))
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise DataLoss(
            f"adapter {adapter} cannot be put on this base model: {' '.join(str(error).split())[:300]}; "
            "use the base model that it was trained on"
        ) from error
