from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.domain.errors import InvalidSettings
from tunesmith.domain.examples import Example
from tunesmith_trainer.curation.balance import Traits, overrepresented
from tunesmith_trainer.curation.languages import UNKNOWN, LanguageDetector, language_of

rows_of_words = st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=4), min_size=1, max_size=60)


def traits_of(words: list[list[str]], languages: list[str] | None = None) -> Traits:
    traits = Traits()
    for number, row in enumerate(words):
        traits.append(row, languages[number] if languages else UNKNOWN)
    return traits


@given(rows_of_words, st.sampled_from([0.05, 0.2, 0.5, 0.9]))
@settings(deadline=None)
def test_no_word_stands_above_its_share_of_what_is_kept(rows: list[list[str]], share: float) -> None:
    refused = overrepresented(traits_of(rows), range(len(rows)), max_word_share=share, max_language_share=0)

    kept = [row for number, row in enumerate(rows) if number not in refused]
    counts = Counter(word for row in kept for word in set(row))
    assert all(count <= max(1, share * len(kept) + 1e-9) for count in counts.values())
    assert all(dropped.detail in rows[number] for number, dropped in refused.items())


@given(rows_of_words)
def test_shares_of_zero_and_one_drop_nothing(rows: list[list[str]]) -> None:
    traits = traits_of(rows)

    assert not overrepresented(traits, range(len(rows)), max_word_share=0, max_language_share=0)
    assert not overrepresented(traits, range(len(rows)), max_word_share=1, max_language_share=1)


def test_rows_of_an_unknown_language_are_never_balanced_away() -> None:
    languages = ["en"] * 10 + [UNKNOWN] * 80 + ["es"] * 10
    traits = traits_of([[] for _ in languages], languages)

    refused = overrepresented(traits, range(100), max_word_share=0, max_language_share=0.05)

    assert {languages[number] for number in refused} == {"en", "es"}
    assert Counter(languages[number] for number in refused) == {"en": 6, "es": 6}


def test_the_order_decides_which_rows_stay() -> None:
    traits = traits_of([["rock"], ["rock"], ["jazz"], ["folk"]])

    forward = overrepresented(traits, [0, 1, 2, 3], max_word_share=0.34, max_language_share=0)
    backward = overrepresented(traits, [3, 2, 1, 0], max_word_share=0.34, max_language_share=0)

    assert (list(forward), list(backward)) == ([1], [0])


def test_a_records_own_language_goes_before_detection() -> None:
    example = Example("ex-1", "p", "c", "bossa nova", ("rec-1",), {"language": " PT "})

    assert language_of(example, detect=lambda _: "xx") == "pt"


def test_a_record_without_a_language_is_left_to_the_detector() -> None:
    example = Example("ex-1", "p", "c", "bossa nova", ("rec-1",), {})

    assert language_of(example, detect=lambda text: f"<{text}>") == "<bossa nova>"


def test_the_detector_knows_sentences_and_admits_not_to_know_names() -> None:
    detect = LanguageDetector()

    assert detect("I walk the empty street tonight and think of you all alone") == "en"
    assert detect("Camino solo por la calle vacía y pienso en ti") == "es"
    assert [detect(name) for name in ("rock", "drum and bass", "samba", "1234", "")] == [UNKNOWN] * 5


def test_a_missing_detector_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)

    with pytest.raises(InvalidSettings, match=r"pip install 'tunesmith\[trainer\]'"):
        LanguageDetector()("rock")


def test_curation_imports_neither_torch_nor_a_sketching_library() -> None:
    heavy = ["torch", "transformers", "datasketch", "scipy", "py3langid", "datasets"]
    program = (
        "import sys, tunesmith_trainer.curation.build, tunesmith_trainer.curation.load; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
