"""Models of a few thousand random weights, made in a second: a Llama over bytes, and strong LoRA adapters on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.adapters.local_store import LocalStore
from tunesmith.ports.language_model import Adapter
from tunesmith.ports.store import Store

ALPHABET = "".join(chr(c) for c in range(0x20, 0x7F)) + "\n" + "é€🎵"
"""Characters that the model writes; the last three take two to four byte tokens each."""

FINGERPRINT = "tiny-llama"
OTHER_FINGERPRINT = "other-tiny-llama"


@dataclass(frozen=True)
class Tiny:
    """A store with adapters, by name, and the bases they lie on, by fingerprint."""

    store: LocalStore
    bases: dict[str, Path]
    adapters: dict[str, Adapter]


def build_base(folder: Path, *, seed: int = 0, sliding_window: int | None = None) -> Path:
    """Save a random model with its tokenizer to `folder`: a Llama, or a Mistral where there is a sliding window."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    shape = dict(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.4,
    )
    torch.manual_seed(seed)
    model = (
        LlamaForCausalLM(LlamaConfig(**shape))
        if sliding_window is None
        else MistralForCausalLM(MistralConfig(**shape, sliding_window=sliding_window))
    )
    model.save_pretrained(folder)
    return folder


def build_tokenizer() -> Any:
    """One token a byte, for the bytes of ALPHABET."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    symbols = sorted({symbol for c in ALPHABET for symbol in as_bytes.pre_tokenize_str(c)[0][0]})
    vocabulary = {symbol: number for number, symbol in enumerate(["<pad>", "<s>", "</s>", *symbols])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = as_bytes
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )


def build_adapter(
    store: Store, base: Path, *, name: str, seed: int, folder: Path, fingerprint: str = FINGERPRINT
) -> Adapter:
    """Put a random LoRA adapter into `store`, strong enough that no answer is the base's."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    torch.manual_seed(seed)
    for parameter_name, parameter in model.named_parameters():
        if "lora_" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    key = f"runs/micro_genre/{name}/adapter/"
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        store.put(f"{key}{file}", (folder / file).read_bytes())
    weights_hash = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    return Adapter(name, weights_hash, key, "tiny", fingerprint)
