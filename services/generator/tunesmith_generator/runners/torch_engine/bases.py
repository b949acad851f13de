"""A base model in memory with the adapters on it."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftConfig, PeftModelForCausalLM, PeftType
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from tunesmith.domain.errors import BaseModelUnavailable, Unsupported
from tunesmith_generator.runners.exchange import EngineSettings

if TYPE_CHECKING:
    from tunesmith_generator.runners.torch_engine.grammar import Grammar, Grammars

BARE = "__base__"
"""PEFT's name for rows without an adapter."""

_numbers = itertools.count(1)


class Base:
    """A causal language model, its tokenizer, and adapters under internal names.

    Not thread-safe: built by any thread, then used by the engine thread alone.
    """

    def __init__(self, model: Any, tokenizer: Any, *, device: torch.device) -> None:
        # `Any`, because transformers' auto classes have no common static type.
        self.tokenizer = tokenizer
        self.device = device
        self.max_positions: int | None = getattr(model.config, "max_position_embeddings", None)
        self.special_ids = frozenset(tokenizer.all_special_ids)
        self.end_ids = frozenset(_end_ids(model, tokenizer))
        self._starts_with_bos = _starts_with_bos(tokenizer)
        self._model = model
        self._peft: PeftModelForCausalLM | None = None
        self._grammars: Grammars | None = None
        self._last_logits_only = (
            {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        )

    @staticmethod
    def load(source: Path | str, *, base_model: str, settings: EngineSettings) -> Base:
        """Read a base from a folder or the Hub: safetensors only, and never code that came with it.

        Raises BaseModelUnavailable, and Unsupported for models without a key-value cache of the usual kind.
        """
        device = torch.device(_device_name(settings.device))
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": isinstance(source, Path)}
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(source), **options)
            model: Any = AutoModelForCausalLM.from_pretrained(
                str(source), use_safetensors=True, dtype=getattr(torch, settings.dtype), **options
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise BaseModelUnavailable(
                f"base model {base_model} cannot be loaded from {source}: {error}",
                metadata={"base_model": base_model, "source": str(source)},
            ) from error
        layers = {type(layer) for layer in DynamicCache(config=model.config).layers}
        if unusual := sorted(kind.__name__ for kind in layers - {DynamicLayer, DynamicSlidingWindowLayer}):
            raise Unsupported(
                f"base model {base_model} needs a cache of {', '.join(unusual)}, which the embedded runner does not "
                "have; serve it with an OpenAI-compatible server (TUNESMITH_LLM=openai+http://...)",
                metadata={"base_model": base_model},
            )
        return Base(model.to(device).eval(), tokenizer, device=device)

    def attach(self, folder: Path, *, adapter: str) -> str:
        """Put the adapter in `folder` onto the base and return its internal name. Rows in flight are not touched."""
        config = PeftConfig.from_pretrained(str(folder))
        if config.peft_type != PeftType.LORA or getattr(config, "use_dora", False):
            raise Unsupported(
                f"adapter {adapter} is of type {config.peft_type}; the embedded runner serves plain LoRA adapters",
                metadata={"adapter": adapter},
            )
        # Numbers of fixed width, so that no name is a part of another: PEFT finds some weights by substring
        # (https://github.com/huggingface/peft/issues/3780).
        name = f"a{next(_numbers):08d}"
        config.inference_mode = True
        problem: object
        try:
            with warnings.catch_warnings():
                # PEFT 0.21 reads an attribute that transformers 5.23 renamed; delete with PEFT's fix.
                warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
                peft = self._peft = self._peft or PeftModelForCausalLM(self._model, config, adapter_name=name)
                loading = peft.load_adapter(str(folder), adapter_name=name, torch_device=str(self.device))
            # PEFT only warns of keys that do not match, and would go on to answer from the base alone.
            problem = [*loading.missing_keys, *loading.unexpected_keys][:4]
            peft.eval()
        except (RuntimeError, ValueError, KeyError) as error:
            problem = error
        if problem:
            self._forget(name)
            raise BaseModelUnavailable(
                f"adapter {adapter} does not fit its base model ({problem}); tune it again on this base",
                reason="ADAPTER_DOES_NOT_FIT",
                metadata={"adapter": adapter},
            )
        return name

    def detach(self, name: str) -> None:
        """Take an adapter off again."""
        self._forget(name)

    def grammar(self, schema: str) -> Grammar:
        """A new answer of a JSON Schema. From one thread at a time, any; the first call takes up to a second."""
        from tunesmith_generator.runners.torch_engine.grammar import Grammars

        if self._grammars is None:
            num_entries = max(int(self._model.get_output_embeddings().weight.shape[0]), len(self.tokenizer))
            self._grammars = Grammars(self.tokenizer, num_entries=num_entries, end_ids=self.end_ids)
        return self._grammars.start(schema)

    def prompt_ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt: with the tokenizer's own start token where it has one, never an end token.

        The same rule as in training; two rules would ask the model what it was never taught.
        """
        ids = list(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        return [self.tokenizer.bos_token_id, *ids] if self._starts_with_bos else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids without special tokens."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def token_text(self, token_id: int) -> str:
        """The written form of a special token."""
        return str(self.tokenizer.convert_ids_to_tokens(token_id) or "")

    def forward(
        self,
        input_ids_BT: torch.Tensor,
        *,
        mask_BS: torch.Tensor,
        positions_BT: torch.Tensor,
        cache: DynamicCache,
        adapters: Sequence[str],
    ) -> torch.Tensor:
        """One pass over T new tokens of B rows, S tokens in all. Returns float32 logits (B, V) of the last position."""
        arguments = dict(
            input_ids=input_ids_BT,
            attention_mask=mask_BS,
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=True,
            **self._last_logits_only,
        )
        if self._peft is None:
            output = self._model(**arguments)
        elif len(set(adapters)) == 1 and adapters[0] != BARE:
            # Nearly every batch asks one champion. Rows of one adapter through the active adapter take 3.0 ms a step
            # where PEFT's mixed path takes 5.3 ms (4 layers of 192, one CPU thread), with the same result.
            self._activate(self._peft, adapters[0])
            output = self._peft(**arguments)
        else:
            output = self._peft(**arguments, adapter_names=list(adapters))
        logits_BV: torch.Tensor = output.logits[:, -1].float()
        return logits_BV

    def _forget(self, name: str) -> None:
        peft = self._peft
        if peft is None:
            return
        others = [other for other in peft.peft_config if other != name]
        if not others:
            self._model = peft.unload()
            self._peft = None
            return
        if name in peft.peft_config:
            # Deleting the active adapter makes PEFT choose another and warn about it.
            self._activate(peft, others[0])
            peft.delete_adapter(name)

    def _activate(self, peft: PeftModelForCausalLM, name: str) -> None:
        if peft.active_adapter != name:
            peft.set_adapter(name, inference_mode=True)


def _device_name(setting: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if setting == "auto" else setting


def _end_ids(model: Any, tokenizer: Any) -> set[int]:
    configured = model.generation_config.eos_token_id
    ids = set(configured) if isinstance(configured, list) else {configured}
    return {i for i in (*ids, tokenizer.eos_token_id) if i is not None}


def _starts_with_bos(tokenizer: Any) -> bool:
    marked = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and bool(marked) and marked[0] == tokenizer.bos_token_id
