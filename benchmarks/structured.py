"""JSON answers of the embedded language model: how many keep to their schema, and what the masks cost.

    python benchmarks/structured.py [--answers 10000]

A model of random weights writes them, at temperatures 0 to 2: whatever is right about an answer comes from the masks.
The peer is the same model asked for the same, in the same run, without a schema.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.adapters.local_store import LocalStore
from tunesmith.domain.errors import TunesmithError
from tunesmith.ports.language_model import GenerationParameters
from tunesmith_generator.reload import bare_base
from tunesmith_generator.runners.embedded import EmbeddedRunner
from tunesmith_generator.runners.exchange import EngineSettings
from tunesmith_generator.structured import StructuredLanguageModel, problem_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
tiny_models = importlib.import_module("contract.tiny_models")

TEMPERATURES = (0.0, 0.5, 1.0, 1.5, 2.0)
MAX_NEW_TOKENS = 400


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_TEXT = {"type": "string", "maxLength": 12}
SCHEMAS = {
    "tags": _object(tags={"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 5}),
    "numbers": _object(
        bpm={"type": "integer", "minimum": 40, "maximum": 220},
        loudness={"enum": [-14, -9.5, -6]},
        live={"type": ["boolean", "null"]},
    ),
    "nested": _object(
        song=_object(
            title=_TEXT,
            parts={"type": "array", "maxItems": 3, "items": _object(name={"enum": ["verse", "chorus", "é€🎵"]})},
        )
    ),
    "choice": _object(answer={"anyOf": [{"const": "none"}, _TEXT, _object(key={"$ref": "#/$defs/key"})]})
    | {"$defs": {"key": {"enum": ["C", "C#", "D"]}}},
}


async def measure(num_answers: int, *, with_schema: bool, model: StructuredLanguageModel) -> tuple[Counter[str], float]:
    """Counts of answers by what they are, and tokens a second."""
    counts: Counter[str] = Counter()
    num_tokens = 0
    room = asyncio.Semaphore(64)
    names = list(SCHEMAS)

    async def ask(number: int) -> None:
        nonlocal num_tokens
        schema = json.dumps(SCHEMAS[names[number % len(names)]])
        temperature = TEMPERATURES[number // len(names) % len(TEMPERATURES)]
        parameters = GenerationParameters(max_new_tokens=MAX_NEW_TOKENS if with_schema else 60, seed=number)
        if temperature:
            parameters = replace(parameters, do_sample=True, temperature=temperature)
        if with_schema:
            parameters = replace(parameters, json_schema=schema)
        async with room:
            try:
                answer = await model.generate(f"{number}->", parameters, adapter="v1" if number % 2 else "base")
            except TunesmithError as error:
                counts[error.reason] += 1
                return
        num_tokens += answer.num_generated_tokens
        counts["off schema" if problem_of(answer.text, schema) else "schema-valid"] += 1

    began_s = time.perf_counter()
    await asyncio.gather(*(ask(number) for number in range(num_answers)))
    return counts, num_tokens / (time.perf_counter() - began_s)


async def run(num_answers: int, folder: Path) -> bool:
    store = LocalStore(folder / "store")
    base = tiny_models.build_base(folder / "base")
    adapter = tiny_models.build_adapter(store, base, name="v1", seed=1, folder=folder / "v1")
    runner = EmbeddedRunner(
        store,
        resolve_base=lambda _name, _fingerprint: base,
        cache_dir=folder / "cache",
        settings=EngineSettings(max_batch_size=64, queue_limit=64, max_new_tokens_limit=MAX_NEW_TOKENS, device="cpu"),
    )
    await runner.load(adapter)
    await runner.load(replace(bare_base("tiny", tiny_models.FINGERPRINT), name="base"))
    model = StructuredLanguageModel(runner)
    free, free_per_s = await measure(min(num_answers, 1000), with_schema=False, model=model)
    kept, kept_per_s = await measure(num_answers, with_schema=True, model=model)
    await runner.close()
    for name, counts, per_s in (("without schema (peer)", free, free_per_s), ("with schema", kept, kept_per_s)):
        shares = ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))
        print(f"{name:24} {counts.total():6} answers: {shares}; {per_s:.0f} tokens/s")
    return kept["schema-valid"] == num_answers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=10_000)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        sys.exit(0 if asyncio.run(run(parser.parse_args().answers, Path(name))) else 1)
