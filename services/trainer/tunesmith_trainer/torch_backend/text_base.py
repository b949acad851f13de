"""`builtin:tiny-text`: a small Llama trained from scratch on the spot, for answers of many lines.

It knows words, sentences, verses, and the marks of lists, tables, JSON and turns of a talk, in neutral documents: never
the prompt or the answer format of a recipe, which fine-tuning is there to teach.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tunesmith.domain.runs import TrainingProgress
from tunesmith.recipes.playlist_form import read_playlist
from tunesmith_trainer.torch_backend.pretraining import END, PAD, Batch, pretrain
from tunesmith_trainer.torch_backend.text_sample import TextBaseSettings, TextSample

MARKS = ("<|im_start|>", "<|im_end|>")
"""Chat marks, each one token. Not special tokens: they are text that is decoded, so that a stop sequence is seen."""

_DOCUMENTS_FOR_VOCABULARY = 2_500
_DOCUMENTS_TOGETHER = 500
"""So many are tokenised in one call."""

_LONG_ROW_EVERY = 4
"""Every fourth batch has rows of the full length, the others of half: attention over long rows costs most."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_STANZA_END = re.compile(r"\n\s*\n")


def build_text_base(
    folder: Path,
    *,
    sample: TextSample,
    settings: TextBaseSettings | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Train the base into `folder`; see `pretrain`."""
    chosen = settings or TextBaseSettings()

    def material() -> tuple[PreTrainedTokenizerFast, list[Batch]]:
        tokenizer = learnt_tokenizer(sample, chosen)
        return tokenizer, _batches(tokenizer, sample, chosen)

    return pretrain(folder, material, chosen, progress=progress, should_stop=should_stop)


def learnt_tokenizer(sample: TextSample, settings: TextBaseSettings) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt from documents of the sample text; any text in any language comes back as it was.

    Digits stand alone, so that a number never seen is read as well as a known one. Equal arguments give equal tokens.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    documents = Documents(sample, random.Random(settings.seed))
    num_added = len(MARKS) + 2
    core.train_from_iterator(
        (documents.without_marks() for _ in range(_DOCUMENTS_FOR_VOCABULARY)),
        trainers.BpeTrainer(
            vocab_size=settings.vocabulary_size - num_added,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        eos_token=END,
        pad_token=PAD,
        model_max_length=settings.max_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS])
    return tokenizer


@dataclass(slots=True)
class _Deck:
    """Cards drawn in random order, all of them before any comes again."""

    cards: Sequence[str]
    chance: random.Random
    order: Iterator[str] = field(default_factory=lambda: iter(()))

    def draw(self) -> str:
        card = next(self.order, None)
        if card is None:
            self.order = iter(self.chance.sample(self.cards, len(self.cards)))
            card = next(self.order)
        return card

    def several(self, low: int, high: int) -> list[str]:
        return [self.draw() for _ in range(self.chance.randint(low, high))]


class Documents:
    """Documents made of the sample text, one after another without end; the same `chance` makes the same ones."""

    def __init__(self, sample: TextSample, chance: random.Random) -> None:
        names, remarks = _parts(sample.replies)
        sentences = [s for text in sample.prose for s in _SENTENCE_END.split(text)] + remarks
        stanzas = [s.strip() for song in sample.songs for s in _STANZA_END.split(song) if s.strip()]
        self._chance = chance
        self._names = _Deck([*sample.names, *names], chance)
        self._phrases = _Deck(sample.phrases, chance)
        self._prose = _Deck(sample.prose, chance)
        self._sentences = _Deck(sentences, chance)
        self._songs = _Deck(sample.songs or sample.prose, chance)
        self._stanzas = _Deck(stanzas or sample.prose, chance)
        self._forms: tuple[tuple[Callable[[], str], int], ...] = (
            (self._song, 10),
            (self._verses, 5),
            (self._paragraphs, 4),
            (self._turns, 5),
            (self._plain_list, 3),
            (self._numbered, 3),
            (self._facts, 3),
            (self._array, 4),
            (self._object, 3),
            (self._table, 2),
            (self._quotes, 2),
        )
        self._weights = [weight for _, weight in self._forms]

    def draw(self) -> str:
        """The next document, without its end token."""
        ((form, _),) = self._chance.choices(self._forms, self._weights)
        return form()

    def without_marks(self) -> str:
        """The next document with line breaks for chat marks, which are no part of the learnt vocabulary."""
        text = self.draw()
        for mark in MARKS:
            text = text.replace(mark, "\n")
        return text

    def _song(self) -> str:
        return self._songs.draw()

    def _verses(self) -> str:
        return "\n\n".join(self._stanzas.several(1, 3))

    def _paragraphs(self) -> str:
        return "\n\n".join(" ".join(self._prose.several(1, 3)) for _ in range(self._chance.randint(1, 3)))

    def _turns(self) -> str:
        """A talk between two speakers, with chat marks or names; the roles are not those of a chat model."""
        one, other = self._chance.sample(("reader", "writer", "anna", "guest", "host", "left", "right", "tom"), 2)
        start, end = MARKS
        marked = self._chance.random() < 0.7
        turns = []
        for number in range(self._chance.randint(2, 5)):
            speaker = one if number % 2 == 0 else other
            said = self._said()
            turns.append(f"{start}{speaker}\n{said}{end}" if marked else f"{speaker}: {said}")
        return "\n".join(turns)

    def _said(self) -> str:
        return self._chance.choice((self._paragraph, self._plain_list, self._array, self._object, self._words))()

    def _paragraph(self) -> str:
        return " ".join(self._sentences.several(1, 4))

    def _words(self) -> str:
        return ", ".join(self._short() for _ in range(self._chance.randint(1, 8)))

    def _short(self) -> str:
        return (self._names if self._chance.random() < 0.5 else self._phrases).draw()

    def _item(self) -> str:
        return self._sentences.draw() if self._chance.random() < 0.4 else self._short()

    def _heading(self) -> str:
        form = self._chance.choice(("{}\n", "# {}\n", "## {}\n\n", "{}:\n", "**{}**\n", "", "", "[{}]\n"))
        return form.format(self._short())

    def _plain_list(self) -> str:
        mark = self._chance.choice(("- ", "* ", "• ", ""))
        return self._heading() + "\n".join(mark + self._item() for _ in range(self._chance.randint(2, 7)))

    def _numbered(self) -> str:
        form = self._chance.choice(("{}. {}", "{}) {}", "[{}] {}", "#{} {}", "{} | {}", "{} - {}"))
        items = (self._item() for _ in range(self._chance.randint(2, 7)))
        return self._heading() + "\n".join(form.format(number, item) for number, item in enumerate(items, start=1))

    def _facts(self) -> str:
        lines = []
        for _ in range(self._chance.randint(2, 6)):
            form = self._chance.choice(("{}: {}", "{}: {}", "{} = {}", "**{}** {}", "{} ({})", "{} — {}"))
            lines.append(form.format(self._short(), self._value()))
        return self._heading() + "\n".join(lines)

    def _value(self) -> str:
        return str(self._chance.randint(0, 240)) if self._chance.random() < 0.3 else self._item()

    def _array(self) -> str:
        return json.dumps([self._short() for _ in range(self._chance.randint(1, 9))], ensure_ascii=False)

    def _object(self) -> str:
        row: dict[str, str | list[str]] = {}
        for _ in range(self._chance.randint(1, 4)):
            several = self._chance.random() < 0.5
            row[self._short()] = [self._short() for _ in range(self._chance.randint(1, 8))] if several else self._item()
        return json.dumps(row, ensure_ascii=False)

    def _table(self) -> str:
        width = self._chance.randint(2, 3)
        rows = [[self._short() for _ in range(width)] for _ in range(self._chance.randint(2, 6))]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def _quotes(self) -> str:
        left, right = self._chance.choice((('"', '"'), ("“", "”"), ("'", "'"), ("<i>", "</i>"), ("> ", ""), ("(", ")")))
        return "\n".join(f"{left}{self._sentences.draw()}{right}" for _ in range(self._chance.randint(1, 4)))


def _parts(replies: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names (titles and artists) and remarks of playlists, each once."""
    names: dict[str, None] = {}
    remarks: dict[str, None] = {}
    for playlist in map(read_playlist, replies):
        names |= dict.fromkeys([playlist.title, *(name for s in playlist.songs for name in (s.title, s.artist))])
        remarks |= dict.fromkeys([playlist.opening, *(song.reason for song in playlist.songs), playlist.closing])
    return list(names), list(remarks)


def _batches(tokenizer: PreTrainedTokenizerFast, sample: TextSample, settings: TextBaseSettings) -> list[Batch]:
    """One batch a step, of equally long rows that documents fill one after another, each followed by the end token."""
    documents = Documents(sample, random.Random(settings.seed + 1))
    stream: list[int] = []
    batches: list[Batch] = []
    while len(batches) < settings.num_steps:
        length = settings.max_length // (1 if len(batches) % _LONG_ROW_EVERY == 0 else 2)
        length = min(length, settings.batch_tokens)
        needed = settings.batch_tokens // length * length
        while len(stream) < needed:
            texts = [documents.draw() + END for _ in range(_DOCUMENTS_TOGETHER)]
            stream.extend(token for row in tokenizer(texts, add_special_tokens=False)["input_ids"] for token in row)
        batches.append([stream[start : start + length] for start in range(0, needed, length)])
        del stream[:needed]
    return batches
