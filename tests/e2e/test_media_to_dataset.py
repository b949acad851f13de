"""From media files to a dataset: collected, captioned and curated by the real services' use cases over one store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fixtures_places import Place
from tunesmith.adapters.system_clock import SystemClock
from tunesmith.domain.datasets import Dataset
from tunesmith.domain.examples import SPLITS, Example
from tunesmith.domain.records import Collection, Record
from tunesmith.ports.store import Store
from tunesmith.recipes import recipe_named
from tunesmith_captioner.decode.limits import DecodeLimits
from tunesmith_captioner.handlers import caption, plan_captions
from tunesmith_scraper.clips.film import write_clip
from tunesmith_scraper.clips.plan import planned_clips
from tunesmith_scraper.fetch import Fetcher
from tunesmith_scraper.handlers import Collected, CollectRequest, collect
from tunesmith_scraper.politeness import PoliteFetcher
from tunesmith_scraper.settings import ScraperSettings
from tunesmith_scraper.sources.base import SourceSpec
from tunesmith_trainer.curation.build import build_dataset
from tunesmith_trainer.curation.load import iterate_examples

pytestmark = pytest.mark.heavy

NUM_CLIPS = 32


@dataclass
class Chain:
    """The three steps, over one folder."""

    folder: Path
    store: Store
    clock: SystemClock

    def collect(self, clips: Path) -> Collected:
        settings = ScraperSettings(file_roots=(clips,))
        fetcher = PoliteFetcher(Fetcher(settings, clock=self.clock), settings, clock=self.clock)
        return collect(
            CollectRequest("video_tags", SourceSpec(clips.as_uri(), licence="Apache-2.0")),
            store=self.store,
            clock=self.clock,
            fetcher=fetcher,
            settings=settings,
            report=lambda _: None,
            should_stop=lambda: False,
            scratch=self._scratch(),
        )

    def caption(self, collection: Collection) -> Collection:
        return caption(
            plan_captions(self.store, "video_tags", collection.id, (), clip_s=60),
            store=self.store,
            clock=self.clock,
            limits=DecodeLimits(),
            num_decoders=2,
            batch_size=8,
            report=lambda _: None,
            should_stop=lambda: False,
            scratch=self._scratch(),
        ).collection

    def curate(self, collections: Sequence[Collection]) -> Dataset:
        recipe = recipe_named("video_tags")
        return build_dataset(
            recipe,
            collections,
            recipe.curation,
            store=self.store,
            clock=self.clock,
            work_dir=self._scratch(),
            report=lambda _: None,
            should_stop=lambda: False,
        )[0]

    def examples(self, dataset: Dataset) -> list[Example]:
        return [
            example
            for split in SPLITS
            for example in iterate_examples(dataset, split, store=self.store, folder=self._scratch())
        ]

    def records(self, collection: Collection) -> list[Record]:
        return [
            Record.from_json(json.loads(line))
            for key in collection.shards
            for line in self.store.get(key).data.splitlines()
        ]

    def _scratch(self) -> Path:
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        return scratch


@pytest.fixture
def chain(place: Place, tmp_path: Path) -> Chain:
    return Chain(tmp_path, place.store(tmp_path), SystemClock())


def test_clips_become_chat_rows_and_unusable_ones_are_dropped_with_their_reason(chain: Chain, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for clip in planned_clips()[:NUM_CLIPS]:
        write_clip(replace(clip, seconds=6.0), clips / f"{clip.name}.mp4")
    (clips / "broken.mp4").write_bytes(b"no video at all")
    (clips / "empty.mp4").touch()

    collected = chain.collect(clips)
    captioned = chain.caption(collected.collection)
    dataset = chain.curate([captioned])

    assert collected.collection.num_records == captioned.num_records == dataset.num_records == NUM_CLIPS + 2
    assert captioned.derived_from == collected.collection.id
    assert sum(dataset.num_examples.values()) + sum(dataset.dropped.values()) == dataset.num_records
    errors = {r.fields["name"]: r.fields.get("caption_error", "") for r in chain.records(captioned)}
    unusable = {name: reason for name, reason in errors.items() if reason}
    assert unusable.keys() == {"broken.mp4", "empty.mp4"}
    assert {reason: dataset.dropped[reason] for reason in unusable.values()} == dict.fromkeys(unusable.values(), 1)
    examples = chain.examples(dataset)
    assert len(examples) >= NUM_CLIPS - 2
    for example in examples:
        assert [message.role for message in example.messages] == ["system", "user", "assistant"]
        assert json.loads(example.messages[2].content)["tags"]
    fast = {e.messages[1].content for e in examples if e.attributes["tempo"] == "150 bpm and up"}
    assert any("bright" in scene and "fast" in scene for scene in fast)
    assert dataset.licences == {"Apache-2.0": NUM_CLIPS + 2}
