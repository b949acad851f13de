"""Playlists: what a person says in, a titled list of songs with reasons out, as a chat.

Records carry a pair (`prompt`, `reply`), collected as such or written by a language model from a collected playlist.
The reply has the one form of `playlist_form`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

from tunesmith.domain.datasets import CurationSettings
from tunesmith.domain.errors import InvalidInput, Unsupported
from tunesmith.domain.examples import Dropped, Example
from tunesmith.domain.ids import content_id
from tunesmith.domain.models import Gate, MetricInfo
from tunesmith.domain.records import Record
from tunesmith.domain.runs import TrainingSettings
from tunesmith.ports.language_model import GenerationParameters
from tunesmith.recipes.base import Against, Answered, JudgeSettings, Observation, Parsed, Recipe
from tunesmith.recipes.chat import END_OF_TURN, assistant_text, chat_completion, chat_messages, chat_prompt
from tunesmith.recipes.playlist_form import (
    MAX_PROMPT_CHARS,
    NotThisForm,
    Playlist,
    one_line,
    read_playlist,
    song_identity,
    text_of,
)
from tunesmith.recipes.playlist_pairs import PlaylistPairWriter

SYSTEM = (
    "You make playlists. Give a title, a line that meets the mood, at most 15 songs with a short reason each, "
    "and a kind last line."
)
"""A change here orphans every adapter."""

_WORD = re.compile(r"[\w'’&]+")
_ATTRIBUTES = ("mood", "style")
"""Fields of a record that its example can be balanced and charted by."""


@dataclass(frozen=True, slots=True)
class PlaylistRecipe(Recipe):
    """The playlist recipe."""

    def example(self, record: Record, *, index: int) -> Example | Dropped:  # noqa: ARG002  # prompts have no numbers
        said, reply = one_line(record.fields.get("prompt", "")), record.fields.get("reply", "")
        if not said or not reply.strip():
            return Dropped("needs_pairs", record.fields.get("title", "")[:80])
        if len(said) > MAX_PROMPT_CHARS:
            return Dropped("long_prompt", f"{len(said)} characters, limit {MAX_PROMPT_CHARS}")
        try:
            playlist = read_playlist(reply)
        except NotThisForm as problem:
            return Dropped(problem.reason, problem.detail)
        if repeated := _num_repeated(playlist):
            return Dropped("duplicate_song", f"{repeated} songs stand twice in {playlist.title[:60]!r}")
        answer = text_of(playlist)
        return Example(
            id=content_id("ex", [self.name, said, answer]),
            prompt=chat_prompt(SYSTEM, said),
            completion=chat_completion(answer),
            answer=answer,
            record_ids=(record.id,),
            attributes={name: record.fields[name] for name in _ATTRIBUTES if record.fields.get(name)},
            messages=chat_messages(SYSTEM, said, answer),
        )

    def prompt(self, inputs: Mapping[str, str]) -> str:
        said = one_line(inputs.get("prompt", ""))
        if not said or len(said) > MAX_PROMPT_CHARS:
            raise InvalidInput(
                f"input prompt has {len(said)} characters; say something of 1 to {MAX_PROMPT_CHARS} characters, "
                "for example prompt='rainy day, stuck inside'",
                metadata={"field": "prompt", "value": said[:40], "limit": str(MAX_PROMPT_CHARS)},
            )
        return chat_prompt(SYSTEM, said)

    def inputs_of_seed(self, seed: int) -> Mapping[str, str]:  # noqa: ARG002
        raise Unsupported("playlists are made from what a person says, not from seed numbers; send the input prompt")

    def parse(self, text: str) -> Parsed:
        body = assistant_text(text).strip()
        try:
            return Parsed(text_of(read_playlist(body)), valid=True)
        except NotThisForm as problem:
            return Parsed(body, valid=False, reason=problem.reason)

    def identity(self, answer: str) -> str:
        return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFKC", answer)).split()).casefold()

    def attributes(self, answer: str) -> Mapping[str, Sequence[str]]:
        words = {"word": [word.casefold() for word in _WORD.findall(answer)]}
        playlist = _read(answer)
        if playlist is None:
            return words
        return {
            **words,
            "artist": [song.artist for song in playlist.songs],
            "num_songs": [str(len(playlist.songs))],
        }

    def measures(self, answers: Sequence[Answered], against: Against) -> Mapping[str, Sequence[Observation]]:
        read = [_read(answered.answer) if answered.answer is not None else None for answered in answers]
        found: dict[str, Sequence[Observation]] = {
            "within_limit_share": [_refused(a, "too_many_songs", yes=0.0, no=1.0) for a in answers],
            "placeholder_share": [_refused(a, "placeholder", yes=1.0, no=0.0) for a in answers],
            "duplicate_song_share": [(_num_repeated(p), len(p.songs)) if p else None for p in read],
        }
        if against.catalogue:
            known = {_listed(name) for name in against.catalogue}
            found["catalogue_song_share"] = [
                (sum(identity in known for identity in _identities(p)), len(p.songs)) if p else None for p in read
            ]
        return found

    def sample_measures(self, answers: Sequence[Answered], against: Against) -> Mapping[str, float]:  # noqa: ARG002
        lists = [(a.prompt, frozenset(_identities(p))) for a in answers if a.answer and (p := _read(a.answer))]
        if not lists:
            return {}
        counts = Counter(song for _, songs in lists for song in songs)
        found = {"top_song_share": max(counts.values()) / len(lists)}
        prompts = Counter(prompt for prompt, _ in lists)
        num_pairs = comb(len(lists), 2) - sum(comb(n, 2) for n in prompts.values())
        if num_pairs:
            within = Counter((prompt, song) for prompt, songs in lists for song in songs)
            shared = sum(comb(n, 2) for n in counts.values()) - sum(comb(n, 2) for n in within.values())
            found["shared_songs"] = shared / num_pairs
        return found


def _read(answer: str) -> Playlist | None:
    try:
        return read_playlist(answer)
    except NotThisForm:
        return None


def _identities(playlist: Playlist) -> list[str]:
    return [song_identity(song.title, song.artist) for song in playlist.songs]


def _num_repeated(playlist: Playlist) -> int:
    return len(playlist.songs) - len(set(_identities(playlist)))


def _listed(name: str) -> str:
    """The song that a line of a catalogue names: `Song — Artist`; a hyphen does where there is no dash."""
    title, dash, artist = name.partition(" — ") if " — " in name else name.partition(" - ")
    return song_identity(title, artist) if dash else ""


def _refused(answered: Answered, reason: str, *, yes: float, no: float) -> Observation:
    """`yes` for an answer refused for `reason`, `no` for a valid one; others do not count."""
    if answered.answer is not None:
        return no
    return yes if answered.reason == reason else None


RECIPE = PlaylistRecipe(
    name="playlist",
    title="Make a playlist for what a person says",
    default_source="sample:playlists",
    record_fields=("title",),
    default_base_model="builtin:tiny-text",
    optional_fields=("description", "songs", "prompt", "reply", *_ATTRIBUTES),
    curation=CurationSettings(near_duplicate_similarity=0.85, validation_share=0.05, test_share=0.05),
    # For builtin:tiny-text on 2 CPU cores, where some 3,000 tokens are trained a CPU-second; larger bases want less.
    training=TrainingSettings(
        adapter_size=32,
        adapter_alpha=64.0,
        learning_rate=4e-3,
        batch_size=2,
        max_length=1024,
        eval_every_steps=40,
        save_every_steps=40,
    ),
    generation=GenerationParameters(max_new_tokens=512, temperature=0.7, do_sample=True, stop=(END_OF_TURN,)),
    judge=JudgeSettings(num_samples=100, batch_size=50, max_heldout_rows=100),
    gates=(
        Gate("format", "valid_share", ">=", 0.80, "the answers do not have the playlist form", bound="low"),
        Gate("within_limit", "within_limit_share", ">=", 0.95, "answers list more than 15 songs"),
        Gate("placeholders", "placeholder_share", "<=", 0.02, "answers leave placeholders such as [Insert song]"),
        Gate("duplicates", "duplicate_song_share", "<=", 0.10, "answers list the same song twice"),
        Gate("novelty", "novel_share", ">=", 0.50, "the model recites replies it was trained on", bound="low"),
        Gate("distinct", "distinct_share", ">=", 0.85, "the model gives the same reply again and again"),
        Gate("same_songs", "top_song_share", "<=", 0.25, "one song stands in the answers to everything"),
        Gate("shared_songs", "shared_songs", "<=", 1.0, "answers to different prompts list the same songs"),
        Gate(
            "better_than_base",
            "bits_per_char",
            "<=",
            -0.05,
            "held-out replies are no likelier than under the base",
            relative_to="base",
        ),
        Gate(
            "no_worse_than_champion",
            "bits_per_char",
            "<=",
            0.10,
            "held-out replies are less likely than under the champion",
            relative_to="champion",
        ),
    ),
    examples_shown=3_600,
    pair_writer=PlaylistPairWriter(),
    metrics={
        "within_limit_share": MetricInfo(
            "at most 15 songs", "share", "higher", "Answers of the form that list at most 15 songs."
        ),
        "placeholder_share": MetricInfo(
            "placeholders",
            "share",
            "lower",
            "Answers of the form in which something was never filled in, such as [Insert song] or Song Title.",
        ),
        "duplicate_song_share": MetricInfo(
            "songs listed twice", "share", "lower", "Songs that stand in their own answer before, of all songs listed."
        ),
        "catalogue_song_share": MetricInfo(
            "songs that exist", "share", "higher", "Songs that the recipe's catalogue lists, of all songs listed."
        ),
        "top_song_share": MetricInfo(
            "commonest song", "share", "lower", "Answers that list the song which most answers list."
        ),
        "shared_songs": MetricInfo(
            "songs shared across prompts",
            "count",
            "lower",
            "Songs that the answers to two different prompts have in common, as a mean over all such pairs.",
        ),
    },
    charts=("artist", "num_songs"),
)
