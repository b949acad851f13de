"""Real trainings of the recipe video_tags on a small base, judged by the real judge."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from planted_models import RUN, FrozenClock

from tunesmith.domain.examples import SPLITS, Example, split_bucket
from tunesmith.domain.models import Report
from tunesmith.domain.records import Licence, Provenance, Record
from tunesmith.domain.runs import TrainingSettings
from tunesmith.recipes import video_tags
from tunesmith_trainer.evaluation.judge import judge
from tunesmith_trainer.evaluation.leaks import trained_on
from tunesmith_trainer.torch_backend.judged import load_subjects
from tunesmith_trainer.torch_backend.rows import TrainingRow
from tunesmith_trainer.torch_backend.text_sample import TextBaseSettings
from tunesmith_trainer.torch_backend.training import TrainingOutcome, train

_SHIPPED = video_tags.RECIPE
RECIPE = replace(
    _SHIPPED,
    judge=replace(_SHIPPED.judge, batch_size=120),
    # The longest answer has about 40 tokens; a base that knows no end goes on to the last. Cooler than it ships, as so
    # small a model slips more often.
    generation=replace(_SHIPPED.generation, max_new_tokens=80, temperature=0.5),
)
"""The recipe with the gates that it ships with."""

BASE = TextBaseSettings(
    hidden_size=128,
    num_layers=3,
    num_heads=4,
    feed_forward_size=320,
    max_length=512,
    num_steps=140,
    batch_tokens=1024,
    vocabulary_size=1024,
)
TRAINING = TrainingSettings(
    adapter_size=16,
    adapter_alpha=32.0,
    learning_rate=6e-3,
    batch_size=2,
    max_length=256,
    eval_every_steps=1000,
    save_every_steps=1000,
    early_stopping_patience=0,
)

_PROVENANCE = Provenance("test", "test:", "test:", Licence("CC0-1.0"), "2026-01-01T00:00:00Z", "0" * 64)
_LIGHT = {"dark": "low drone", "dim": "soft pads", "bright": "clean guitar", "glaring": "shiny bells"}
_PACE = {"still": "62 bpm", "slow": "84 bpm", "lively": "118 bpm", "hectic": "164 bpm"}
_COLOUR = {"blue": "calm", "red": "angry", "green": "playful", "grey": "sad", "gold": "proud"}
_PLACE = {"harbour": "accordion", "street": "drum machine", "forest": "flute", "club": "synth bass"}


def scenes() -> dict[str, list[Example]]:
    """Examples by split: scenes whose tags follow from them, so that there is something to learn."""
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    every = itertools.product(_LIGHT, _PACE, _COLOUR, _PLACE)
    for index, (light, pace, colour, place) in enumerate(itertools.islice(every, 0, None, 3)):
        fields = {
            "media": "0" * 64,
            "scene": f"A {place}, {light}; {pace} movement, mostly {colour}.",
            "tags": json.dumps([_PLACE[place], _LIGHT[light], _COLOUR[colour], _PACE[pace]]),
        }
        example = RECIPE.example(Record.make(fields, _PROVENANCE), index=index)
        assert isinstance(example, Example)
        splits[split_bucket(RECIPE.duplicate_key(example))].append(example)
    return splits


def with_one_answer(rows: Sequence[Example]) -> list[Example]:
    """Rows that all have the answer of the first."""
    return [replace(row, completion=rows[0].completion) for row in rows]


def with_scrambled_answers(rows: Sequence[Example]) -> list[Example]:
    """Rows whose answers keep their characters and lose the order of them."""
    chance = random.Random(3)
    return [
        replace(row, completion=row.completion.replace(row.answer, "".join(chance.sample(row.answer, len(row.answer)))))
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Bench:
    """The small base, the examples, and a folder for what is trained."""

    base: Path
    folder: Path
    splits: dict[str, list[Example]]

    def tuned(self, name: str, rows: Sequence[Example], *, epochs: float) -> TrainingOutcome:
        """A real training on `rows`."""
        return train(
            self.base,
            [TrainingRow(row.prompt, row.completion) for row in rows],
            [],
            settings=replace(TRAINING, epochs=epochs),
            work_folder=self.folder / name,
            base_name=str(self.base),
        )

    def judged(self, outcome: TrainingOutcome, *, given: Sequence[Example]) -> Report:
        """The report on what a training made; `given` are the rows that the run wrote down."""
        train_rows = self.splits["train"]
        size = RECIPE.judge.batch_size
        return judge(
            RECIPE,
            subjects=load_subjects(
                self.base, outcome.adapter_folder, champion=None, champion_base=None, batch_size=size
            ),
            train_answers=[row.answer for row in train_rows],
            train_keys=[RECIPE.duplicate_key(row) for row in train_rows],
            trained_on=frozenset(trained_on(RECIPE, given).decode().split()),
            test_examples=self.splits["test"],
            catalogue=(),
            base_seen=(),
            run=RUN,
            model_version="mv-1",
            champion_version="",
            clock=FrozenClock(),
            report=lambda _: None,
            should_stop=lambda: False,
        )
