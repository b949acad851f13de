"""Settings of the trainer."""

from __future__ import annotations

from pydantic import Field, model_validator
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
    processes: int = Field(default=1, ge=1, le=64)
    """Processes that share each training on this machine, one for each GPU. A step's rows are split among them, so that
    the same settings train the same."""
    nodes: int = Field(default=1, ge=1, le=64)
    """Machines that share each training, with `processes` each. The Kubernetes launcher sets this and what follows."""
    node: int = Field(default=0, ge=0, le=63)
    """Which of them this is."""
    rendezvous: str = Field(default="", pattern=r"^([a-z0-9.-]+:\d{1,5})?$")
    """`host:port` of the first of them, where all meet."""
    keep_checkpoints: bool = False
    """Keep a run's checkpoints after its adapter is stored, for looking into a training."""
    share_checkpoints: bool = False
    """Keep a run's checkpoints in the store while it trains, so that its next attempt may run on another machine. Jobs
    on Kubernetes do."""

    @model_validator(mode="after")
    def _nodes_meet(self) -> TrainerSettings:
        if self.nodes > 1 and not (self.rendezvous and self.share_checkpoints and self.node < self.nodes):
            raise ValueError("several nodes need node < nodes, rendezvous and share_checkpoints=true")
        return self
