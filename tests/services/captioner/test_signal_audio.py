"""What signal analysis says of sound, against sounds of which it is known."""

from __future__ import annotations

import numpy as np
import pytest
from _synthetic_music import CLICK_TEMPOS, RATE, chords, click_track, drum_set

from tunesmith_captioner.audio.key import PITCHES, estimate_key
from tunesmith_captioner.audio.loudness import measure_loudness
from tunesmith_captioner.audio.onsets import find_onsets
from tunesmith_captioner.audio.tempo import estimate_tempo
from tunesmith_captioner.audio.texture import measure_texture
from tunesmith_captioner.captioning import Clip
from tunesmith_captioner.signal_audio import SignalAudio, tag_vocabulary

LOUDNESS_RATE = 48_000


def clip_of(samples: np.ndarray) -> Clip:
    """A clip of that sound, full scale kept; its loudness is measured on the samples repeated to the higher rate."""
    stereo = np.repeat(samples, LOUDNESS_RATE // RATE)[:, None].repeat(2, 1).astype(np.float32)
    return Clip(
        duration_s=len(samples) / RATE,
        audio=samples.astype(np.float32),
        audio_rate=RATE,
        stereo=stereo,
        stereo_rate=LOUDNESS_RATE,
        frames=np.zeros((0, 2, 2, 3), np.uint8),
        frame_rate=2,
        thumbnails=np.zeros((0, 2, 2), np.uint8),
        thumbnail_times_s=np.zeros(0, np.float32),
        width=0,
        height=0,
    )


def tone(level_db: float, seconds: float, *, hz: float = 1000, rate: int = LOUDNESS_RATE) -> np.ndarray:
    """A stereo sine whose peaks stand at `level_db` below full scale."""
    wave = 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    return np.stack([wave, wave], 1).astype(np.float32)


def irregular_strokes(seed: int, seconds: float = 40) -> np.ndarray:
    """Clicks at random times: as many as at a tempo, but no tempo."""
    random = np.random.default_rng(seed)
    out = np.zeros(round(seconds * RATE), np.float32)
    stroke = click_track(60, seconds=0.5)[: RATE // 2]
    for at in np.cumsum(random.exponential(0.4, 90) + 0.05):
        start = round(at * RATE)
        if start + len(stroke) < len(out):
            out[start : start + len(stroke)] += stroke
    return out


def test_the_tempo_of_click_tracks_is_right_within_one_percent_and_told_with_confidence() -> None:
    found = {bpm: estimate_tempo(find_onsets(click_track(bpm), RATE)) for bpm in CLICK_TEMPOS}

    right = [bpm for bpm, tempo in found.items() if abs(tempo.bpm / bpm - 1) <= 0.01 and tempo.confident]
    assert len(right) >= 24, found


def test_the_tempo_of_drums_with_swing_fills_and_noise_is_right() -> None:
    tracks = [(track, estimate_tempo(find_onsets(track.samples, RATE))) for track in drum_set(24, seed=2)]

    wrong = [(track.groove, track.bpm, tempo) for track, tempo in tracks if abs(tempo.bpm / track.bpm - 1) > 0.01]
    assert len(wrong) <= 0.05 * len(tracks), wrong


@pytest.mark.parametrize(
    "sound",
    [
        np.random.default_rng(0).normal(0, 0.1, 40 * RATE),
        chords(0, seconds=40),
        irregular_strokes(1),
        irregular_strokes(2),
        0.3 * np.sin(np.arange(40 * RATE) * 0.1),
        np.zeros(40 * RATE),
    ],
    ids=["noise", "slow chords", "irregular strokes", "other irregular strokes", "tone", "silence"],
)
def test_no_tempo_is_told_where_there_is_no_beat(sound: np.ndarray) -> None:
    assert not estimate_tempo(find_onsets(sound.astype(np.float32), RATE)).confident


def test_a_tempo_that_changes_is_not_told() -> None:
    both = np.concatenate([click_track(83, seconds=20), click_track(120, seconds=20)])

    assert not estimate_tempo(find_onsets(both, RATE)).confident


@pytest.mark.parametrize("minor", [False, True])
def test_the_key_of_cadences_is_found_in_all_keys(minor: bool) -> None:
    for tonic, pitch in enumerate(PITCHES):
        key = estimate_key(chords(tonic, minor=minor, seconds=16), RATE)

        assert (key.name, key.confident) == (f"{pitch} {'minor' if minor else 'major'}", True)


def test_the_key_is_found_a_quarter_tone_off_and_under_drums() -> None:
    detuned = chords(9, seconds=16, rate=int(RATE * 2 ** (0.4 / 12)))
    drums = next(drum_set(1, seed=2, seconds=16)).samples

    assert estimate_key(detuned, RATE).name == "A major"
    assert estimate_key(0.8 * chords(9, seconds=16) + 0.2 * drums, RATE).name == "A major"


def test_no_key_is_told_of_drums_and_noise() -> None:
    sounds = [track.samples for track in drum_set(12, seed=5, seconds=20)]
    sounds.append(np.random.default_rng(0).normal(0, 0.2, 20 * RATE).astype(np.float32))

    assert not any(estimate_key(sound, RATE).confident for sound in sounds)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([(-23, 20)], -23),
        ([(-33, 20)], -33),
        ([(-36, 10), (-23, 60), (-36, 10)], -23),
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -23),
        ([(-26, 20), (-20, 20.1), (-26, 20)], -23),
    ],
)
def test_loudness_is_that_of_the_ebu_test_signals(levels: list[tuple[float, float]], expected: float) -> None:
    # EBU Tech 3341, table 1, cases 1 to 5: within 0.1 LU.
    signal = np.concatenate([tone(level, seconds) for level, seconds in levels])

    assert measure_loudness(signal, LOUDNESS_RATE).lufs == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(("levels", "expected"), [((-20, -30), 10), ((-20, -15), 5), ((-40, -20), 20)])
def test_loudness_range_is_that_of_the_ebu_test_signals(levels: tuple[float, float], expected: float) -> None:
    # EBU Tech 3342, table 1, cases 1 to 3: within 1 LU.
    signal = np.concatenate([tone(level, 20) for level in levels])

    assert measure_loudness(signal, LOUDNESS_RATE).range_lu == pytest.approx(expected, abs=1)


def test_a_tone_in_one_channel_is_three_decibels_quieter_at_any_rate() -> None:
    for rate in (32_000, 44_100, 48_000):
        one = tone(0, 10, hz=997, rate=rate) * [1, 0]

        assert measure_loudness(one.astype(np.float32), rate).lufs == pytest.approx(-3.01, abs=0.05)


def test_onsets_are_where_the_strokes_are() -> None:
    times = find_onsets(click_track(90, seconds=20, start_s=0.5), RATE).times_s

    assert times == pytest.approx(np.arange(0.5, 20, 60 / 90), abs=0.03)


def test_texture_tells_dark_from_bright_and_drums_from_chords() -> None:
    t = np.arange(10 * RATE) / RATE
    low, high = (measure_texture(np.sin(2 * np.pi * hz * t).astype(np.float32), RATE) for hz in (300, 5000))
    drums = measure_texture(next(drum_set(1, seconds=10)).samples, RATE)
    sustained = measure_texture(chords(0, seconds=10), RATE)

    assert low.brightness_hz(0, 10) == pytest.approx(300, rel=0.15)
    assert high.brightness_hz(0, 10) == pytest.approx(5000, rel=0.05)
    assert drums.percussive_share > 0.8 > 0.4 > sustained.percussive_share


def test_tags_are_of_a_closed_vocabulary_with_the_tempo_last_and_only_when_it_is_sure() -> None:
    drums, noise = next(drum_set(1, seed=2)), np.random.default_rng(0).normal(0, 0.1, 20 * RATE)
    [of_drums, of_noise] = SignalAudio().caption([clip_of(drums.samples), clip_of(noise)])

    assert of_drums.tags[-1] == f"{drums.bpm:.0f} bpm"
    assert set(of_drums.tags[:-1]) <= tag_vocabulary()
    assert set(of_noise.tags) <= tag_vocabulary()
    assert of_noise.facts is not None
    assert "tempo_bpm" not in of_noise.facts
    assert "No tempo can be told" in of_noise.summary


def test_windows_tell_of_their_own_seconds() -> None:
    quiet, loud = 0.15 * chords(0, seconds=20), chords(0, seconds=20)
    [made] = SignalAudio().caption([clip_of(np.concatenate([quiet, loud]))])

    assert [(caption.start_s, caption.end_s) for caption in made.captions] == [(0, 10), (10, 20), (20, 30), (30, 40)]
    assert "quieter than the clip" in made.captions[0].text
    assert "quieter" not in made.captions[3].text
    assert ", dynamic," in made.summary


def test_silence_is_an_error_not_a_guess() -> None:
    assert SignalAudio().caption([clip_of(np.zeros(5 * RATE))])[0].error == "silent"
