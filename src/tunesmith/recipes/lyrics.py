"""Lyrics: a title, an artist and perhaps genres in, the words of a song out, with their sections and line breaks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
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

RESPONSE = "### Response:\n"
"""Where the lyrics begin. It cannot stand in a title or an artist, which are one line each."""

_INSTRUCTION = (
    "### Instruction: You are a creative, world-famous expert lyricist. Write lyrics for a song, given just a title, "
    "artist name, possible genres, and any additional information provided.\n\n### Input:\n"
)

MAX_INPUT_CHARS = 200
"""Of a title, an artist or all genres together."""

MAX_GENRES = 10

MIN_LINES = 4
"""Lines that are sung; shorter texts are notes such as "[Instrumental]"."""

MAX_LYRICS_CHARS = 8_000
"""Longer texts are books of songs, or pages copied whole. six minutes of rap have some 6,000."""

NGRAM_WORDS = 5
"""Words of a run that counts as taken from the training rows: five common words in a row are seldom chance."""

RHYME_WINDOW = 4
"""A line rhymes with one of so many lines before or after it: AABB, ABAB and ABBA all lie within."""

_SECTION = re.compile(r"\[(?P<name>[^\[\]\n]{1,60})\]")
_SECTION_KIND = re.compile(r"[^\W\d_]+(?:[- ][^\W\d_]+)?")
_WORD = re.compile(r"[\w'’&]+")
_MARKUP = re.compile(r"<[a-zA-Z/!][^>\n]*>|&(?:#\d+|[a-z]{2,8});|https?://|\bwww\.", re.IGNORECASE)
_MANGLED = re.compile("\ufffd|Ã[\u0080-\u00bf]|â€")
"""The replacement character, and UTF-8 that was read as Latin-1 or Windows-1252."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NOT_LETTERS = re.compile(r"[^a-z]")
_RHYME = re.compile(r"[aeiouy]+[^aeiouy]*$")
_RHYME_SILENT_E = re.compile(r"[aeiouy]+[^aeiouy]+e$")

EXPLICIT_STEMS = (
    "asshole", "bastard", "bitch", "bullshit", "cock", "cum", "cunt", "dick", "faggot", "fuck", "hoe", "motherfuck",
    "nigga", "nigger", "porn", "pussy", "shit", "slut", "tits", "twat", "whore",
)  # fmt: skip
"""Words that mark lyrics as explicit, in English; long ones, and the commonest, with any ending."""

_EXPLICIT = re.compile(
    "|".join(stem + (r"\w*" if len(stem) > 5 or stem in ("fuck", "shit", "bitch") else "s?") for stem in EXPLICIT_STEMS)
)


def normal_lyrics(text: str) -> str:
    """NFC, line ends as `\\n`, no space at line ends, no blank lines around; everything else as it is."""
    lines = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def genres_of(text: str) -> tuple[str, ...]:
    """The genres of a list written with `;` or `,`, each once, in order, at most MAX_GENRES."""
    names = dict.fromkeys(_one_line(part) for part in re.split("[;,]", text))
    return tuple(name for name in names if name)[:MAX_GENRES]


def sung_lines(lyrics: str) -> list[str]:
    """The lines without blank ones and section headings such as `[Chorus]`."""
    lines = (line.strip() for line in lyrics.split("\n"))
    return [line for line in lines if line and not _SECTION.fullmatch(line)]


def words_of(text: str) -> list[str]:
    """The words in small letters."""
    return [word.casefold() for word in _WORD.findall(text)]


def is_explicit(word: str) -> bool:
    """Whether a word in small letters is on the list of EXPLICIT_STEMS."""
    return _EXPLICIT.fullmatch(word) is not None


@dataclass(frozen=True, slots=True)
class Lyrics(Recipe):
    """The lyrics recipe."""

    def example(self, record: Record, *, index: int) -> Example | Dropped:  # noqa: ARG002
        title, artist = (_one_line(record.fields.get(name, "")) for name in ("title", "artist"))
        genres = genres_of(record.fields.get("genres", ""))
        for name, value in (("title", title), ("artist", artist), ("genres", ", ".join(genres))):
            if not value and name != "genres":
                return Dropped(f"no_{name}")
            if len(value) > MAX_INPUT_CHARS:
                return Dropped(f"long_{name}", f"{len(value)} characters, limit {MAX_INPUT_CHARS}")
            if not value.isprintable() or _MANGLED.search(value):
                return Dropped(f"bad_{name}", value)
        lyrics = normal_lyrics(record.fields.get("lyrics", ""))
        if reason := _problem(lyrics):
            return Dropped(reason, f"{artist}: {title}")
        attributes = {
            "artist": artist,
            "genre": "; ".join(genres),
            "language": record.fields.get("language", "").strip().casefold(),
        }
        return Example(
            id=content_id("ex", [self.name, title, artist, genres, lyrics]),
            prompt=_prompt(title, artist, genres),
            completion=lyrics,
            answer=lyrics,
            record_ids=(record.id,),
            attributes={name: value for name, value in attributes.items() if value},
        )

    def prompt(self, inputs: Mapping[str, str]) -> str:
        title, artist = (_input(inputs, name, example) for name, example in (("title", "Low Tide"), ("artist", "Ada")))
        genres = genres_of(inputs.get("genres", ""))
        if len(", ".join(genres)) > MAX_INPUT_CHARS:
            raise InvalidInput(
                f"input genres has {len(', '.join(genres))} characters, the limit is {MAX_INPUT_CHARS}; name fewer",
                metadata={"field": "genres"},
            )
        return _prompt(title, artist, genres)

    def inputs_of_seed(self, seed: int) -> Mapping[str, str]:
        raise Unsupported(
            f"lyrics are not made from a seed number ({seed}); send title and artist, and genres if you like",
            metadata={"field": "seed"},
        )

    def parse(self, text: str) -> Parsed:
        """What follows the first `### Response:`; a text without it is read whole, and is not valid."""
        _, marker, body = text.partition(RESPONSE)
        lyrics = normal_lyrics(body if marker else text)
        reason = _problem(lyrics) if marker else "no_prompt"
        return Parsed(lyrics, valid=not reason, reason=reason)

    def identity(self, answer: str) -> str:
        """The sung lines in small letters with single spaces: songs that differ by layout alone are one song."""
        lines = (" ".join(line.split()) for line in _folded(answer).split("\n"))
        return "\n".join(line for line in lines if line and not _SECTION.fullmatch(line))

    def attributes(self, answer: str) -> Mapping[str, Sequence[str]]:
        lines = sung_lines(answer)
        words = [word for line in lines for word in words_of(line)]
        return {
            "word": words,
            "section": [kind for line in answer.split("\n") if (kind := _section_kind(line))],
            "explicit": ["yes" if any(map(is_explicit, words)) else "no"],
        }

    def measures(self, answers: Sequence[Answered], against: Against) -> Mapping[str, Sequence[Observation]]:
        songs = [None if one.answer is None else sung_lines(one.answer) for one in answers]
        references = [
            None if one.answer is None or one.reference is None else sung_lines(one.reference.answer) for one in answers
        ]
        taken = _Taken.from_rows(against.train_answers, [*songs, *references])
        over_heldout = [
            None if song is None or other is None else _share(taken.covered(song)) - _share(taken.covered(other))
            for song, other in zip(songs, references, strict=True)
        ]

        def each(measure: Callable[[Sequence[str]], Observation]) -> list[Observation]:
            return [None if song is None else measure(song) for song in songs]

        return {
            "five_gram_coverage": each(taken.covered),
            "five_gram_coverage_over_heldout": over_heldout,
            "repeated_line_share": each(_repeated_lines),
            "explicit_word_share": each(_explicit_words),
            "line_chars": each(lambda song: (float(sum(map(len, song))), float(len(song)))),
            "num_lines": each(lambda song: float(len(song))),
            "rhyme_share": each(_rhymed_lines),
        }


@dataclass(frozen=True, slots=True)
class _Taken:
    """Which runs of NGRAM_WORDS words of some songs stand in the training rows; memory follows the songs alone."""

    ngrams: frozenset[tuple[str, ...]]

    @staticmethod
    def from_rows(rows: Sequence[str], songs: Sequence[Sequence[str] | None]) -> _Taken:
        asked = {ngram for song in songs if song is not None for ngram in _ngrams(song)}
        return _Taken(frozenset(ngram for row in rows for ngram in _ngrams(sung_lines(row)) if ngram in asked))

    def covered(self, song: Sequence[str]) -> tuple[float, float]:
        """How many of the song's runs were found, of how many."""
        found = [ngram in self.ngrams for ngram in _ngrams(song)]
        return float(sum(found)), float(len(found))


def _ngrams(song: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Runs of words across line ends; a shorter song is one run."""
    words = [word for line in song for word in words_of(line)]
    for i in range(max(1, len(words) - NGRAM_WORDS + 1)):
        yield tuple(words[i : i + NGRAM_WORDS])


def _share(counted: tuple[float, float]) -> float:
    return counted[0] / counted[1]


def _repeated_lines(song: Sequence[str]) -> tuple[float, float]:
    """Lines that stood in the song before, of all."""
    return float(len(song) - len({" ".join(words_of(line)) for line in song})), float(len(song))


def _explicit_words(song: Sequence[str]) -> tuple[float, float]:
    """Words of the explicit list, of all."""
    words = [word for line in song for word in words_of(line)]
    return float(sum(map(is_explicit, words))), float(len(words))


def _rhymed_lines(song: Sequence[str]) -> tuple[float, float]:
    """Lines whose last word rhymes with another last word within RHYME_WINDOW lines, of all."""
    ends = [words_of(line)[-1:] for line in song]
    lasts = [end[0] if end else "" for end in ends]
    keys = [rhyme_key(word) for word in lasts]
    rhymed = 0
    for i, key in enumerate(keys):
        near = range(max(0, i - RHYME_WINDOW), min(len(keys), i + RHYME_WINDOW + 1))
        rhymed += any(key and keys[j] == key and lasts[j] != lasts[i] for j in near)
    return float(rhymed), float(len(song))


def rhyme_key(word: str) -> str:
    """The end of a word by its spelling: from its last vowel letters on, or those before a silent `e`.

    `night` and `light` share `ight`, `name` and `flame` share `ame`. Sound is not known: `blue` and `through` differ,
    `love` and `move` do not. It is a measure to compare texts of one language with, not a count of true rhymes.
    """
    plain = _NOT_LETTERS.sub("", unicodedata.normalize("NFKD", word.casefold()))
    found = _RHYME_SILENT_E.search(plain) or _RHYME.search(plain)
    return found[0] if found else ""


def _problem(lyrics: str) -> str:
    """Why a text is no song to train or to show; empty when it is."""
    if not lyrics:
        return "empty"
    if len(lyrics) > MAX_LYRICS_CHARS:
        return "too_long"
    if _CONTROL.search(lyrics):
        return "control_characters"
    if _MANGLED.search(lyrics):
        return "mangled"
    if "###" in lyrics:
        return "prompt_in_answer"
    if _MARKUP.search(lyrics):
        return "markup"
    lines = sung_lines(lyrics)
    if len(lines) < MIN_LINES:
        return "too_short"
    return "" if sum(any(c.isalpha() for c in line) for line in lines) >= MIN_LINES else "no_letters"


def _section_kind(line: str) -> str:
    """`chorus` of `[Chorus 2: both]`; empty for a line that is no heading."""
    heading = _SECTION.fullmatch(line.strip())
    kind = _SECTION_KIND.match(heading["name"].strip().partition(":")[0]) if heading else None
    return kind[0].casefold() if kind else ""


def _prompt(title: str, artist: str, genres: Sequence[str]) -> str:
    clause = f" using the following genres: {', '.join(genres)}" if genres else ""
    return f'{_INSTRUCTION}Write lyrics for a song titled "{title}" to be performed by {artist}{clause}.\n\n{RESPONSE}'


def _input(inputs: Mapping[str, str], name: str, example: str) -> str:
    value = _one_line(inputs.get(name, ""))
    if not value or len(value) > MAX_INPUT_CHARS or not value.isprintable():
        raise InvalidInput(
            f"input {name}={value[:40]!r} is not one line of 1 to {MAX_INPUT_CHARS} characters; "
            f"send for example {name}={example!r}",
            metadata={"field": name, "value": value[:40], "limit": str(MAX_INPUT_CHARS)},
        )
    return value


def _one_line(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _folded(text: str) -> str:
    if text.isascii():
        return text.casefold()
    # Twice: folding can leave what composes, and composing what folds.
    for _ in range(2):
        text = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", text)


METRICS: Mapping[str, MetricInfo] = {
    "five_gram_coverage": MetricInfo(
        "Runs taken from the data",
        "share",
        "lower",
        "Runs of five words that stand in the training rows, of all runs of the valid answers.",
    ),
    "five_gram_coverage_over_heldout": MetricInfo(
        "Runs taken beyond held-out songs",
        "ratio",
        "lower",
        "Mean over answers of the share of runs of five words that stand in the training rows, less that of the "
        "held-out song with the same title: above 0, more is recited than songs of this kind have in common.",
    ),
    "repeated_line_share": MetricInfo(
        "Repeated lines", "share", "lower", "Lines that stood in the same song before, of all lines."
    ),
    "explicit_word_share": MetricInfo(
        "Explicit words", "share", "lower", "Words of a short list of English obscenities and slurs, of all words."
    ),
    "line_chars": MetricInfo("Line length", "characters", "lower", "Mean length of a sung line."),
    "num_lines": MetricInfo("Lines", "count", "higher", "Mean number of sung lines of a song."),
    "rhyme_share": MetricInfo(
        "End rhymes",
        "share",
        "higher",
        "Lines whose last word ends like another one of the four lines before or after, judged by spelling alone.",
    ),
}

RECIPE = Lyrics(
    name="lyrics",
    title="Write the lyrics of a song from its title, artist and genres",
    default_source="sample:lyrics",
    record_fields=("title", "artist", "lyrics"),
    optional_fields=("genres", "language"),
    default_base_model="builtin:tiny-text",
    metrics=METRICS,
    charts=("section", "explicit"),
    # 72/8/20 as the task's first version had it. It also trained on a quarter of its 200,000 songs: that is
    # sample_share=0.25, and not the default because of the few hundred songs of the sample it would leave too few.
    curation=CurationSettings(
        near_duplicate_similarity=0.7,
        near_duplicate_chars=9,
        drop_near_duplicates=True,
        validation_share=0.08,
        test_share=0.20,
        languages="en",
    ),
    training=TrainingSettings(
        adapter_size=32,
        adapter_alpha=64.0,
        adapter_dropout=0.1,
        learning_rate=4e-3,
        batch_size=2,
        max_length=1024,
        eval_every_steps=40,
        save_every_steps=40,
    ),
    generation=GenerationParameters(max_new_tokens=640, temperature=0.8, top_p=0.95, do_sample=True),
    judge=JudgeSettings(num_samples=60, batch_size=20, max_heldout_rows=60),
    gates=(
        Gate("format", "valid_share", ">=", 0.80, "the answers are no songs, or have no end", bound="low"),
        Gate(
            "memorisation",
            "five_gram_coverage_over_heldout",
            "<=",
            0.20,
            "the model recites the songs it was trained on",
        ),
        Gate("long_copies", "long_copy_share", "<=", 0.10, "long spans are copied from single songs"),
        Gate("distinct", "distinct_share", ">=", 0.90, "the model writes one song again and again"),
        Gate("repetition", "repeated_line_share", "<=", 0.50, "the songs go round in circles"),
        Gate(
            "better_than_base",
            "bits_per_char",
            "<=",
            -0.05,
            "held-out songs are no likelier than under the base",
            relative_to="base",
        ),
        Gate(
            "no_worse_than_champion",
            "bits_per_char",
            "<=",
            0.05,
            "held-out songs are less likely than under the champion",
            relative_to="champion",
        ),
    ),
    examples_shown=1_100,
)
