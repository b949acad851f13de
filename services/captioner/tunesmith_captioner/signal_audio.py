"""`signal-audio`: what signal analysis knows of a clip's sound, and no more. Needs no weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesmith_captioner.audio.key import Key, estimate_key
from tunesmith_captioner.audio.loudness import Loudness, measure_loudness
from tunesmith_captioner.audio.onsets import Onsets, find_onsets
from tunesmith_captioner.audio.tempo import Tempo, estimate_tempo
from tunesmith_captioner.audio.texture import Texture, measure_texture
from tunesmith_captioner.captioning import WINDOW_S, Caption, Captioned, Clip, MediaKind
from tunesmith_captioner.words import Scale, listed, windows, word

_INFINITE = float("inf")

TEMPO: Scale = ((66, "very slow"), (90, "slow"), (115, "mid-tempo"), (140, "fast"), (_INFINITE, "very fast"))
"""In beats per minute, near the limits of adagio, andante, moderato and allegro on a metronome."""
LOUDNESS: Scale = ((-30, "very quiet"), (-20, "quiet"), (-12, "loud"), (_INFINITE, "very loud"))
"""In LUFS. Broadcasts stand at -23 (EBU R 128), streaming services at -14, masters for loudness near -8."""
DYNAMICS: Scale = ((3, "steady"), (8, "moderately dynamic"), (_INFINITE, "dynamic"))
"""Loudness range in LU."""
BRIGHTNESS: Scale = ((1200, "dark"), (2200, "warm"), (_INFINITE, "bright"))
"""Median centre of the amplitude spectrum up to 8 kHz, in Hz."""
DENSITY: Scale = ((1.2, "sparse"), (4, "moderately busy"), (_INFINITE, "busy"))
"""Onsets a second."""
PERCUSSION: Scale = ((0.35, "sustained"), (0.65, "mixed attack"), (_INFINITE, "percussive"))
"""Share of energy that stands across the spectrum."""
LEVEL_CHANGE: Scale = ((-3, "quieter"), (3, ""), (_INFINITE, "louder"))
"""A window's level against the clip's, in dB."""


class SignalAudio:
    """Tempo, key, loudness, brightness, density and attack, as tags and sentences."""

    name = "signal-audio"
    version = "1"
    media_kind: MediaKind = "audio"

    def caption(self, clips: Sequence[Clip]) -> Sequence[Captioned]:
        """As Captioner says. A clip without sound is `no_audio`, one with nothing above -70 LUFS is `silent`."""
        return [self._one(clip) for clip in clips]

    def _one(self, clip: Clip) -> Captioned:
        if not clip.has("audio"):
            return Captioned(error="no_audio")
        loudness = measure_loudness(clip.stereo, clip.stereo_rate)
        if loudness.silent:
            return Captioned(error="silent")
        audio = np.asarray(clip.audio)
        onsets = find_onsets(audio, clip.audio_rate)
        texture = measure_texture(audio, clip.audio_rate)
        tempo, key = estimate_tempo(onsets), estimate_key(audio, clip.audio_rate)
        duration_s = len(audio) / clip.audio_rate
        character = [
            word(loudness.lufs, LOUDNESS),
            word(loudness.range_lu, DYNAMICS),
            word(texture.brightness_hz(0, duration_s), BRIGHTNESS),
            word(len(onsets.times_s) / duration_s, DENSITY),
            word(texture.percussive_share, PERCUSSION),
        ]
        tags = [word(tempo.bpm, TEMPO)] if tempo.confident else []
        tags += character
        tags += [key.name.lower()] if key.confident else []
        tags += [f"{tempo.bpm:.0f} bpm"] if tempo.confident else []
        return Captioned(
            captions=tuple(_window(start, end, onsets, texture) for start, end in windows(duration_s, WINDOW_S)),
            summary=_summary(character, tempo, key),
            tags=tuple(tags),
            facts=_facts(tempo, key, loudness),
        )


def _summary(character: Sequence[str], tempo: Tempo, key: Key) -> str:
    beat = f"The tempo is {word(tempo.bpm, TEMPO)}, about {tempo.bpm:.0f} beats per minute"
    if not tempo.confident:
        beat = "No tempo can be told with confidence"
        if tempo.confidence > 0 and tempo.rival_bpm:
            low, high = sorted((tempo.bpm, tempo.rival_bpm))
            beat += f": it may be heard at {low:.0f} or {high:.0f} beats per minute"
    tonality = f"the key is {key.name}" if key.confident else "no key stands out"
    return f"The music is {listed(character)}. {beat}; {tonality}."


def _window(start_s: float, end_s: float, onsets: Onsets, texture: Texture) -> Caption:
    if texture.mean_level_db(start_s, end_s) < -70:
        return Caption(round(start_s, 2), round(end_s, 2), "Silence.")
    strokes = int(np.count_nonzero((onsets.times_s >= start_s) & (onsets.times_s < end_s)))
    overall_db = texture.mean_level_db(0, _INFINITE_S)
    words = [
        word(texture.brightness_hz(start_s, end_s), BRIGHTNESS),
        word(strokes / (end_s - start_s), DENSITY),
    ]
    change = word(texture.mean_level_db(start_s, end_s) - overall_db, LEVEL_CHANGE)
    than = f", {change} than the clip as a whole" if change else ""
    return Caption(round(start_s, 2), round(end_s, 2), f"{listed(words).capitalize()} music{than}.")


_INFINITE_S = 1e6


def _facts(tempo: Tempo, key: Key, loudness: Loudness) -> dict[str, str]:
    facts = {"tempo_confidence": f"{tempo.confidence:.3f}", "loudness_lufs": f"{loudness.lufs:.1f}"}
    if tempo.confident:
        facts["tempo_bpm"] = f"{tempo.bpm:.1f}"
    if key.confident:
        facts["key"] = key.name
    return facts


def tag_vocabulary() -> frozenset[str]:
    """Every tag that can be given, but for the key and the tempo in numbers."""
    return frozenset(
        name for scale in (TEMPO, LOUDNESS, DYNAMICS, BRIGHTNESS, DENSITY, PERCUSSION) for _, name in scale
    )
