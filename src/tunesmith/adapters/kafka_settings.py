"""How to talk to Kafka, from the environment (prefix TUNESMITH_KAFKA_)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tunesmith.adapters.kafka_connection import SaslMechanism, SecurityProtocol


class KafkaSettings(BaseSettings):
    """Read where TUNESMITH_BUS names Kafka. The defaults are a broker of this machine that trusts everybody."""

    model_config = SettingsConfigDict(env_prefix="TUNESMITH_KAFKA_", extra="ignore", frozen=True)

    security_protocol: SecurityProtocol = "PLAINTEXT"
    """Without TLS (SSL, SASL_SSL) only on loopback, or with TUNESMITH_ALLOW_INSECURE."""
    ca: Path | None = None
    """PEM file of the authorities that may sign the brokers' certificates; those of the operating system by default."""
    cert: Path | None = None
    """PEM certificate chain that Kafka knows this client by; with `key`."""
    key: Path | None = None
    """PEM private key of that certificate."""
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    """How Kafka checks `user` and `password`."""
    user: str = ""
    """User for SASL_PLAINTEXT or SASL_SSL."""
    password: SecretStr = SecretStr("")
    """That user's password."""
    topic_prefix: str = Field(default="", max_length=100, pattern=r"^[a-zA-Z0-9._-]*$")
    """Before the names of topics and groups, such as `prod.`, where installations share a cluster."""
    session_timeout_s: float = Field(default=10.0, ge=1, le=300)
    """So long after its death a member's partitions go to others; brokers have a least value of their own."""
    max_poll_interval_s: float = Field(default=45.0, ge=2, le=3600)
    """A member that has not asked for messages for so long loses its partitions.

    The default is longer than a store that hangs holds up one event: three reads of 10 s each.
    """
    partitions: int = Field(default=4, ge=1, le=1000)
    """Partitions of a topic that is created: at most so many replicas of a service consume at once."""
    replication_factor: int = Field(default=-1, ge=-1, le=100)
    """Copies of a topic that is created, -1 for the brokers' default. From 3 on a write waits for two of them."""
    create_topics: bool = True
    """Whether missing topics are created when a service starts; `tunesmith setup` creates them in any case."""

    @field_validator("ca", "cert", "key")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value else None
