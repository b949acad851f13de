"""Settings of the trainer."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class TrainerSettings(BaseSettings):
    """How much the trainer does at once, and which base models it takes."""

    model_config = SettingsConfigDict(env_prefix="TUNESMITH_TRAINER_", extra="ignore", frozen=True)

    max_parallel_trainings: int = Field(default=1, ge=1, le=64)
    """Runs, judgements and sweeps that may be under way at once; the others wait in line."""
    max_parallel_curations: int = Field(default=2, ge=1, le=64)
    """Datasets that may be built at once."""
    max_parallel_writings: int = Field(default=1, ge=1, le=16)
    """Jobs that may have pairs written at once."""
    max_parallel_questions: int = Field(default=4, ge=1, le=256)
    """Questions that one such job has on their way to the language model at once."""
    llm_from_requests: bool | None = None
    """Whether requests may name a language model of their own (the server then connects wherever they say); unset: only
    while the server listens on loopback. The key of the settings goes along on loopback only."""
    keep_checkpoints: bool = False
    """Keep a run's checkpoints after its adapter is stored, for looking into a training."""
    share_checkpoints: bool = False
    """Keep a run's checkpoints in the store while it trains, so that its next attempt may run on another machine. Jobs
    on Kubernetes do."""
