"""Loads model folders and prints of each, as a JSON line, what it read and answers. Runs under either transformers."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import transformers


def answered(model: Any, tokenizer: Any, prompts: list[str], num_tokens: int) -> list[list[int]]:
    """Greedy tokens after each prompt, by the model alone: no generation config has a say."""
    found = []
    with torch.no_grad():
        for prompt in prompts:
            ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
            start = ids.shape[1]
            for _ in range(num_tokens):
                ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
            found.append(ids[0, start:].tolist())
    return found


def main(folder: str, prompts: list[str], num_tokens: int) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype="auto")
    print(  # noqa: T201 - its output
        json.dumps(
            {
                "transformers": transformers.__version__,
                "rope_theta": model.config.rope_theta,
                "dtype": str(model.dtype),
                "tokenizer": type(tokenizer).__name__,
                "prompt_ids": [tokenizer(prompt)["input_ids"] for prompt in prompts],
                "special": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id],
                "tokens": answered(model.eval(), tokenizer, prompts, num_tokens),
            }
        )
    )


if __name__ == "__main__":
    for path in json.loads(sys.argv[1]):
        main(path, json.loads(sys.argv[2]), int(sys.argv[3]))
