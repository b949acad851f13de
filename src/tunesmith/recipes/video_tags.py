"""Video tags: a scene description in, tags of fitting music out, as the JSON object `{"tags": [...]}`."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunesmith.domain.datasets import CurationSettings
from tunesmith.domain.errors import InvalidInput, Unsupported
from tunesmith.domain.examples import Dropped, Example
from tunesmith.domain.ids import content_id
from tunesmith.domain.models import Gate, MetricInfo
from tunesmith.domain.records import Record
from tunesmith.domain.runs import TrainingSettings
from tunesmith.ports.language_model import GenerationParameters
from tunesmith.recipes.base import Against, Answered, JudgeSettings, Observation, Parsed, Recipe
from tunesmith.recipes.chat import (
    END_OF_TURN,
    assistant_text,
    chat_completion,
    chat_messages,
    chat_prompt,
    user_text,
)

SYSTEM_PROMPT = (
    "You choose background music for videos. Read what the video shows and answer with one JSON object of the form "
    '{"tags": ["...", "..."]}: at most 20 short tags of instruments, sound, mood and style that fit the pictures, '
    'and the tempo last, such as "96 bpm".'
)
"""Trained models depend on every character of it."""

MAX_TAGS = 20
MAX_TAG_CHARS = 60
MAX_SCENE_CHARS = 2_000

ANSWER_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_TAGS}},
        "required": ["tags"],
        "additionalProperties": False,
    }
)
"""Without the length of a tag, which `read_tags` checks: backends that make an expression of a schema would make one of
thousands of states."""

TEMPO_BANDS = (
    (90.0, "under 90 bpm"),
    (120.0, "90 to 119 bpm"),
    (150.0, "120 to 149 bpm"),
    (math.inf, "150 bpm and up"),
)
"""Upper end of each band in beats a minute, and its name."""
NO_TEMPO = "no tempo"

_TEMPO = re.compile(r"(\d{2,3})(?:\.\d+)? ?bpm")
_ABOUT_THE_RECORDING = re.compile(
    r"\b(quality|recording|recorded|fidelity|bitrate|microphone|muffled|amateur|amateurish|noisy|hiss|crackle|clipping"
    r"|background noise|mono|stereo)\b"
)
_REASON = re.compile(r"[a-z][a-z_]{0,40}")


@dataclass(frozen=True, slots=True)
class VideoTags(Recipe):
    """The video-tags recipe."""

    def example(self, record: Record, *, index: int) -> Example | Dropped:  # noqa: ARG002
        if error := record.fields.get("caption_error", ""):
            return Dropped(error if _REASON.fullmatch(error) else "caption_error", error[:80])
        if not record.fields.get("scene", "").strip() or not record.fields.get("tags", ""):
            return Dropped("no_captions", record.fields.get("name", "")[:80])
        scene = _one_line(record.fields["scene"])
        if len(scene) > MAX_SCENE_CHARS:
            return Dropped("scene_too_long", f"{len(scene)} characters, limit {MAX_SCENE_CHARS}")
        tags = _target_tags(record.fields["tags"])
        if isinstance(tags, Dropped):
            return tags
        answer = rendered(tags)
        genre = _folded(record.fields.get("genre", ""))
        prompt = self.prompt({"scene": scene})
        return Example(
            id=content_id("ex", [self.name, scene, answer]),
            prompt=prompt,
            completion=chat_completion(answer),
            answer=answer,
            record_ids=(record.id,),
            attributes={"tempo": tempo_band(tags)} | ({"genre": genre} if genre else {}),
            messages=chat_messages(SYSTEM_PROMPT, scene, answer),
        )

    def prompt(self, inputs: Mapping[str, str]) -> str:
        scene = _one_line(inputs.get("scene", ""))
        if not scene or len(scene) > MAX_SCENE_CHARS:
            raise InvalidInput(
                f"input scene has {len(scene)} characters; describe what the video shows in 1 to {MAX_SCENE_CHARS}, "
                "for example scene='A dark blue picture; slow movement; one shot.'",
                metadata={"field": "scene", "value": scene[:40], "limit": str(MAX_SCENE_CHARS)},
            )
        return chat_prompt(SYSTEM_PROMPT, scene)

    def inputs_of_seed(self, seed: int) -> Mapping[str, str]:
        raise Unsupported(
            "video_tags answers to what a video shows, not to a seed number; send the input scene",
            metadata={"recipe": self.name, "value": str(seed)[:40]},
        )

    def parse(self, text: str) -> Parsed:
        """The JSON object after the prompt, and nothing beside it; spaces between its parts do not matter."""
        written = assistant_text(text).strip()
        tags, reason = read_tags(written)
        return Parsed(written if reason else rendered(tags), valid=not reason, reason=reason)

    def identity(self, answer: str) -> str:
        """The set of tags: order, case and repetition do not make another answer."""
        plain = _folded(answer)
        tags, reason = read_tags(plain)
        return plain if reason else rendered(sorted({_folded(tag) for tag in tags}))

    def duplicate_key(self, example: Example) -> str:
        """Scene and tags together: many clips rightly share their tags, and a split by tags alone would hold all of
        them out."""
        return f"{_folded(user_text(example.prompt))}\n{self.identity(example.answer)}"

    def attributes(self, answer: str) -> Mapping[str, Sequence[str]]:
        """`word` is whole tags, so that the measures of words that recipes share are measures of tags here."""
        tags, reason = read_tags(answer)
        if reason:
            return {}
        music = [_folded(tag) for tag in tags if not _is_tempo(tag)]
        return {"tag": music, "word": music, "tempo": [tempo_band(tags)]}

    def measures(self, answers: Sequence[Answered], against: Against) -> Mapping[str, Sequence[Observation]]:  # noqa: ARG002
        pairs = [_pair(answered) for answered in answers]
        return {
            "tag_f1": [pair and _overlap(*pair) for pair in pairs],
            "tempo_agreement": [
                None if pair is None or tempo_band(pair[1]) == NO_TEMPO else float(_same_band(*pair)) for pair in pairs
            ],
        }

    def sample_measures(self, answers: Sequence[Answered], against: Against) -> Mapping[str, float]:
        answered = [one for one in answers if one.answer is not None]
        said = [_tags_of(one.answer or "") for one in answered]
        if not said:
            return {}
        found = {"tag_entropy": _entropy(said), "top_answer_share": _top_share(said)}
        meant = _meant(answered, against)
        found |= _ratio("tag_entropy_over_data", found["tag_entropy"], _entropy(meant))
        found |= _ratio("distinct_tags_over_data", _num_distinct(said), _num_distinct(meant))
        references = [one.reference for one in answered if one.reference is not None]
        if len(references) < len(answered):
            return found
        for name, attribute in (("genre_entropy_over_data", "genre"), ("tempo_entropy_over_data", "tempo")):
            groups = [reference.attributes.get(attribute, "") for reference in references]
            if any(groups):
                found |= _ratio(name, _entropy_within(said, groups), _entropy_within(meant, groups))
        found["tag_f1_over_chance"] = _f1(said, meant) - _f1_by_chance(said, meant)
        return found


def rendered(tags: Sequence[str]) -> str:
    """Tags as the answer that is trained, judged and served."""
    return json.dumps({"tags": list(tags)}, ensure_ascii=False)


def read_tags(text: str) -> tuple[list[str], str]:
    """The tags of an answer, outer space removed, and why it has none: a snake_case word, empty for a valid answer."""
    if not text:
        return [], "empty"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return [], "not_json"
    if not isinstance(found, dict):
        return [], "not_an_object"
    if found.keys() != {"tags"}:
        return [], "other_keys" if "tags" in found else "no_tags"
    tags = found["tags"]
    if not isinstance(tags, list):
        return [], "not_a_list"
    if not all(isinstance(tag, str) for tag in tags):
        return [], "not_strings"
    if not tags:
        return [], "no_tags"
    if len(tags) > MAX_TAGS:
        return [], "too_many"
    tags = [_one_line(tag) for tag in tags]
    if not all(_is_tag(tag) for tag in tags):
        return [], "bad_tag"
    return tags, ""


def tempo_band(tags: Iterable[str]) -> str:
    """The band of the tempo that the tags state; `no tempo` where they state none."""
    stated = [match for tag in tags if (match := _TEMPO.fullmatch(_folded(tag)))]
    return next(name for end, name in TEMPO_BANDS if float(stated[-1][1]) < end) if stated else NO_TEMPO


def _target_tags(text: str) -> list[str] | Dropped:
    """A record's tags as they are trained: each once, none about the recording, the tempo last."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return Dropped("bad_tags", text[:80])
    if not isinstance(found, list) or not all(isinstance(tag, str) for tag in found):
        return Dropped("bad_tags", text[:80])
    tags = dict.fromkeys(_folded(tag) for tag in found)
    music = [tag for tag in tags if _is_tag(tag) and not _is_tempo(tag) and not _ABOUT_THE_RECORDING.search(tag)]
    tempo = [f"{int(match[1])} bpm" for tag in tags if (match := _TEMPO.fullmatch(tag))][-1:]
    if not music:
        return Dropped("no_tags", text[:80])
    return [*music[: MAX_TAGS - len(tempo)], *tempo]


def _is_tag(tag: str) -> bool:
    # A lone surrogate, which JSON can spell, is no text; neither are the marks that end a turn.
    return 0 < len(tag) <= MAX_TAG_CHARS and tag.isprintable() and "<|" not in tag


def _is_tempo(tag: str) -> bool:
    return _TEMPO.fullmatch(_folded(tag)) is not None


def _one_line(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _folded(text: str) -> str:
    # Twice: folding can leave what composes, and composing what folds.
    for _ in range(2):
        text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _tags_of(answer: str) -> frozenset[str]:
    """The tags of a valid answer beside its tempo."""
    return frozenset(_folded(tag) for tag in read_tags(answer)[0] if not _is_tempo(tag))


def _pair(answered: Answered) -> tuple[list[str], list[str]] | None:
    """The tags that were answered and those of the reference, where there are both."""
    if answered.answer is None or answered.reference is None:
        return None
    return read_tags(answered.answer)[0], read_tags(answered.reference.answer)[0]


def _overlap(said: Iterable[str], meant: Iterable[str]) -> tuple[float, float]:
    """Numerator and denominator of F1 = 2 |A and B| / (|A| + |B|); summed over answers they give micro-F1."""
    a, b = ({_folded(tag) for tag in tags if not _is_tempo(tag)} for tags in (said, meant))
    return 2.0 * len(a & b), float(len(a) + len(b))


def _same_band(said: Iterable[str], meant: Iterable[str]) -> bool:
    return tempo_band(said) == tempo_band(meant)


def _meant(answered: Sequence[Answered], against: Against) -> list[frozenset[str]]:
    """The tags that the data have for the same prompts; for prompts without reference as many training answers."""
    references = [one.reference for one in answered if one.reference is not None]
    if len(references) == len(answered):
        return [_tags_of(reference.answer) for reference in references]
    train = against.train_answers
    rows = min(len(answered), len(train))
    return [_tags_of(train[i * len(train) // rows]) for i in range(rows)]


def _entropy(rows: Sequence[frozenset[str]]) -> float:
    """Shannon entropy in bits of the tags of all rows; 0 for none."""
    counts = Counter(tag for row in rows for tag in row)
    total = counts.total()
    # abs: the entropy of one tag is -0.0.
    return abs(sum(n / total * math.log2(n / total) for n in counts.values()))


def _entropy_within(rows: Sequence[frozenset[str]], groups: Sequence[str]) -> float:
    """Mean entropy of the rows of each group, weighted by rows: how varied the tags are where the group is known.

    Rows of the group "" do not count.
    """
    by_group: dict[str, list[frozenset[str]]] = {}
    for row, group in zip(rows, groups, strict=True):
        if group:
            by_group.setdefault(group, []).append(row)
    return sum(len(part) * _entropy(part) for part in by_group.values()) / sum(map(len, by_group.values()))


def _num_distinct(rows: Sequence[frozenset[str]]) -> float:
    return float(len(frozenset[str]().union(*rows)))


def _top_share(rows: Sequence[frozenset[str]]) -> float:
    return max(Counter(rows).values()) / len(rows)


def _f1(said: Sequence[frozenset[str]], meant: Sequence[frozenset[str]]) -> float:
    return _divided(
        2 * sum(len(a & b) for a, b in zip(said, meant, strict=True)), sum(map(len, said)) + sum(map(len, meant))
    )


def _f1_by_chance(said: Sequence[frozenset[str]], meant: Sequence[frozenset[str]]) -> float:
    """Micro-F1 of every answer with every reference: what answers that do not hang on the scene would reach."""
    in_said, in_meant = (Counter(tag for row in rows for tag in row) for rows in (said, meant))
    common = sum(count * in_meant[tag] for tag, count in in_said.items())
    return _divided(2 * common, len(said) * (in_said.total() + in_meant.total()))


def _divided(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def _ratio(name: str, value: float, of: float) -> dict[str, float]:
    return {name: value / of} if of else {}


METRICS: Mapping[str, MetricInfo] = {
    "tag_f1": MetricInfo(
        "Tags in common", "share", "higher", "Micro-F1 of the tags, tempo aside, with those of the held-out clip."
    ),
    "tag_f1_over_chance": MetricInfo(
        "Tags in common over chance",
        "ratio",
        "higher",
        "Micro-F1 less what it would be if the same answers were dealt to the scenes at random: 0 means that the scene "
        "does not matter.",
    ),
    "tempo_agreement": MetricInfo(
        "Tempo band agrees",
        "share",
        "higher",
        "Valid answers whose tempo lies in the held-out clip's band, of those whose clip has one.",
    ),
    "tag_entropy": MetricInfo("Tag entropy", "bits", "higher", "Shannon entropy of the tags of all valid answers."),
    "tag_entropy_over_data": MetricInfo(
        "Tag entropy against data", "ratio", "higher", "Tag entropy over that of the held-out clips of the same scenes."
    ),
    "genre_entropy_over_data": MetricInfo(
        "Tag entropy within genres",
        "ratio",
        "higher",
        "Tag entropy within a genre, averaged over genres, over the same of the held-out clips.",
    ),
    "tempo_entropy_over_data": MetricInfo(
        "Tag entropy within tempo bands",
        "ratio",
        "higher",
        "Tag entropy within a tempo band, averaged over bands, over the same of the held-out clips.",
    ),
    "distinct_tags_over_data": MetricInfo(
        "Distinct tags against data", "ratio", "higher", "Different tags over those of the held-out clips."
    ),
    "top_answer_share": MetricInfo(
        "Commonest answer", "share", "lower", "Valid answers that have the commonest set of tags."
    ),
}

RECIPE = VideoTags(
    name="video_tags",
    title="Choose music tags for a video from what it shows",
    default_source="sample:clips",
    default_base_model="builtin:tiny-text",
    record_fields=("media",),
    needs="captions",
    # Scenes that signal analysis describes are built alike: below 1.0 all of them would chain into one cluster.
    curation=CurationSettings(near_duplicate_similarity=1.0),
    training=TrainingSettings(
        adapter_size=32,
        adapter_alpha=64.0,
        learning_rate=3e-3,
        batch_size=4,
        max_length=512,
    ),
    generation=GenerationParameters(max_new_tokens=192, temperature=0.7, do_sample=True, stop=(END_OF_TURN,)),
    answer_schema=ANSWER_SCHEMA,
    judge=JudgeSettings(num_samples=120, batch_size=40, max_heldout_rows=200),
    gates=(
        Gate("format", "valid_share", ">=", 0.85, "the answers are not the JSON object that was trained", bound="low"),
        Gate("collapse", "tag_entropy_over_data", ">=", 0.6, "few tags stand for all scenes (mode collapse)"),
        Gate("one_answer", "top_answer_share", "<=", 0.5, "one answer stands for most scenes (mode collapse)"),
        Gate(
            "better_than_base",
            "bits_per_char",
            "<=",
            -0.05,
            "held-out tags are no likelier than under the base",
            relative_to="base",
        ),
        Gate(
            "no_worse_than_champion",
            "bits_per_char",
            "<=",
            0.10,
            "held-out tags are less likely than under the champion",
            relative_to="champion",
        ),
        Gate(
            "memorisation",
            "bits_per_char_over_five_gram",
            "<=",
            0.35,
            "held-out tags are much less likely than under a character 5-gram: the model knows rows by heart and no "
            "others",
        ),
    ),
    examples_shown=2_400,
    metrics=METRICS,
    charts=("tag", "tempo"),
)
