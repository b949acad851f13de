"""A store with one judged model version on a tiny base: all that publishing reads, without a training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from publishable import build_lora, build_publishable

from doubles.fake_clock import FakeClock
from tunesmith.adapters.local_store import LocalStore
from tunesmith.domain import keys
from tunesmith.domain.datasets import Dataset
from tunesmith.domain.ids import canonical_json
from tunesmith.domain.jobs import Progress
from tunesmith.domain.models import GateResult, Measure, ModelVersion, Report
from tunesmith.domain.publications import Form, Publication
from tunesmith.domain.records import Collection
from tunesmith.domain.runs import Run
from tunesmith_trainer import registry
from tunesmith_trainer.bases import base_fingerprint
from tunesmith_trainer.publishing import PublishRequest, publish

RECIPE, VERSION, REFUSED = "micro_genre", "mv-passed", "mv-refused"
AT = "2026-01-01T00:00:00.000000Z"


class World:
    """The store, and one version that passed and one that did not, of the same run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = LocalStore(folder / "data" / "store")
        self.base = build_publishable(folder / "secret-place" / "my-base", "llama")
        adapter = build_lora(self.base, folder / "adapter")
        self.adapter_key = keys.adapter(RECIPE, "run-1")
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            self.store.put_file(self.adapter_key + name, adapter / name)
        self.adapter_hash = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
        self.version = self.put_version(VERSION, passed=True)
        self.put_version(REFUSED, passed=False)
        self._put_origins()
        self.progress: list[Progress] = []

    def put_version(self, name: str, *, passed: bool) -> ModelVersion:
        """A version of the adapter as it is, on the base as it is."""
        version = ModelVersion(
            id=name,
            recipe=RECIPE,
            run_id="run-1",
            dataset_id="ds-1",
            base_model=str(self.base),
            base_fingerprint=base_fingerprint(str(self.base)),
            adapter_key=self.adapter_key,
            adapter_hash=self.adapter_hash,
            report_id=f"rep-{name}",
            passed=passed,
            created_at=AT,
        )
        detail = "Novel is 61.0 %; it is at least 50.0 %." if passed else "Novel is 3.0 %; it must be at least 50.0 %."
        report = Report(
            id=version.report_id,
            recipe=RECIPE,
            run_id="run-1",
            dataset_id="ds-1",
            model_version=name,
            champion_version="",
            metrics={
                "base": {"novel_share": Measure(0.9, 0.88, 0.92, 500)},
                "candidate": {"novel_share": Measure(0.61 if passed else 0.03, 0.0, 0.7, 500)},
            },
            anchors={},
            samples={"candidate": ("sea polka",)},
            distributions={},
            gates=(GateResult("novelty", "novel_share", passed, 0.61, ">=", 0.5, detail),),
            passed=passed,
            created_at=AT,
        )
        registry.register(self.store, version, report)
        return version

    def _put_origins(self) -> None:
        collection = Collection("co-1", RECIPE, "file:///home/me/private/names.txt", 130, (), {"CC0-1.0": 130}, AT)
        dataset = Dataset(
            id="ds-1",
            recipe=RECIPE,
            shards={},
            shard_hashes={},
            num_examples={"train": 100, "validation": 15, "test": 15},
            num_records=130,
            dropped={},
            distributions={},
            settings={},
            collections=("co-1",),
            licences={"CC0-1.0": 130},
            created_at=AT,
        )
        run = Run(
            id="run-1",
            recipe=RECIPE,
            dataset_id="ds-1",
            base_model=str(self.base),
            settings={"epochs": 4},
            adapter_key=self.adapter_key,
            adapter_hash=self.adapter_hash,
            base_fingerprint=self.version.base_fingerprint,
            metrics_key="",
            num_steps=20,
            stopped_early=False,
            num_rows_dropped=0,
            train_loss=1.0,
            validation_loss=1.1,
            created_at=AT,
        )
        self.store.put(keys.collection(RECIPE, "co-1"), canonical_json(collection.to_json()))
        self.store.put(keys.dataset(RECIPE, "ds-1"), canonical_json(dataset.to_json()))
        self.store.put(keys.run(RECIPE, "run-1"), canonical_json(run.to_json()))

    def publish(
        self, form: Form, *, version: str = VERSION, should_stop: Callable[[], bool] = lambda: False
    ) -> tuple[Publication, bool]:
        """What a worker does."""
        return publish(
            PublishRequest(RECIPE, version, form),
            store=self.store,
            clock=FakeClock(),
            scratch=self.folder / "scratch",
            bases_folder=self.folder / "bases",
            report=self.progress.append,
            should_stop=should_stop,
        )

    def bytes_of(self, publication: Publication, name: str) -> bytes:
        """One published file."""
        return self.store.get(keys.published_file(publication.id, name)).data

    def num_publications(self) -> int:
        """Whole ones."""
        return sum(info.key.endswith("manifest.json") for info in self.store.list("publications/"))
