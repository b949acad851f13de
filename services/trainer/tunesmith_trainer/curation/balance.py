"""Balancing: no word and no language holds more than its share of the rows."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tunesmith.domain.examples import Dropped
from tunesmith_trainer.curation.drops import BALANCE_LANGUAGE, BALANCE_WORD
from tunesmith_trainer.curation.languages import UNKNOWN


class Vocabulary:
    """Values as small numbers."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, value: str) -> int:
        """The number of `value`, given on first sight."""
        return self._numbers.setdefault(value, len(self._numbers))

    def values(self) -> list[str]:
        """The values by number."""
        return list(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


class Traits:
    """Words and language of every answer, as numbers: four bytes a word, four a language."""

    def __init__(self) -> None:
        self.vocabulary = Vocabulary()
        self.languages = Vocabulary()
        self._words = array("I")
        self._ends = array("Q", [0])
        self._language = array("I")

    def append(self, words: Iterable[str], language: str) -> None:
        """Add the traits of the next answer; a word counts once, however often the answer has it."""
        self._words.extend(self.vocabulary.number(word) for word in sorted(set(words)))
        self._ends.append(len(self._words))
        self._language.append(self.languages.number(language))

    def words_of(self, number: int) -> array[int]:
        """The numbers of the words of an answer."""
        return self._words[self._ends[number] : self._ends[number + 1]]

    def language_of(self, number: int) -> int:
        """The number of the language of an answer."""
        return self._language[number]


@dataclass(frozen=True, slots=True)
class Limits:
    """The most rows a word and a language may have."""

    word: int
    language: int


def overrepresented(
    traits: Traits, order: Sequence[int], *, max_word_share: float, max_language_share: float
) -> dict[int, Dropped]:
    """Which of the answers in `order` to leave out, and why; a share of 0 is no limit.

    Answers are taken in `order` while each of their words and their language has room; limits are shares of what is
    kept in the end, so they are lowered until they hold. Nothing is left out for a word or language of which one row
    is kept, nor for the language `unknown`. A share that cannot hold (every row has the word) empties the dataset
    down to that one row.
    """
    num_kept = len(order)
    limits = Limits(num_kept, num_kept)
    while True:
        allowed = Limits(
            word=min(limits.word, _limit(max_word_share, num_kept)),
            language=min(limits.language, _limit(max_language_share, num_kept)),
        )
        if allowed == limits:
            break
        limits = allowed
        num_kept = len(order) - sum(1 for _ in _refused(traits, order, limits))
    words, languages = traits.vocabulary.values(), traits.languages.values()
    return {
        number: Dropped(BALANCE_WORD, words[value]) if reason == BALANCE_WORD else Dropped(reason, languages[value])
        for number, reason, value in _refused(traits, order, limits)
    }


def _limit(share: float, num_rows: int) -> int:
    # 1e-9: 0.07 * 100 must be 7 (it is 7.000000000000001), and 0.29 * 100 must be 29 (it is 28.999999999999996).
    return max(1, int(share * num_rows + 1e-9)) if share > 0 else num_rows


def _refused(traits: Traits, order: Sequence[int], limits: Limits) -> Iterator[tuple[int, str, int]]:
    """Answer, reason and the number of the full word or language, for each answer that finds no room."""
    unknown = traits.languages.number(UNKNOWN)
    words_taken: Counter[int] = Counter()
    languages_taken: Counter[int] = Counter()
    for number in order:
        language = traits.language_of(number)
        if language != unknown and languages_taken[language] >= limits.language:
            yield number, BALANCE_LANGUAGE, language
            continue
        words = traits.words_of(number)
        full = next((word for word in words if words_taken[word] >= limits.word), None)
        if full is not None:
            yield number, BALANCE_WORD, full
            continue
        languages_taken[language] += 1
        words_taken.update(words)
