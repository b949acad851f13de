"""What every captioner keeps to."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith_captioner.captioning import Captioned, Captioner, Clip


def made_clip(*, sound: bool = True, picture: bool = True, seconds: float = 23.0, seed: int = 0) -> Clip:
    """A clip of seeded noise and colours."""
    random = np.random.default_rng(seed)
    num_audio = round(16_000 * seconds) if sound else 0
    num_frames = round(2 * seconds) if picture else 0
    num_thumbnails = round(25 * seconds) if picture else 0
    return Clip(
        duration_s=seconds,
        audio=random.normal(0, 0.1, num_audio).astype(np.float32),
        audio_rate=16_000,
        stereo=random.normal(0, 0.1, (3 * num_audio, 2)).astype(np.float32),
        stereo_rate=48_000,
        frames=random.integers(0, 255, (num_frames, 63, 112, 3), dtype=np.uint8),
        frame_rate=2,
        thumbnails=random.integers(0, 255, (num_thumbnails, 18, 32), dtype=np.uint8),
        thumbnail_times_s=(np.arange(num_thumbnails) / 25).astype(np.float32),
        width=640 if picture else 0,
        height=360 if picture else 0,
    )


class CaptionerContract:
    """Tests of a captioner; subclasses give `captioner`."""

    def one(self, captioner: Captioner, clip: Clip) -> Captioned:
        [made] = captioner.caption([clip])
        return made

    def test_each_clip_gets_its_answer_whatever_stands_beside_it(self, captioner: Captioner) -> None:
        clips = [made_clip(seed=1), made_clip(sound=False, picture=False), made_clip(seed=2)]

        together: Sequence[Captioned] = captioner.caption(clips)

        assert list(together) == [self.one(captioner, clip) for clip in clips]

    def test_no_clips_give_no_captions(self, captioner: Captioner) -> None:
        assert list(captioner.caption([])) == []

    def test_a_clip_without_its_media_is_an_error_with_a_reason(self, captioner: Captioner) -> None:
        kind = captioner.media_kind
        made = self.one(captioner, made_clip(sound=kind != "audio", picture=kind != "video"))

        assert made.error == f"no_{kind}"
        assert (made.captions, made.text, made.tags) == ((), "", ())

    def test_windows_follow_each_other_within_the_clip(self, captioner: Captioner) -> None:
        made = self.one(captioner, made_clip(seconds=23.0))

        assert made.captions
        assert made.captions[0].start_s == 0
        assert made.captions[-1].end_s <= 23.05
        for before, after in zip(made.captions, made.captions[1:], strict=False):
            assert before.start_s < before.end_s <= after.start_s
        assert all(caption.text.strip() == caption.text != "" for caption in made.captions)
        assert made.text

    def test_captions_survive_being_kept(self, captioner: Captioner) -> None:
        made = self.one(captioner, made_clip())

        kept: Any = json.loads(json.dumps(made.to_json()))
        assert Captioned.from_json(kept).to_json() == made.to_json()

    def test_a_clip_of_a_second_is_captioned_too(self, captioner: Captioner) -> None:
        assert self.one(captioner, made_clip(seconds=1.0)).text

    def test_name_and_version_can_be_part_of_a_key(self, captioner: Captioner) -> None:
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", captioner.name)
        assert re.fullmatch(r"[A-Za-z0-9._-]+", captioner.version)
