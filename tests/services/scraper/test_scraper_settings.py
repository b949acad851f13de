"""The settings' environment names and the rules on their values."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from contract.documented import undocumented_fields
from tunesmith_scraper.settings import ScraperSettings, environment_name

README = Path(__file__).parents[3] / "services" / "scraper" / "README.md"


def test_lists_are_read_comma_separated_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_SCRAPER_FILE_ROOTS", "/srv/lists, /home/me/music")
    monkeypatch.setenv("TUNESMITH_SCRAPER_LICENCE_ALLOW", "CC0-1.0,CC-BY-SA-4.0")

    settings = ScraperSettings()

    assert settings.file_roots == (Path("/srv/lists"), Path("/home/me/music"))
    assert settings.licence_allow == {"CC0-1.0", "CC-BY-SA-4.0"}


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("user_agent", "Mozilla/5.0", "does not name tunesmith"),
        ("contact", "me@example.org\r\nX-Evil: 1", "one line"),
        ("file_roots", "lists", "not an absolute path"),
        ("requests_per_s_per_host", "0", "greater than 0"),
        ("unknown_licence", "maybe", "allow"),
    ],
)
def test_a_wrong_setting_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str) -> None:
    monkeypatch.setenv(environment_name(name), value)

    with pytest.raises(ValidationError, match=why):
        ScraperSettings()


def test_every_setting_is_described_here_and_in_the_readme() -> None:
    readme = README.read_text(encoding="utf-8")

    assert undocumented_fields(ScraperSettings) == []
    for name in ScraperSettings.model_fields:
        assert f"`{environment_name(name)}`" in readme, name


def test_the_settings_are_frozen_by_name_and_default() -> None:
    assert {
        name: str(field.default) for name, field in ScraperSettings.model_fields.items() if name != "licence_allow"
    } == {
        "allow_private_addresses": "False",
        "file_roots": "()",
        "user_agent": "tunesmith/0.1",
        "contact": "",
        "requests_per_s_per_host": "1.0",
        "max_crawl_delay_s": "30.0",
        "connect_timeout_s": "10.0",
        "total_timeout_s": "60.0",
        "max_body_bytes": "67108864",
        "max_compression_ratio": "200.0",
        "max_upload_bytes": "1073741824",
        "max_media_bytes": "536870912",
        "max_collection_media_bytes": "68719476736",
        "media_timeout_s": "900.0",
        "max_parsed_bytes": "33554432",
        "max_field_chars": "131072",
        "max_records": "1000000",
        "max_redirects": "5",
        "max_attempts": "4",
        "backoff_s": "1.0",
        "max_retry_wait_s": "60.0",
        "respect_robots": "True",
        "unknown_licence": "allow",
        "watch_interval_s": "0.5",
        "watch_settle_s": "1.0",
        "musicbrainz_url": "https://musicbrainz.org",
        "listenbrainz_url": "https://api.listenbrainz.org",
    }
