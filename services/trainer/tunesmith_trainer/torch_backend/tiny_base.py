"""`builtin:tiny`: a small Llama trained from scratch on the spot, on the project's own names and phrases.

It exists so that everything can be tried without network or GPU. It knows letters, words, names and punctuation in a
dozen list formats, but never the format of a recipe: that is what fine-tuning is there to teach.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tunesmith.domain.runs import TrainingProgress
from tunesmith_trainer.torch_backend.fingerprint import SampleText, TinyBaseSettings
from tunesmith_trainer.torch_backend.pretraining import END, PAD, Batch, pretrain

_FORMATS = (
    "- {x}",
    "* {x}",
    "{n}. {x}",
    "{n}) {x}",
    '"{x}"',
    "{x} | {y}",
    "<{x}>",
    "[{n}] {x}",
    "{x} -> {y}",
    "{n}: {x}",
    "{x}, {y}",
    "({x})",
    "#{n} {x}",
    "{x}; {y}",
    "{n} - {x}",
    "{n} => {x}",
    "{x}|{n}",
    "a list: {x}",
    "{x}",
    "{x}<br>",
    "<li>{x}</li>",
    "{x} [end]",
    "{n}|{x}|eol|",
    "{n}->{y};{x};",
    "| {x} | {n} |",
)
"""Neutral list formats. A base that never met punctuation cannot be taught a format by an adapter: LoRA on bare names
reached 14 % valid answers where these reached 98 %."""

_LINES_SORTED_TOGETHER = 1024
"""So many lines are sorted by length before they are cut into batches, so that a batch has next to no padding."""


def build_tiny_base(
    folder: Path,
    *,
    text: SampleText,
    settings: TinyBaseSettings | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """Train the base into `folder`; see `pretrain`."""
    chosen = settings or TinyBaseSettings()

    def material() -> tuple[PreTrainedTokenizerFast, list[Batch]]:
        tokenizer = byte_tokenizer(chosen.max_length)
        return tokenizer, _batches(tokenizer, text, chosen)

    return pretrain(folder, material, chosen, progress=progress, should_stop=should_stop)


def byte_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer of 256 bytes, an end and a padding token: any text in any language, and no vocabulary to train."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        eos_token=END,
        pad_token=PAD,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def _batches(tokenizer: PreTrainedTokenizerFast, text: SampleText, settings: TinyBaseSettings) -> list[Batch]:
    """All batches of the whole training, each a list of token rows of nearly one length."""
    chance = random.Random(settings.seed)
    names, phrases = _shuffled_forever(text.names, chance), _shuffled_forever(text.phrases, chance)
    batches: list[Batch] = []
    while len(batches) < settings.num_steps:
        lines = [_line(names, phrases, settings.name_share, chance) + END for _ in range(_LINES_SORTED_TOGETHER)]
        rows = sorted(tokenizer(lines, add_special_tokens=False)["input_ids"], key=len)
        group = _cut_by_tokens(rows, settings.batch_tokens)
        chance.shuffle(group)
        batches.extend(group)
    return batches[: settings.num_steps]


def _cut_by_tokens(rows: Sequence[list[int]], batch_tokens: int) -> list[Batch]:
    """Cut rows sorted by length into batches of at most `batch_tokens` tokens once padded (a longer row is cut off)."""
    batches: list[Batch] = []
    batch: Batch = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row) > batch_tokens:
            batches.append(batch)
            batch = []
        batch.append(row[:batch_tokens])
    return [*batches, batch] if batch else batches


def _line(names: Iterator[str], phrases: Iterator[str], name_share: float, chance: random.Random) -> str:
    if chance.random() < name_share:
        x, y = next(names), next(names) if chance.random() < 0.5 else next(phrases)
    else:
        x, y = next(phrases), next(phrases)
    return chance.choice(_FORMATS).format(x=x, y=y, n=chance.randint(1, 999))


def _shuffled_forever(items: Sequence[str], chance: random.Random) -> Iterator[str]:
    order = list(items)
    while True:
        chance.shuffle(order)
        yield from order
