"""Model versions, champions and datasets put into a store as the trainer would."""

from __future__ import annotations

import json

from tunesmith.domain import keys
from tunesmith.domain.datasets import Dataset
from tunesmith.domain.examples import Example
from tunesmith.domain.ids import canonical_json, sha256_hex
from tunesmith.domain.models import Champion, ModelVersion
from tunesmith.ports.language_model import Adapter
from tunesmith.ports.store import Store

RECIPE = "micro_genre"
NOW = "2026-01-01T00:00:00.000000Z"


def put_version(
    store: Store,
    version: str,
    *,
    adapter: Adapter | None = None,
    dataset_id: str = "",
    passed: bool = True,
    recipe: str = RECIPE,
) -> ModelVersion:
    adapter = adapter or Adapter(version, f"hash of {version}", f"runs/{version}/", "tiny", "tiny-llama")
    row = ModelVersion(
        id=version,
        recipe=recipe,
        run_id=f"run-{version}",
        dataset_id=dataset_id,
        base_model=adapter.base_model,
        base_fingerprint=adapter.base_fingerprint,
        adapter_key=adapter.key,
        adapter_hash=adapter.hash,
        report_id=f"report-{version}",
        passed=passed,
        created_at=NOW,
    )
    store.put(keys.model_version(recipe, version), canonical_json(row.to_json()))
    return row


def promote(store: Store, version: str, *, recipe: str = RECIPE) -> None:
    alias = Champion(recipe, version, 1, f"writer of {version}", ())
    store.put(keys.champion(recipe), canonical_json(alias.to_json()))


def put_dataset(store: Store, dataset_id: str, answers: list[str]) -> None:
    examples = [Example(f"ex-{n}", f"{n}->", f"{a}|<stop>|", a, (), {}) for n, a in enumerate(answers)]
    shard = "".join(json.dumps(example.to_json(), ensure_ascii=False) + "\n" for example in examples).encode()
    key = keys.dataset_shard(RECIPE, dataset_id, "train")
    store.put(key, shard)
    dataset = Dataset(
        id=dataset_id,
        recipe=RECIPE,
        shards={"train": key},
        shard_hashes={"train": sha256_hex(shard)},
        num_examples={"train": len(examples)},
        num_records=len(examples),
        dropped={},
        distributions={},
        settings={},
        collections=(),
        licences={},
        created_at=NOW,
    )
    store.put(keys.dataset(RECIPE, dataset_id), canonical_json(dataset.to_json()))
