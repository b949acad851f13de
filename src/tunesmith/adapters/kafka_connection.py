"""Where the Kafka brokers are and how to be let in, and what is wrong when they do not answer."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from tunesmith.domain.addresses import is_loopback
from tunesmith.domain.errors import InvalidSettings

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

DEFAULT_PORT = 9092
_PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """The brokers' addresses and the credentials; opens nothing by itself."""

    servers: tuple[str, ...]
    """`host:port` of some of the cluster's brokers; the others are learnt from them."""
    security_protocol: SecurityProtocol = "PLAINTEXT"
    ca: Path | None = None
    """PEM certificates that the brokers' ones must lead to; None for those of the operating system."""
    cert: Path | None = None
    """PEM chain that this client shows, with `key`."""
    key: Path | None = None
    sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    user: str = ""
    password: str = field(default="", repr=False)
    bootstrap_timeout_s: float = 5.0
    """How long a new client tries to reach a broker."""
    allow_insecure: bool = False
    """Talk to brokers beyond this machine without TLS."""

    def check(self) -> None:
        """Raise InvalidSettings for what does not go together. A process that never connects need not know it all."""
        if self.uses_sasl and not (self.user and self.password):
            raise InvalidSettings(
                f"TUNESMITH_KAFKA_SECURITY_PROTOCOL={self.security_protocol} needs TUNESMITH_KAFKA_USER and "
                "TUNESMITH_KAFKA_PASSWORD"
            )
        if not self.uses_sasl and self.user:
            raise InvalidSettings(
                f"TUNESMITH_KAFKA_USER={self.user!r} is set, but TUNESMITH_KAFKA_SECURITY_PROTOCOL="
                f"{self.security_protocol} sends no user: write SASL_SSL"
            )
        if (self.cert is None) != (self.key is None):
            raise InvalidSettings("TUNESMITH_KAFKA_CERT and TUNESMITH_KAFKA_KEY go together: set both or none")
        if not self.uses_tls and (self.ca or self.cert):
            raise InvalidSettings(
                "TUNESMITH_KAFKA_CA, _CERT and _KEY need TUNESMITH_KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL, "
                f"not {self.security_protocol}"
            )
        far = [server for server in self.servers if not is_loopback(server.rpartition(":")[0])]
        if far and not self.uses_tls and not self.allow_insecure:
            raise InvalidSettings(
                f"TUNESMITH_BUS=kafka://{self.address} reaches beyond this machine without TLS: set "
                "TUNESMITH_KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL, or TUNESMITH_ALLOW_INSECURE=true where a mesh "
                "or a private network protects it"
            )

    @property
    def uses_tls(self) -> bool:
        """Whether traffic is encrypted and the brokers prove who they are."""
        return self.security_protocol.endswith("SSL")

    @property
    def uses_sasl(self) -> bool:
        """Whether a user and a password are sent."""
        return self.security_protocol.startswith("SASL")

    @property
    def address(self) -> str:
        """The servers in one line, for messages."""
        return ",".join(self.servers)

    def client_options(self) -> dict[str, Any]:
        """What every kafka-python client is made with. InvalidSettings when that cannot be told."""
        self.check()
        options: dict[str, Any] = {
            "bootstrap_servers": list(self.servers),
            "client_id": "tunesmith",
            "security_protocol": self.security_protocol,
            "bootstrap_timeout_ms": int(self.bootstrap_timeout_s * 1000),
            "reconnect_backoff_ms": 50,
            # A broker that is back must not be waited for half a minute more.
            "reconnect_backoff_max_ms": 1000,
        }
        if self.uses_tls:
            options["ssl_context"] = self._ssl_context()
        if self.uses_sasl:
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password,
            }
        return options

    def knock(self) -> str:
        """Empty when some server accepts connections, else why none does; takes up to two seconds for each."""
        reasons = []
        for server in self.servers:
            try:
                _connected(server).close()
            except OSError as error:
                reasons.append(f"{server}: {error or type(error).__name__}")
            else:
                return ""
        return "; ".join(reasons)

    def diagnosis(self) -> str:
        """Why servers that accept connections cannot be talked to, found by trying each."""
        return "; ".join(f"{server}: {self._greet(server)}" for server in self.servers)

    def _greet(self, server: str) -> str:
        try:
            with _connected(server) as plain:
                if not self.uses_tls:
                    return "it accepts connections, but does not answer as Kafka without TLS would"
                host = server.rpartition(":")[0].strip("[]")
                with self._ssl_context().wrap_socket(plain, server_hostname=host):
                    return "it accepts connections, but does not answer as Kafka with TLS would"
        except OSError as error:
            return str(error) or type(error).__name__

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
        except OSError as error:  # ssl.SSLError is one
            raise InvalidSettings(
                f"the TLS files of Kafka cannot be used ({error}): TUNESMITH_KAFKA_CA={self.ca}, "
                f"TUNESMITH_KAFKA_CERT={self.cert}, TUNESMITH_KAFKA_KEY={self.key} must be readable PEM files"
            ) from error
        return context


def servers_of(url: str) -> tuple[str, ...]:
    """The servers that `kafka://host[:port][,host[:port]]` names; InvalidSettings for anything else."""
    wrong = InvalidSettings(
        f"TUNESMITH_BUS={_without_user(url)!r} does not name Kafka brokers: write kafka://host:9092[,host:9092], and "
        "user and password in TUNESMITH_KAFKA_USER and TUNESMITH_KAFKA_PASSWORD",
        metadata={"setting": "TUNESMITH_BUS", "value": _without_user(url)},
    )
    names = url.removeprefix("kafka://")
    if names == url or "@" in names or any(letter in names for letter in "/?#"):
        raise wrong
    servers = []
    for name in names.split(","):
        try:
            parts = urlsplit(f"//{name}")
            host, port = parts.hostname, parts.port
        except ValueError:
            raise wrong from None
        if not host:
            raise wrong
        servers.append(f"[{host}]:{port or DEFAULT_PORT}" if ":" in host else f"{host}:{port or DEFAULT_PORT}")
    return tuple(servers)


def _connected(server: str) -> socket.socket:
    host, _, port = server.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_TIMEOUT_S)


def _without_user(url: str) -> str:
    scheme, found, rest = url.partition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"[:200]
