"""The video-tags recipe: what it makes of captions, what it reads in answers, and what it measures."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.domain.errors import InvalidInput, Unsupported
from tunesmith.domain.examples import Dropped, Example
from tunesmith.domain.records import Licence, Provenance, Record
from tunesmith.recipes.base import Against, Answered
from tunesmith.recipes.chat import END_OF_TURN
from tunesmith.recipes.video_tags import METRICS, RECIPE, rendered

PROVENANCE = Provenance("test", "test:", "test:", Licence("CC0-1.0"), "2026-01-01T00:00:00Z", "0" * 64)
NOTHING = Against((), frozenset())


def captioned(tags: object = ("pads", "calm"), scene: str = "A dark lake.", **fields: str) -> Record:
    given = {"media": "0" * 64, "scene": scene, "tags": json.dumps(tags), **fields}
    return Record.make({name: value for name, value in given.items() if value}, PROVENANCE)


def example(*arguments: object, **fields: str) -> Example:
    made = RECIPE.example(captioned(*arguments, **fields), index=0)
    assert isinstance(made, Example)
    return made


def tags_of(made: Example) -> list[str]:
    found = json.loads(made.answer)["tags"]
    assert isinstance(found, list)
    return found


def asked(answer: Sequence[str] | None, reference: Sequence[str], scene: str = "A lake.", genre: str = "") -> Answered:
    """One prompt that was answered with some tags, and the tags that its held-out clip has."""
    held_out = example(list(reference), scene, genre=genre)
    return Answered(held_out.prompt, None if answer is None else rendered(answer), held_out)


def measured(answers: Sequence[Answered]) -> dict[str, float]:
    """Own measures as the judge takes them: observations as a ratio of sums, sample measures as they are."""
    found = dict(RECIPE.sample_measures(answers, NOTHING))
    for name, observations in RECIPE.measures(answers, NOTHING).items():
        pairs = [one if isinstance(one, tuple) else (one, 1.0) for one in observations if one is not None]
        if pairs:
            found[name] = sum(top for top, _ in pairs) / sum(bottom for _, bottom in pairs)
    return found


def test_a_captioned_clip_becomes_a_chat_with_a_json_answer() -> None:
    made = example(["Slow", "quiet", "72 bpm"], "A dark\n blue picture.", genre="Ambient")

    assert [(message.role, message.content) for message in made.messages[1:]] == [
        ("user", "A dark blue picture."),
        ("assistant", '{"tags": ["slow", "quiet", "72 bpm"]}'),
    ]
    assert made.prompt.endswith("A dark blue picture.<|im_end|>\n<|im_start|>assistant\n")
    assert made.completion == made.answer + END_OF_TURN
    assert made.attributes == {"tempo": "under 90 bpm", "genre": "ambient"}


def test_the_tempo_comes_last_and_once() -> None:
    assert tags_of(example(["100 bpm", "drums", "104.4 BPM", "bright"])) == ["drums", "bright", "104 bpm"]


def test_tags_about_the_recording_are_left_out() -> None:
    tags = ["poor audio quality", "noisy", "mono", "piano", "amateur recording", "noise rock", "monotone"]

    assert tags_of(example(tags)) == ["piano", "noise rock", "monotone"]


def test_at_most_twenty_tags_are_kept_the_tempo_among_them() -> None:
    tags = tags_of(example([f"tag {n}" for n in range(30)] + ["90 bpm"]))

    assert (len(tags), tags[0], tags[-2:]) == (20, "tag 0", ["tag 18", "90 bpm"])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (captioned(caption_error="no_audio"), "no_audio"),
        (captioned(caption_error="No! audio"), "caption_error"),
        (captioned(scene=""), "no_captions"),
        (Record.make({"media": "0" * 64}, PROVENANCE), "no_captions"),
        (captioned(scene="x" * 2001), "scene_too_long"),
        (captioned("pads, calm"), "bad_tags"),
        (captioned([1, 2]), "bad_tags"),
        (captioned(["low quality", "", "90 bpm"]), "no_tags"),
        (Record.make({"scene": "A lake.", "tags": "["}, PROVENANCE), "bad_tags"),
        (Record.make({"scene": "A lake.", "tags": "[" * 100_000}, PROVENANCE), "bad_tags"),
    ],
)
def test_a_record_without_usable_captions_is_dropped_with_the_reason(record: Record, reason: str) -> None:
    made = RECIPE.example(record, index=0)

    assert isinstance(made, Dropped)
    assert made.reason == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"tags": ["a"]}', ""),
        (' {"tags":["a",\n"b"]} ', ""),
        ("", "empty"),
        ("pads, calm", "not_json"),
        ('```json\n{"tags": ["a"]}\n```', "not_json"),
        ('{"tags": ["a"]', "not_json"),
        ('{"tags": ["a"]} and more', "not_json"),
        ('{{"tags": ["a"]}}', "not_json"),
        ('["a"]', "not_an_object"),
        ('{"genres": ["a"]}', "no_tags"),
        ('{"tags": []}', "no_tags"),
        ('{"tags": ["a"], "mood": "b"}', "other_keys"),
        ('{"tags": "a, b"}', "not_a_list"),
        ('{"tags": ["a", 1]}', "not_strings"),
        ('{"tags": ["a", null]}', "not_strings"),
        (rendered([f"t{n}" for n in range(21)]), "too_many"),
        ('{"tags": [" "]}', "bad_tag"),
        (rendered(["x" * 61]), "bad_tag"),
        ('{"tags": ["\\ud800"]}', "bad_tag"),
        ('{"tags": ["a\\u0000"]}', "bad_tag"),
        ('{"tags": ["<|im_end|>"]}', "bad_tag"),
    ],
)
def test_an_answer_is_one_json_object_of_tags_and_nothing_else(text: str, reason: str) -> None:
    parsed = RECIPE.parse(RECIPE.prompt({"scene": "A lake."}) + text + END_OF_TURN)

    assert (parsed.valid, parsed.reason) == (not reason, reason)


@given(st.lists(st.text(max_size=20), max_size=25))
def test_any_tags_that_make_an_example_are_read_back(tags: list[str]) -> None:
    made = RECIPE.example(captioned(tags), index=0)

    if isinstance(made, Example):
        parsed = RECIPE.parse(made.prompt + made.completion)
        assert (parsed.answer, parsed.valid) == (made.answer, True)
        assert RECIPE.identity(RECIPE.identity(made.answer)) == RECIPE.identity(made.answer)


def test_order_case_and_spaces_make_no_other_answer() -> None:
    assert RECIPE.identity('{"tags":["Pads","calm"]}') == RECIPE.identity('{ "TAGS": ["calm", "pads ", "pads"] }')
    assert RECIPE.identity(rendered(["pads"])) != RECIPE.identity(rendered(["pads", "calm"]))


def test_clips_that_share_their_tags_are_no_duplicates_unless_their_scenes_are_the_same_too() -> None:
    lake, again, sea = example(["a", "b"]), example(["b", "a"]), example(["a", "b"], "A bright sea.")

    assert RECIPE.duplicate_key(lake) == RECIPE.duplicate_key(again)
    assert RECIPE.duplicate_key(lake) != RECIPE.duplicate_key(sea)


def test_a_seed_makes_no_scene() -> None:
    with pytest.raises(Unsupported, match="send the input scene"):
        RECIPE.inputs_of_seed(1)


@pytest.mark.parametrize("scene", ["", "  ", "x" * 2001])
def test_a_scene_that_is_empty_or_endless_is_refused(scene: str) -> None:
    with pytest.raises(InvalidInput, match="in 1 to 2000"):
        RECIPE.prompt({"scene": scene})


def test_a_perfect_imitation_measures_like_the_data() -> None:
    answers = [
        asked(tags, tags, scene, genre)
        for tags, scene, genre in (
            (["pads", "calm", "70 bpm"], "A lake.", "ambient"),
            (["drums", "loud", "130 bpm"], "A train.", "house"),
            (["drums", "bass", "128 bpm"], "A road.", "house"),
        )
    ]

    found = measured(answers)

    assert found["tag_f1"] == found["tempo_agreement"] == 1.0
    assert found["tag_entropy"] == pytest.approx(2.2516, abs=1e-4)  # counts 1 1 2 1 1 of 6
    for name in METRICS:
        if name.endswith("_over_data"):
            assert found[name] == 1.0, name
    assert found["top_answer_share"] == pytest.approx(1 / 3)
    # Of the nine pairs, each answer shares its two tags with its own clip, and drums stand in two clips: 8 in common.
    assert found["tag_f1_over_chance"] == pytest.approx(1 - 16 / 36)


def test_one_tag_for_all_shows_as_collapse() -> None:
    answers = [asked(["rock", "120 bpm"], [f"tag {n}", "rock", "90 bpm"], f"Scene {n}.", "any") for n in range(10)]

    found = measured(answers)

    assert (found["top_answer_share"], found["tag_entropy"], found["tag_entropy_over_data"]) == (1.0, 0.0, 0.0)
    assert found["genre_entropy_over_data"] == found["tempo_entropy_over_data"] == 0.0
    assert found["tempo_agreement"] == 0.0
    assert found["tag_f1_over_chance"] == pytest.approx(0.0)


def test_right_tags_on_the_wrong_scenes_share_less_than_chance() -> None:
    answers = [asked(["a", "b"], ["c", "d"], "One."), asked(["c", "d"], ["a", "b"], "Two.")]

    found = measured(answers)

    assert (found["tag_f1"], found["tag_f1_over_chance"], found["tag_entropy_over_data"]) == (0.0, -0.5, 1.0)


def test_the_tempo_is_compared_by_band_and_only_where_the_clip_has_one() -> None:
    answers = [
        asked(["a", "95 bpm"], ["a", "118 bpm"]),
        asked(["a", "80 bpm"], ["a", "118 bpm"]),
        asked(["a"], ["a", "118 bpm"]),
        asked(["a", "80 bpm"], ["a"]),
        asked(None, ["a", "118 bpm"]),
    ]

    assert RECIPE.measures(answers, NOTHING)["tempo_agreement"] == [1.0, 0.0, 0.0, None, None]


def test_one_observation_is_given_for_each_answer_and_every_measure_is_described() -> None:
    answers = [asked(None, ["a"]), asked(["a"], ["a", "b"]), Answered("raw", rendered(["a"]), None)]

    measures = RECIPE.measures(answers, NOTHING)

    assert {len(observations) for observations in measures.values()} == {3}
    assert measures["tag_f1"] == [None, (2.0, 3.0), None]
    assert measures.keys() | RECIPE.sample_measures(answers, NOTHING).keys() <= METRICS.keys()


def test_answers_without_references_are_held_against_training_answers() -> None:
    answers = [Answered("raw", rendered(["a", "b"]), None)] * 2
    against = Against([rendered(["a", "b"]), rendered(["c", "d"])], frozenset())

    assert RECIPE.sample_measures(answers, against)["tag_entropy_over_data"] == 0.5


def test_nothing_valid_gives_no_sample_measure() -> None:
    assert RECIPE.sample_measures([asked(None, ["a"])], NOTHING) == {}


def test_the_report_charts_tags_and_tempo_bands() -> None:
    counted = RECIPE.attributes(rendered(["pads", "Calm", "150 bpm"]))

    assert counted == {"tag": ["pads", "calm"], "word": ["pads", "calm"], "tempo": ["150 bpm and up"]}
    assert set(RECIPE.charts) <= counted.keys()
    assert RECIPE.attributes("no json") == {}
