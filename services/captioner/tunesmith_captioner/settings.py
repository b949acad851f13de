"""Settings of the captioner."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tunesmith_captioner.decode.limits import DecodeLimits

_DEFAULT = DecodeLimits()


class CaptionerSettings(BaseSettings):
    """Who captions when a request names nobody, how much of a file is looked at, and what it may cost."""

    model_config = SettingsConfigDict(env_prefix="TUNESMITH_CAPTIONER_", extra="ignore", frozen=True)

    captioners: Annotated[tuple[str, ...], NoDecode] = ()
    """Names of the captioners to use when a request names none, separated by commas, one for each kind of media at
    most; none for the first of each kind."""
    clip_s: int = Field(default=_DEFAULT.clip_s, ge=5, le=600)
    """Seconds from the start of a file that are cut out and captioned."""
    decoders: int = Field(default=2, ge=1, le=64)
    """Files decoded at once, each in a process of its own."""
    batch_size: int = Field(default=8, ge=1, le=256)
    """Clips that a captioner gets at once; each takes about 40 MB on disk while it is looked at."""
    max_media_mib: int = Field(default=_DEFAULT.max_media_bytes // 2**20, ge=1)
    """Largest file that is opened, in MiB."""
    decode_memory_mib: int = Field(default=_DEFAULT.memory_mib, ge=512)
    """Address space of a decoding process, in MiB."""
    decode_cpu_s: int = Field(default=_DEFAULT.cpu_s, ge=1, le=3600)
    """Processor seconds that one file may take."""
    decode_wall_s: int = Field(default=_DEFAULT.wall_s, ge=1, le=7200)
    """Seconds that one file may take on a busy machine."""

    @field_validator("captioners", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    def limits(self, *, clip_s: int) -> DecodeLimits:
        """What one file may cost."""
        return DecodeLimits(
            clip_s=clip_s,
            max_media_bytes=self.max_media_mib * 2**20,
            memory_mib=self.decode_memory_mib,
            cpu_s=self.decode_cpu_s,
            wall_s=self.decode_wall_s,
        )
