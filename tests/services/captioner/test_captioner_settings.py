"""The captioner's settings, and what the README says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.domain.errors import InvalidSettings
from tunesmith.settings import read_settings
from tunesmith_captioner.settings import CaptionerSettings

README = Path(__file__).parents[3] / "services" / "captioner" / "README.md"


def test_names_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_CAPTIONER_CAPTIONERS", "signal-video, signal-audio")

    assert read_settings(CaptionerSettings).captioners == ("signal-video", "signal-audio")


def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_CAPTIONER_CLIP_S", "0")

    with pytest.raises(InvalidSettings, match="TUNESMITH_CAPTIONER_CLIP_S='0'"):
        read_settings(CaptionerSettings)


def test_the_readme_lists_every_setting_and_no_other() -> None:
    rows = [line.split("`")[1] for line in README.read_text().splitlines() if line.startswith("| `TUNESMITH_")]

    assert rows == [f"TUNESMITH_CAPTIONER_{name.upper()}" for name in CaptionerSettings.model_fields]
