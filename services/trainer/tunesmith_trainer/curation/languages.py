"""The language of an answer: what its record says, else a detector that may abstain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunesmith.domain.errors import InvalidSettings
from tunesmith.domain.examples import Example

UNKNOWN = "unknown"

MIN_CONFIDENCE = 0.9
"""Below it the answer is `unknown`. Of 1,950 MusicBrainz genre names py3langid is surer of 12, mostly wrongly
(`vi`), while it gives whole sentences 0.93 and more: names are left unknown, lyrics are not."""

_NO_LANGUAGE = "zxx"


def stated_language(example: Example) -> str:
    """The record's own `language` attribute without region (`pt-BR` is `pt`), in lower case; empty for none."""
    return example.attributes.get("language", "").strip().casefold().replace("_", "-").partition("-")[0]


def language_of(example: Example, *, detect: Callable[[str], str]) -> str:
    """The record's own `language` attribute in lower case, else what `detect` makes of the answer."""
    return stated_language(example) or detect(example.answer)


class LanguageDetector:
    """A detector of ISO 639 codes, UNKNOWN under MIN_CONFIDENCE. The first call takes about 100 MB and 0.6 s to load.

    py3langid rather than lingua-language-detector: 4.6 MB on disk where lingua's models take 170 MB.
    """

    def __init__(self) -> None:
        self._identifier: Any = None  # py3langid has no types

    def __call__(self, text: str) -> str:
        if self._identifier is None:
            self._identifier = _load_identifier()
        code, confidence = self._identifier.classify(text)
        return UNKNOWN if confidence < MIN_CONFIDENCE or code == _NO_LANGUAGE else str(code)


def _load_identifier() -> Any:
    try:
        from py3langid.langid import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
            MODEL_FILE,
            LanguageIdentifier,
        )
    except ImportError as error:
        raise InvalidSettings(
            "languages and max_language_share need a language detector for what records do not say; "
            "pip install 'tunesmith[trainer]', or set language_by=column and max_language_share=0",
            metadata={"setting": "languages", "package": "py3langid"},
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
