"""The generator's settings, read from the environment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class GeneratorSettings(BaseSettings):
    """Environment variables `TUNESMITH_GENERATOR_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="TUNESMITH_GENERATOR_", frozen=True, extra="ignore")

    backend: str = "embedded"
    """What answers: `embedded` (PyTorch in this process), `tgi+http://host:8080[,http://other:8080]`
    (text-generation-inference) or `openai+http://host:8000?adapters=/shared/folder` (vLLM, SGLang). `tgi+file:///path`
    reads the addresses from a file, again and again; `?discover=dns` takes every IP address of a name."""
    backend_api_key: SecretStr = SecretStr("")
    """Key that is sent to the backend as `Authorization: Bearer KEY`."""
    max_batch_size: int = Field(default=16, ge=1, le=256)
    """Requests decoded together; more wait."""
    queue_limit: int = Field(default=128, ge=0)
    """Requests that may wait beside those being decoded; more are refused as overloaded."""
    max_new_tokens_limit: int = Field(default=1024, ge=1)
    """The largest max_new_tokens that a request may ask for."""
    max_prompt_tokens: int = Field(default=1024, ge=1)
    """Longer prompts are refused, because reading one prompt holds up everyone for one step."""
    max_loaded_adapters: int = Field(default=8, ge=1)
    """Model versions kept loaded beside the champions, for requests that name a version."""
    max_loaded_bases: int = Field(default=2, ge=1)
    """Base models in memory at once; two let a champion on a new base replace one on an old base without a gap."""
    refresh_interval_s: float = Field(default=1.0, gt=0)
    """Seconds between two looks at the champion aliases, which repair a lost event."""
    serve_rejected: bool = False
    """Let requests name model versions that did not pass their gates."""
    device: str = "auto"
    """`auto` (CUDA where there is one, else CPU), or a PyTorch device such as `cpu` or `cuda:0`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Weights and arithmetic of the bases. bfloat16 halves memory, but answers then depend on who shares the batch."""
    num_threads: int = Field(default=0, ge=0)
    """PyTorch's CPU threads; 0 takes half the cores. With all of them and a training beside it, decoding nearly stops:
    PyTorch's threads wait for each other at every operation."""
