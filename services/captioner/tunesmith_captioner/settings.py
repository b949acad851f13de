"""Settings of the captioner."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict


class CaptionerSettings(BaseSettings):
    """Which captioner answers when a request names none."""

    model_config = SettingsConfigDict(env_prefix="TUNESMITH_CAPTIONER_", extra="ignore", frozen=True)

    default_captioner: str = ""
    """Name of the captioner to use; empty for the first that can caption the media at hand."""
