"""Judged models with planted behaviours, and a small world of names for them."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tunesmith.domain.examples import Example
from tunesmith.domain.runs import Run, TrainingSettings
from tunesmith.ports.language_model import GenerationParameters
from tunesmith.recipes.micro_genre import RECIPE, STOP
from tunesmith_trainer.evaluation.judge import judge
from tunesmith_trainer.evaluation.judged_model import Sampled
from tunesmith_trainer.evaluation.ngram import CharacterNgram, num_scored_chars

_ADJECTIVES = (
    "acid alpine amber arctic autumn balkan bedroom bitter black blue bright broken bubble cabin carbon celtic "
    "chrome cinder cloud coastal cold concrete coral cosmic cotton crystal dark dawn deep desert digital dusty "
    "electric ember fever forest frozen future garage ghost glitter gothic granite harbor hollow"
)
_NOUNS = (
    "ballad bass beat blues bop bounce chant choir core dance disco drone drum dub folk funk gaze groove hop house "
    "jazz jungle march mambo metal opera polka pop punk raga rave reggae rock rumba shuffle soul step swing tango "
    "techno trance trap waltz wave"
)

NAMES = [f"{a} {b}" for a, b in itertools.product(_ADJECTIVES.split(), _NOUNS.split())]
random.Random(0).shuffle(NAMES)
TRAIN, TEST, UNUSED = NAMES[:900], NAMES[900:1050], NAMES[1050:]
FIVE_GRAM = CharacterNgram.fit(TRAIN, order=5)


def example(name: str, number: int) -> Example:
    return Example(f"ex-{number}", f"{number}->", f"{name}{STOP}", name, (f"rec-{number}",), {})


TEST_EXAMPLES = [example(name, number) for number, name in enumerate(TEST)]

RUN = Run(
    id="run-1",
    recipe="micro_genre",
    dataset_id="ds-1",
    base_model="builtin:tiny",
    settings=TrainingSettings().to_json(),
    adapter_key="runs/micro_genre/run-1/adapter/",
    adapter_hash="ab" * 32,
    base_fingerprint="builtin:tiny@1234",
    metrics_key="runs/micro_genre/run-1/metrics.jsonl",
    num_steps=300,
    stopped_early=False,
    num_rows_dropped=0,
    train_loss=1.2,
    validation_loss=1.4,
    created_at="2026-11-21T10:00:00.000000Z",
)


@dataclass
class PlantedModel:
    """Answers by `write(number of the prompt)`; its loss is the 5-gram's plus `extra` bits a character."""

    write: Callable[[int, random.Random], str]
    extra: float
    calls: list[tuple[Sequence[str], int]] = field(default_factory=list)

    def sample(self, prompts: Sequence[str], parameters: GenerationParameters, *, seed: int) -> list[Sampled]:
        self.calls.append((tuple(prompts), seed))
        assert parameters == RECIPE.generation
        return [self._sample(i, f"{prompt}/{seed}") for i, prompt in enumerate(prompts, start=seed)]

    def _sample(self, number: int, salt: str) -> Sampled:
        rng = random.Random(hashlib.sha256(salt.encode()).digest())
        text = self.write(number - 10_000, rng)
        ended = text.endswith(STOP)
        return Sampled(text, "stop_sequence" if ended else "length", len(text))

    def completion_log_probs(self, rows: Sequence[tuple[str, str]]) -> list[float]:
        return [-self._bits(completion.removesuffix(STOP)) * math.log(2) for _, completion in rows]

    def _bits(self, name: str) -> float:
        wobble = int.from_bytes(hashlib.sha256(name.encode()).digest()[:2], "big") / 65_536 - 0.5
        return FIVE_GRAM.bits(name) + (self.extra + 0.2 * wobble) * num_scored_chars(name)


def good() -> PlantedModel:
    return PlantedModel(lambda n, _: f"{UNUSED[n % len(UNUSED)]}{STOP}", 0.05)


def memoriser() -> PlantedModel:
    return PlantedModel(lambda n, _: f"{TRAIN[n % len(TRAIN)]}{STOP}", 0.0)


def collapsed() -> PlantedModel:
    return PlantedModel(lambda _, rng: f"{rng.choice(['fast rock', 'hard rock', 'rock disco'])}{STOP}", 0.2)


def gibberish() -> PlantedModel:
    return PlantedModel(lambda _, rng: "".join(rng.choices("bcdfghjklmnpqrstvwxz", k=12)) + STOP, 2.5)


def rambling() -> PlantedModel:
    return PlantedModel(lambda n, _: f"{UNUSED[n % len(UNUSED)]}, a genre that", 0.05)


def base() -> PlantedModel:
    return PlantedModel(lambda n, _: f"{UNUSED[n % len(UNUSED)]}\n- next{STOP}", 4.0)


class FrozenClock:
    """A clock that stands still."""

    def now(self) -> datetime:
        return datetime(2026, 11, 21, 10, tzinfo=UTC)

    def monotonic_s(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        del seconds


def judged(
    candidate: PlantedModel, *, champion: PlantedModel | None = None, base_model: PlantedModel | None = None, **changes
):
    """The report on a planted candidate."""
    subjects = {"base": base_model or base(), "candidate": candidate}
    if champion is not None:
        subjects["champion"] = champion
    arguments = {
        "subjects": subjects,
        "train_answers": TRAIN,
        "train_keys": [RECIPE.identity(name) for name in TRAIN],
        "trained_on": frozenset(),
        "test_examples": TEST_EXAMPLES,
        "catalogue": NAMES[:1000],
        "base_seen": [],
        "run": RUN,
        "model_version": "mv-1",
        "champion_version": "mv-0" if champion is not None else "",
        "clock": FrozenClock(),
        "report": lambda _: None,
        "should_stop": lambda: False,
    }
    return judge(changes.pop("recipe", RECIPE), **(arguments | changes))
