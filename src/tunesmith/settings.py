"""Settings that all processes share, from the environment (prefix TUNESMITH_) or given by the embedding program."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tunesmith.domain.errors import InvalidSettings
from tunesmith.telemetry import LogFormat

_S = TypeVar("_S", bound=BaseSettings)

PATIENT_THREADS = {"GOMP_SPINCOUNT": "3000"}
"""Environment of every process that loads PyTorch, set before it does: how long OpenMP spins at a thread barrier.

Its default spins for milliseconds: with other work on 2 cores one training step took over 6 s instead of 0.6 s. Not
spinning at all (OMP_WAIT_POLICY=PASSIVE) costs half as much again on idle cores. Measured on 50 steps of the base:
6.0 s with 3000, 9.1 s passive; with both cores busy otherwise 8.4 s against 5.9 s for 25 steps.
"""


TRACING_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""OpenTelemetry's own variables, of which either turns tracing on."""

LLM_SCHEMES = ("grpc://", "openai+http://", "openai+https://", "tgi+http://", "tgi+https://")
"""How addresses of language models begin."""


class Settings(BaseSettings):
    """URLs choose adapters. The defaults are the embedded mode: one folder, nothing else installed."""

    model_config = SettingsConfigDict(env_prefix="TUNESMITH_", extra="ignore", frozen=True)

    data: Path = Path(".tunesmith")
    """Folder for everything that is kept: store, bus, checkpoints, caches, logs."""
    store: str = ""
    """Where artifacts are kept: `file:///folder`, or `s3://bucket?endpoint=http(s)://host:port` (with `&region=NAME`
    where it is not us-east-1, and `&buckets=areas` for one bucket per area); empty for `store/` in the data folder."""
    s3_access_key: SecretStr = SecretStr("")
    """User of an S3 store."""
    s3_secret_key: SecretStr = SecretStr("")
    """That user's key."""
    s3_ca: Path | None = None
    """PEM file of the authorities that may sign an S3 store's certificate; the usual public ones by default."""
    bus: str = ""
    """Where events go: `sqlite:///file`, or `kafka://host:port[,host:port]` (with TUNESMITH_KAFKA_*); empty for
    `bus.sqlite` in the data folder."""
    launcher: Literal["subprocess", "kubernetes"] = "subprocess"
    """How long work is started: as a child process, or as a Kubernetes Job (TUNESMITH_KUBERNETES_*)."""
    llm: str = "embedded"
    """What writes text for datasets: `embedded` (the generator served on this data folder), `grpc://host:port` (another
    generator), `openai+http(s)://host/v1?model=NAME` (any OpenAI-compatible server; `&api=completions` for one that
    does not chat) or `tgi+http(s)://host` (text-generation-inference)."""
    llm_api_key: SecretStr = SecretStr("")
    """Key that is sent to `llm` as `Authorization: Bearer KEY`."""
    serving: str = "embedded"
    """Who is asked, before a version becomes champion, whether it is served as it was judged: `embedded` (the generator
    served on this data folder), `grpc://host:port`, or `none` to have nobody asked."""
    serving_wait_s: float = Field(default=300.0, ge=0, le=86400)
    """Seconds that a promotion waits for that generator before its job fails."""
    serving_replicas: Literal["none", "kubernetes"] = "none"
    """Who starts a server for each version, where servers cannot load one while they run: `none`, or `kubernetes` for a
    Deployment beside the champion's (TUNESMITH_KUBERNETES_REPLICA_*), which goes when it is not needed any more."""
    serving_start_s: float = Field(default=3600.0, ge=0, le=86400)
    """Seconds that a promotion waits for such a server to be ready before its job fails."""
    recipes: str = ""
    """Python files with recipes of one's own, joined by `:` (`;` on Windows); read from the environment alone."""
    listen: str = "127.0.0.1:50400"
    """Address to serve on; port 0 takes a free one. An address beyond loopback needs TLS, or `allow_insecure`."""
    auth_token: str = Field(default="", repr=False)
    """Token that every call must carry as `authorization: Bearer TOKEN`; empty for none."""
    tls_cert: Path | None = None
    """PEM certificate chain; with `tls_key` turns TLS on."""
    tls_key: Path | None = None
    """PEM private key."""
    allow_insecure: bool = False
    """Serve beyond loopback without TLS, where a proxy or mesh provides it."""
    host_lost_after_s: float = Field(default=20.0, ge=1, le=3600)
    """Seconds after which the jobs of a host that shows no life are taken over by other replicas of its service."""
    start_timeout_s: float = Field(default=60.0, ge=0, le=24 * 3600)
    """Seconds to wait at the start for a bus and a store that do not answer yet."""
    drain_s: float = Field(default=10.0, ge=0, le=3600)
    """Seconds that running calls get to end, and workers to save, after SIGTERM."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is logged."""
    log_format: LogFormat = "json"
    """`json` for machines, `text` for people."""

    @field_validator("llm")
    @classmethod
    def _known_llm(cls, value: str) -> str:
        if value != "embedded" and not value.startswith(LLM_SCHEMES):
            raise ValueError(f"must be embedded, or begin with {', '.join(LLM_SCHEMES)}")
        return value

    @field_validator("s3_ca")
    @classmethod
    def _absolute_file(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value else None

    @field_validator("serving")
    @classmethod
    def _known_serving(cls, value: str) -> str:
        if value not in ("embedded", "none") and not re.fullmatch(r"grpc://[^\s/@]+:\d{1,5}", value):
            raise ValueError("must be embedded, none or grpc://host:port")
        return value

    @field_validator("serving_replicas")
    @classmethod
    def _has_someone_to_ask(cls, value: str, info: ValidationInfo) -> str:
        if value != "none" and info.data.get("serving") == "none":
            raise ValueError("needs TUNESMITH_SERVING=grpc://host:port, the generator that answers from them")
        return value

    @field_validator("data")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("recipes")
    @classmethod
    def _absolute_files(cls, value: str) -> str:
        return os.pathsep.join(str(Path(path).expanduser().absolute()) for path in value.split(os.pathsep) if path)

    @classmethod
    def read(cls, **given: object) -> Self:
        """Settings from the environment, overridden by `given`; InvalidSettings names each wrong one."""
        return read_settings(cls, **given)

    def worker_env(self) -> dict[str, str]:
        """The environment that gives a worker these settings. It holds secrets: never print or store it."""
        shown = {
            f"TUNESMITH_{name.upper()}": str(value)
            for name, value in self.model_dump().items()
            if name
            in (
                *("data", "store", "s3_ca", "bus", "launcher", "llm", "recipes", "log_level"),
                *("serving", "serving_wait_s", "serving_replicas", "serving_start_s"),
            )
            and value is not None
        }
        secret = {
            "TUNESMITH_S3_ACCESS_KEY": self.s3_access_key.get_secret_value(),
            "TUNESMITH_S3_SECRET_KEY": self.s3_secret_key.get_secret_value(),
        }
        # A child process gets them from here; elsewhere a worker's environment is written down for all to read.
        given = {name: value for name, value in secret.items() if value and self.launcher == "subprocess"}
        traced = {name: os.environ[name] for name in TRACING_VARIABLES if name in os.environ}
        return shown | given | traced | {"TUNESMITH_LOG_FORMAT": "text", **PATIENT_THREADS}


def read_settings(kind: type[_S], **given: object) -> _S:
    """Make settings of `kind` from the environment and `given`; InvalidSettings names each wrong one and the fix."""
    try:
        return kind(**given)  # type: ignore[arg-type]  # pydantic validates
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        between = kind.model_config.get("env_nested_delimiter") or "_"
        problems = [
            f"{prefix}{between.join(str(part) for part in e['loc']).upper()}={str(e['input'])[:80]!r}: {e['msg']}"
            for e in error.errors()
        ]
        raise InvalidSettings("wrong settings: " + "; ".join(problems)) from error
