"""Captioning a collection: what is added, what is kept, what failures leave, what a second attempt does."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from captioner_media import RED, Workshop, clicks, shots, write_media

from tunesmith.domain import keys
from tunesmith.domain.errors import DataLoss, FailedPrecondition, Interrupted, InvalidInput, NotFound
from tunesmith.recipes import recipe_named
from tunesmith.recipes.base import Dropped
from tunesmith_captioner import handlers
from tunesmith_captioner.captioners import choose
from tunesmith_captioner.handlers import CaptionedCollection, CaptionRequest


def decoded_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes of the files that are decoded from now on."""
    from tunesmith_captioner.decode import process

    real, seen = process.decode, []

    def noting(clip: Path, **rest):
        seen.append(clip.parent.name)
        return real(clip, **rest)

    monkeypatch.setattr(process, "decode", noting)
    return seen


def test_records_keep_id_and_provenance_and_gain_captions(workshop: Workshop, music_video: Path) -> None:
    collection = workshop.collection(workshop.add_media(music_video), genre="disco")

    made = workshop.caption(collection)

    [before], [after] = workshop.records(collection), workshop.records(made.collection)
    assert (after.id, after.provenance) == (before.id, before.provenance)
    assert before.fields.items() <= after.fields.items()
    assert after.fields["scene"].startswith("A dim landscape video in 2 shots")
    assert "about 120 beats per minute" in after.fields["music"]
    assert json.loads(after.fields["tags"])[-1] == "120 bpm"
    assert float(after.fields["tempo_bpm"]) == pytest.approx(120, rel=0.01)
    assert 0.5 <= float(after.fields["tempo_confidence"]) <= 1
    assert workshop.store.exists(after.fields["clip"])
    windows = json.loads(after.fields["captions"])
    assert {(w["captioner"], w["version"], w["kind"]) for w in windows} == {
        ("signal-audio", "1", "music"),
        ("signal-video", "1", "scene"),
    }
    assert all(0 <= w["start_s"] < w["end_s"] <= 12.1 and w["text"] for w in windows)


def test_the_video_tags_recipe_makes_examples_of_what_comes_out(workshop: Workshop, music_video: Path) -> None:
    sound_only = write_media(music_video.parent / "sound_only.mp4", sound=clicks(8))
    made = workshop.caption(workshop.collection(workshop.add_media(music_video), workshop.add_media(sound_only)))

    recipe = recipe_named("video_tags")
    example, dropped = (recipe.example(r, index=n) for n, r in enumerate(workshop.records(made.collection)))

    assert not isinstance(example, Dropped)
    assert "120 bpm" in example.answer
    assert dropped == Dropped("no_video", "no_video")


def test_the_collection_tells_what_it_was_made_of(workshop: Workshop, music_video: Path) -> None:
    collection = workshop.collection(*[workshop.add_media(music_video)] * 3)

    derived = workshop.caption(collection).collection

    assert (derived.derived_from, derived.derived_by) == (collection.id, "signal-audio 1, signal-video 1")
    assert (derived.num_records, derived.licences, derived.source) == (3, {"CC0-1.0": 3}, "tests")
    assert len(derived.shards) == len(collection.shards) == 2
    assert derived.shards[0] == keys.record_shard("video_tags", derived.id, 0)


def test_no_record_is_lost_and_each_failure_has_its_reason(workshop: Workshop, tmp_path: Path) -> None:
    silent = write_media(tmp_path / "silent.mp4", pictures=shots(RED, seconds=4), sound=np.zeros(4 * 48_000, "f4"))
    pictures = write_media(tmp_path / "pictures.mp4", pictures=shots(RED, seconds=4))
    sound = write_media(tmp_path / "sound.mp4", sound=clicks(8))
    (tmp_path / "notes.mp4").write_text("no video")
    media = [workshop.add_media(path) for path in (silent, pictures, sound, tmp_path / "notes.mp4")]

    made = workshop.caption(workshop.collection(*media, "ab" * 32, "../../etc/passwd"))

    fields = [record.fields for record in workshop.records(made.collection)]
    assert [one.get("caption_error") for one in fields] == [
        "silent",
        "no_audio",
        "no_video",
        "undecodable",
        "no_media",
        "no_media",
    ]
    assert made.failures == {"no_audio": 1, "no_media": 2, "no_video": 1, "silent": 1, "undecodable": 1}
    assert "scene" in fields[1]
    assert "music" not in fields[1]
    assert "music" in fields[2]
    assert "scene" not in fields[2]


def test_captioning_again_gives_the_collection_that_is_there(workshop: Workshop, music_video: Path) -> None:
    collection = workshop.collection(workshop.add_media(music_video), "ab" * 32)

    first, second = workshop.caption(collection), workshop.caption(collection)

    assert (first.reused, second.reused) == (False, True)
    assert second == replace(first, reused=True)


def test_the_same_file_in_another_collection_is_not_decoded_again(
    workshop: Workshop, music_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = workshop.add_media(music_video)
    workshop.caption(workshop.collection(media, media, name="col-a"))
    seen = decoded_files(monkeypatch)

    made = workshop.caption(workshop.collection(media, name="col-b"))

    assert seen == []
    assert workshop.records(made.collection)[0].fields["scene"]


def test_a_stopped_job_goes_on_where_it_was(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write_media(tmp_path / f"{bpm}.wav", sound=clicks(8, bpm), audio_codec="pcm_s16le") for bpm in (80, 100)]
    media = [workshop.add_media(path) for path in files]
    collection = workshop.collection(*media)
    workshop.batch_size = 1
    seen = decoded_files(monkeypatch)
    looks = count()
    workshop.should_stop = lambda: next(looks) == 3  # before the second batch

    with pytest.raises(Interrupted):
        workshop.caption(collection, "signal-audio")
    assert not workshop.store.exists(
        keys.collection("video_tags", workshop.plan(collection, "signal-audio").derived_id)
    )
    workshop.should_stop = lambda: False
    made = workshop.caption(collection, "signal-audio")

    assert seen == media
    assert [record.fields["tempo_bpm"] for record in workshop.records(made.collection)] == ["80.0", "100.0"]
    assert list(workshop.scratch.iterdir()) == []


def test_another_captioner_looks_at_the_stored_clip_not_at_the_file(workshop: Workshop, music_video: Path) -> None:
    media = workshop.add_media(music_video)
    collection = workshop.collection(media)
    workshop.caption(collection, "signal-audio")
    workshop.store.delete(keys.media(media))

    made = workshop.caption(collection, "signal-video")

    assert workshop.records(made.collection)[0].fields["scene"]
    assert "music" not in workshop.records(made.collection)[0].fields


def test_failures_of_this_machine_are_not_kept_those_of_the_file_are(workshop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no video")
    notes = workshop.add_media(tmp_path / "notes.mp4")
    sound = workshop.add_media(write_media(tmp_path / "a.wav", sound=clicks(8), audio_codec="pcm_s16le"))
    workshop.limits = replace(workshop.limits, wall_s=0)

    slow = workshop.caption(workshop.collection(sound, name="col-a"), "signal-audio")
    workshop.limits = replace(workshop.limits, wall_s=300)
    later = workshop.caption(workshop.collection(sound, notes, name="col-b"), "signal-audio")

    assert slow.failures == {"too_slow": 1}
    assert later.failures == {"undecodable": 1}
    assert [info.key.split("/")[1] for info in workshop.store.list("captions/")] == sorted([sound, notes])


def test_progress_counts_clips_and_failures(workshop: Workshop, music_video: Path) -> None:
    workshop.caption(workshop.collection(workshop.add_media(music_video), "ab" * 32, "cd" * 32))

    assert [(p.stage, p.done, p.total, dict(p.values)) for p in workshop.progress] == [
        ("caption", 0, 3, {}),
        ("caption", 2, 3, {"failed": 1.0}),
        ("caption", 3, 3, {"failed": 2.0}),
    ]


def test_what_cannot_be_captioned_is_refused_at_once(workshop: Workshop, music_video: Path) -> None:
    collection = workshop.collection(workshop.add_media(music_video))
    derived = workshop.caption(collection).collection

    with pytest.raises(NotFound, match="col-none"):
        handlers.plan_captions(workshop.store, "video_tags", "col-none", (), clip_s=60)
    with pytest.raises(InvalidInput, match="made from, col-media"):
        workshop.plan(derived)
    with pytest.raises(FailedPrecondition, match="'whisper'.*signal-audio, signal-video"):  # noqa: RUF043
        workshop.plan(collection, "whisper")


def test_two_captioners_of_one_kind_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith_captioner import captioners

    other = replace(captioners.CAPTIONERS[0], name="other-audio")
    monkeypatch.setattr(captioners, "CAPTIONERS", (*captioners.CAPTIONERS, other))

    assert [one.name for one in choose(())] == ["signal-audio", "signal-video"]
    with pytest.raises(InvalidInput, match="one kind of media"):
        choose(["signal-audio", "other-audio"])


def test_a_torn_shard_is_data_loss(workshop: Workshop, music_video: Path) -> None:
    collection = workshop.collection(workshop.add_media(music_video))
    workshop.store.put(collection.shards[0], b'{"id": "rec-1"}\n')

    with pytest.raises(DataLoss, match=collection.shards[0]):
        workshop.caption(collection)


def test_requests_and_outcomes_survive_a_job(workshop: Workshop, music_video: Path) -> None:
    collection = workshop.collection(workshop.add_media(music_video))
    plan, made = workshop.plan(collection), workshop.caption(collection)

    assert CaptionRequest.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert CaptionedCollection.from_json(json.loads(json.dumps(made.to_json()))) == made
