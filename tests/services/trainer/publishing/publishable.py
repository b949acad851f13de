"""Models of a few thousand weights whose answers hang on their `rope_theta`, with adapters, and what they answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contract.tiny_models import build_tokenizer

THETA = 1_000_000.0
"""Not 10,000, which is what transformers 4 takes where it finds none."""

PROMPTS = (
    "Title: The river runs beneath the old stone bridge at night",
    "Mood: a slow song for rain on the roof of an empty house",
    "7->",
    "Tags for a video of the sea, gulls over the harbour and small boats:",
)
NUM_TOKENS = 24

ARCHITECTURES = ("llama", "qwen3")


def build_publishable(folder: Path, architecture: str, *, dtype: str = "float32") -> Path:
    """Save a random model of that architecture with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    shape = dict(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.4,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
    )
    torch.manual_seed(0)
    model: Any = (
        LlamaForCausalLM(LlamaConfig(**shape))
        if architecture == "llama"
        else Qwen3ForCausalLM(Qwen3Config(**shape, tie_word_embeddings=True))
    )
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def build_lora(base: Path, folder: Path, *, seed: int = 0) -> Path:
    """Save a random adapter for `base`, strong enough that no answer is the base's."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tunesmith_trainer.torch_backend.quiet import without_library_warnings

    with without_library_warnings():
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base),
            LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def set_theta(folder: Path, theta: float) -> None:
    """Plant the fault: another `rope_theta` in the folder's config, under every name that it has there."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"]["rope_theta"] = theta
    if "rope_theta" in config:
        config["rope_theta"] = theta
    path.write_text(json.dumps(config))
