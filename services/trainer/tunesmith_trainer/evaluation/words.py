"""Words of answers: which carry content, how evenly they are used, how far they repeat."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence

_ENGLISH = "a an and as at but by for from in into is it no not of off on or out that the this to up with"
_GERMAN = "das dem den der des die ein eine im mit und von zu"
_ROMANCE = "al da das de del di do dos e el em en et il la las le les lo los o os un una une y"

FUNCTION_WORDS = frozenset(f"{_ENGLISH} {_GERMAN} {_ROMANCE}".split())
"""Words of common languages that say nothing about what an answer is about."""

LONG_RUN_WORDS = 4
"""Words of a run that counts as self-repetition, as in Salkar et al. 2022, "Self-Repetition in Abstractive
Neural Summarizers"."""


def content_words(words: Sequence[str]) -> list[str]:
    """Those of the words that are no function words and have a letter."""
    return [w for w in words if w not in FUNCTION_WORDS and any(c.isalpha() for c in w)]


def answers_by_word(answers: Sequence[Sequence[str]]) -> Counter[str]:
    """In how many answers (given as words) each content word stands."""
    return Counter(word for words in answers for word in dict.fromkeys(content_words(words)))


def top_word(answers: Sequence[Sequence[str]]) -> tuple[str, int]:
    """The content word of the most answers and their number; the first in the alphabet among equals."""
    counts = answers_by_word(answers)
    return min(counts.items(), key=lambda item: (-item[1], item[0])) if counts else ("", 0)


def word_entropy(answers: Sequence[Sequence[str]]) -> float:
    """Shannon entropy of the content words over its maximum at that many words, in [0, 1]; nan below two words."""
    counts = Counter(word for words in answers for word in content_words(words))
    total = counts.total()
    if total < 2:
        return math.nan
    # abs: the entropy of one word is -0.0.
    return abs(sum(n / total * math.log2(n / total) for n in counts.values())) / math.log2(total)


def distinct_words(answers: Sequence[Sequence[str]], *, vocabulary_size: int) -> float:
    """Expectation-adjusted distinct words: N / (V (1 - ((V - 1) / V)^C)) of N different among C words.

    Liu et al. 2022, "Rethinking and Refining the Distinct Metric". V is the training set's vocabulary.
    """
    words = [word for row in answers for word in row]
    if not words or vocabulary_size < 1:
        return math.nan
    expected = vocabulary_size * (1 - ((vocabulary_size - 1) / vocabulary_size) ** len(words))
    return len(set(words)) / expected


def compression_ratio(texts: Sequence[str]) -> float:
    """UTF-8 bytes of the texts, one a line, over their bytes under zlib; nan for no text.

    It grows with the number of texts: compare at equal numbers only.
    """
    data = "\n".join(texts).encode("utf-8", "surrogatepass")
    return len(data) / len(zlib.compress(data, 9)) if data else math.nan


def long_runs(words: Sequence[str]) -> set[tuple[str, ...]]:
    """The runs of LONG_RUN_WORDS words; a shorter answer is one run."""
    return {tuple(words[i : i + LONG_RUN_WORDS]) for i in range(max(1, len(words) - LONG_RUN_WORDS + 1))}


def self_repeating(answers: Sequence[Sequence[str]]) -> list[bool]:
    """For each answer whether it shares a long run with another one."""
    runs = [long_runs(words) for words in answers]
    counts = Counter(run for row in runs for run in row)
    return [any(counts[run] > 1 for run in row) for row in runs]


def num_repeated(words: Sequence[str]) -> int:
    """How many of the content words stood in the answer before."""
    content = content_words(words)
    return len(content) - len(set(content))
